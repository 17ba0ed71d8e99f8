"""The fast readers say what the careful ones say, whatever the bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import ROWS_PER_BATCH
from vnprep.sources import chunks as chunks_module
from vnprep.sources import jsonl_columns
from vnprep.sources.batch import TextBatch, coalesce
from vnprep.sources.chunks import Chunk, read_chunks
from vnprep.sources.jsonl_columns import read_jsonl_batches, read_with_care
from vnprep.sources.lines import Line, read_lines
from vnprep.sources.records import Record
from vnprep.sources.text import one_line
from vnprep.sources.text_columns import read_line_batches

TEXT = ReadOptions("text")
PAIRS = ReadOptions("pairs")

Found = tuple[list[tuple[int, int | None, tuple[str, ...]]], list[tuple[int, int | None, str]]]

# Letters of Vietnam in both forms, white space of every width, marks, NUL, other scripts.
characters = st.sampled_from(
    [*'aĐđâạẤở 0"\\{}[],:/', *"\t\r\x00\x0b\x1c\x85\xa0\u1680\u2003\u2028"]
)
characters |= st.sampled_from([*"\u0301\u0323\u3000\u200b\ufeff\u212b\u20abелん가😀", "\u1eaf"])
texts = st.text(characters, max_size=6)
values = st.one_of(
    texts, texts, texts, st.none(), st.booleans(), st.integers(), st.lists(texts, max_size=2)
)
names = st.sampled_from(["text", "request", "response", "id", "messages", "tếxt"])
objects = st.lists(st.tuples(names, values), max_size=4)


def written(pairs: list[tuple[str, object]], ascii_only: bool) -> bytes:
    parts = (
        f"{json.dumps(name)}:{json.dumps(value, ensure_ascii=ascii_only)}" for name, value in pairs
    )
    return ("{" + ",".join(parts) + "}").encode()


json_lines = st.one_of(
    st.builds(written, objects, st.booleans()),
    st.builds(written, objects, st.booleans()),
    st.sampled_from(
        [
            b"",
            b"  ",
            b"{",
            b"}",
            b"{}{}",
            b'{"text":"a"}{"text":"b"}',
            b'{"text":',
            b'"c"}',
            b'{"text":"a"},',
            b'  {"text":"a"} ',
            b'{"text":NaN}',
            b'{"text":"a","x":NaN}',
            b'{"text":"\\ud83d"}',
            b'{"text":"\\ud83d\\ude00"}',
            b'{"text":"a\\u0000b"}',
            b'{"text":"a\xffb"}',
            b'{"text":"a","x":"\xff"}',
            b'{"text":"a","text":"b"}',
            b'{"text":"a","x":1,"x":2}',
            b'{"text":"a","x":%s}' % (b"9" * 5000),
            b'{"text":-1.5e%s}' % (b"9" * 5000),
            b'["a"]',
            b"\xef\xbb\xbf{}",
            b'{"request":"a","response":"b"}',
            b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}',
        ]
    ),
    st.binary(max_size=8),
)
line_ends = st.sampled_from([b"\n", b"\n", b"\r\n"])
files = st.lists(st.tuples(json_lines, line_ends), max_size=12).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def by_batch(batches: Iterator[TextBatch]) -> tuple[Found, int]:
    kept, excluded, blank = [], [], 0
    for batch in batches:
        lines = batch.line.tolist()
        assert lines == sorted(lines)
        blank += batch.blank_lines
        for row in range(len(batch)):
            segments = batch.texts[batch.record_offsets[row] : batch.record_offsets[row + 1]]
            origin = batch.origin(row, ["f"])
            kept.append((origin.line, origin.byte_offset, tuple(segments.to_pylist())))
        excluded += [at(item) for item in batch.excluded]
    return (kept, excluded), blank


def at(item: Excluded) -> tuple[int, int | None, str]:
    return item.origin.line, item.origin.byte_offset, item.reason


def by_row(items: list[Record | Excluded]) -> Found:
    kept = [
        (item.origin.line, item.origin.byte_offset, item.segments)
        for item in items
        if isinstance(item, Record)
    ]
    return kept, [at(item) for item in items if isinstance(item, Excluded)]


def compare(found: tuple[Found, int], wanted: Found) -> None:
    (kept, excluded), blank = found
    assert kept == wanted[0]
    # Empty lines are only counted.
    listed = [item for item in excluded if item[2] != "blank-line"]
    assert listed == [item for item in wanted[1] if item[2] != "blank-line"]
    assert len(excluded) + blank == len(wanted[1])


@pytest.fixture(params=[(3, 99), (64, 2), (1 << 20, 5)], scope="module", autouse=True)
def chunk_bytes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Cut the input anywhere: the chunks end with whole lines all the same."""
    patch = pytest.MonkeyPatch()
    chunk, lines = request.param
    patch.setattr(chunks_module, "_CHUNK", chunk)
    patch.setattr(chunks_module, "_LINES", lines)
    yield
    patch.undo()


def lines_of(data: bytes, limit: int) -> list[Line | Excluded]:
    return list(read_lines(io.BytesIO(data), "f", limit=limit))


@settings(deadline=None)
@given(files, st.sampled_from([TEXT, PAIRS]), st.sampled_from([20, 1 << 20]))
@example(b'{"text":"a"} {"text":"b"}\n{"text":\n"c"}\n', TEXT, 99)
@example(b'{"text":"a"}{"text":"b"}\n{}\n\n', TEXT, 99)
@example(b'{"text":"a"}{"text":"b"}\n{"x":\n{"y":1},"text":"c"}\n', TEXT, 99)
@example(b'{"text":"a","x":%s}\n' % (b"9" * 5000), TEXT, 1 << 20)
@example(b'{"text":"a","x":-%s}\n{bad}\n' % (b"9" * 5000), TEXT, 1 << 20)
def test_jsonl(data: bytes, options: ReadOptions, limit: int) -> None:
    chunks = read_chunks(io.BytesIO(data), "f", limit=limit)
    found = by_batch(coalesce(read_jsonl_batches(chunks, 0, options)))
    compare(found, by_row([read_with_care(line, options) for line in lines_of(data, limit)]))


@settings(deadline=None)
@given(
    st.lists(st.tuples(texts.map(str.encode) | st.binary(max_size=6), line_ends), max_size=12),
    st.sampled_from([4, 1 << 20]),
    st.booleans(),
)
def test_text_by_line(lines: list[tuple[bytes, bytes]], limit: int, bom: bool) -> None:
    data = b"\xef\xbb\xbf" * bom + b"".join(line + end for line, end in lines)
    found = by_batch(read_line_batches(read_chunks(io.BytesIO(data), "f", limit=limit), 0))
    wanted = [one_line(line) if isinstance(line, Line) else line for line in lines_of(data, limit)]
    compare(found, by_row(wanted))


@settings(deadline=None)
@given(files, st.integers(0, 5), st.integers(1, 60))
def test_a_piece_has_the_lines_that_begin_in_it(data: bytes, first: int, length: int) -> None:
    starts = [0, *(place + 1 for place, byte in enumerate(data) if byte == 10)]
    start = starts[min(first, len(starts) - 1)]
    given = {"limit": 1 << 20, "start": start, "end": start + length, "first_line": 7}
    file = io.BytesIO(data)
    file.seek(start)
    chunks = [chunk for chunk in read_chunks(file, "f", **given) if isinstance(chunk, Chunk)]
    file.seek(start)
    wanted = list(read_lines(file, "f", **given))
    found = [chunk.line(line) for chunk in chunks for line in range(len(chunk.starts))]
    assert found == wanted


def test_good_lines_are_taken_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the comparison above against comparing the careful reader with itself."""
    read: list[Line | Excluded] = []
    real = jsonl_columns.read_with_care

    def counted(line: Line | Excluded, options: ReadOptions) -> Record | Excluded:
        read.append(line)
        return real(line, options)

    monkeypatch.setattr(jsonl_columns, "read_with_care", counted)
    monkeypatch.setattr(chunks_module, "_CHUNK", 1 << 20)
    monkeypatch.setattr(chunks_module, "_LINES", 1 << 20)
    lines = [json.dumps({"text": f"Câu {n}"}, ensure_ascii=False) for n in range(50)]
    lines[7] = '["no object"]'
    lines[9] = '{"text": null}'
    data = "\n".join(lines).encode()
    [batch] = read_jsonl_batches(read_chunks(io.BytesIO(data), "f", limit=1 << 20), 0, TEXT)
    assert len(batch) == 48 and len(batch.excluded) == 2
    assert len(read) == 2


def test_rejects_do_not_pile_up() -> None:
    """A file of nothing but bad lines is handed on in pieces, like one of good lines."""
    data = b"x\n" * 20_000
    batches = read_jsonl_batches(read_chunks(io.BytesIO(data), "f", limit=99), 0, TEXT)
    sizes = [len(batch.excluded) for batch in coalesce(batches)]
    assert sum(sizes) == 20_000
    assert max(sizes) <= ROWS_PER_BATCH
