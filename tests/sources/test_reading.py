"""Every format: what is read, what is rejected and with which place and reason."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.sources.plan import Piece, find_inputs
from vnprep.sources.reading import read_records
from vnprep.sources.records import Record
from vnprep.sources.sniff import sniff

TEXT = ReadOptions("text")
PAIRS = ReadOptions("pairs")
SEED = ReadOptions("seed-tsv", format="tsv")


def _read(path: Path, options: ReadOptions) -> list[Record | Excluded]:
    (item,) = find_inputs([str(path)], options.format)
    return list(read_records(Piece(item, 0, None, 1), options))


def _write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def _kept(items: list[Record | Excluded]) -> list[tuple[str, ...]]:
    return [item.segments for item in items if isinstance(item, Record)]


def _reasons(items: list[Record | Excluded]) -> list[tuple[int, int | None, str]]:
    return [
        (item.origin.line, item.origin.byte_offset, item.reason)
        for item in items
        if isinstance(item, Excluded)
    ]


def test_text_splits(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.txt", "\ufeffmột\r\nhai\r\n\r\nba\n\n\n")
    assert _kept(_read(path, TEXT)) == [("một\nhai\n\nba\n\n\n",)]
    by_line = _read(path, ReadOptions("text", text_split="line"))
    assert _kept(by_line) == [("một",), ("hai",), ("ba",)]
    assert [reason for *_, reason in _reasons(by_line)] == ["blank-line"] * 3
    by_paragraph = _read(path, ReadOptions("text", text_split="paragraph"))
    assert _kept(by_paragraph) == [("một\nhai",), ("ba",)]
    assert [item.origin.line for item in by_paragraph] == [1, 4]


def test_jsonl_rejects_bad_lines_and_goes_on(tmp_path: Path) -> None:
    good = json.dumps({"text": "được\u2028rồi\x85"}, ensure_ascii=False)
    lines = [
        good,
        "{broken",
        '{"text": "a", "text": "b"}',
        '{"text": NaN}',
        '["no object"]',
        '{"other": "x"}',
        '{"text": 5}',
        '{"text": "\\ud83d"}',
        '{"text": "a\\u0000b"}',
        '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}",
        good,
    ]
    path = _write(tmp_path / "a.jsonl", "\n".join(lines))
    items = _read(path, TEXT)
    assert _kept(items) == [("được\u2028rồi\x85",)] * 2
    assert [(line, reason) for line, _, reason in _reasons(items)] == [
        (2, "bad-json"),
        (3, "bad-json"),
        (4, "not-text"),
        (5, "bad-json"),
        (6, "missing-field"),
        (7, "not-text"),
        (8, "lone-surrogate"),
        (9, "nul-character"),
        (10, "bad-json"),
    ]
    raw = path.read_bytes()
    for item in items:
        offset = item.origin.byte_offset
        assert offset is not None
        assert raw[offset:].startswith(lines[item.origin.line - 1].encode())


def test_numbers_of_any_length_are_read_and_are_no_text(tmp_path: Path) -> None:
    many = "9" * 5000
    lines = [
        f'{{"n": {many}, "m": [-{many}.5e{many}], "text": "a"}}',
        f'{{"text": {many}}}',
        '{"text": -1.5}',
        '{"text": Infinity}',
        "7",
    ]
    path = _write(tmp_path / "a.jsonl", "\n".join(lines))
    items = _read(path, TEXT)
    assert _kept(items) == [("a",)]
    bad = [item for item in items if isinstance(item, Excluded)]
    not_text = ("not-text", "'text' is number, not text")
    assert [(item.reason, item.detail) for item in bad] == [
        *[not_text] * 3,
        ("bad-json", "a number, not an object"),
    ]
    role = f'{{"messages": [{{"role": {many}, "content": "x"}}]}}'
    (item,) = _read(_write(tmp_path / "b.jsonl", role), PAIRS)
    assert isinstance(item, Excluded)
    assert item.detail == f"message 0 is from {many}, expected 'user'"
    (found,) = find_inputs([str(_write(tmp_path / "c.json", f"{lines[0]}\n{lines[0]}\n"))], None)
    assert found.format == "jsonl"
    assert sniff(found, PAIRS).layout == "text"
    (found,) = find_inputs(
        [str(_write(tmp_path / "d.jsonl", lines[0].replace("text", "request")))], None
    )
    assert sniff(found, PAIRS).layout == "pairs"


def test_a_line_that_is_not_utf8_costs_only_itself(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", b"request\tresponse\nA\tB\n\xd0\xcf\tC\nD\tE\n")
    items = _read(path, PAIRS)
    assert _kept(items) == [("A", "B"), ("D", "E")]
    assert _reasons(items) == [(3, 21, "invalid-utf8")]


def test_a_line_over_the_limit_is_rejected_without_being_held(tmp_path: Path) -> None:
    options = ReadOptions("text", text_split="line", max_record_bytes=10)
    path = _write(tmp_path / "a.txt", "ngắn\n" + "x" * 5_000_000 + "\nsau\n")
    items = _read(path, options)
    assert _kept(items) == [("ngắn",), ("sau",)]
    assert _reasons(items) == [(2, 7, "too-large")]


def test_a_paragraph_over_the_limit_is_rejected_to_its_end(tmp_path: Path) -> None:
    options = ReadOptions("text", text_split="paragraph", max_record_bytes=13)
    long = "một\nhai\nba\nbốn\nnăm"
    path = _write(tmp_path / "a.txt", f"{long}\n\nđủ\nđủ b\n\nđủ\nđủ bé\n \n{long}")
    items = _read(path, options)
    assert _kept(items) == [("đủ\nđủ b",)], "this one has as many bytes as there may be"
    assert _reasons(items) == [(1, 0, "too-large"), (10, 40, "too-large"), (13, 58, "too-large")]
    assert [item.excerpt for item in items if isinstance(item, Excluded)] == ["một", "đủ", "một"]


def test_csv_quotes_line_breaks_and_bad_rows(tmp_path: Path) -> None:
    text = (
        'request,response,note\n"Bật, rồi tắt","Đã ""bật""\nrồi tắt",x\n'
        'A,B\nC,"D" E,x\nF,G,x\nH,"never closed,x\nI,K,x\n'
    )
    path = _write(tmp_path / "a.csv", text)
    items = _read(path, PAIRS)
    assert _kept(items) == [("Bật, rồi tắt", 'Đã "bật"\nrồi tắt'), ("F", "G"), ("I", "K")]
    assert [(line, reason) for line, _, reason in _reasons(items)] == [
        (4, "ragged-row"),
        (5, "bad-quoting"),
        (7, "bad-quoting"),
    ]


def test_cells_parted_by_other_signs(tmp_path: Path) -> None:
    semicolons = 'response;request;n\n"A, b";"C;d";1\n'
    (item,) = _read(_write(tmp_path / "a.csv", semicolons), PAIRS)
    assert isinstance(item, Record)
    assert (item.segments, item.notes) == (("C;d", "A, b"), ("semicolons",))
    for delimiter in (",", ";", "\t", "|"):
        rows = f"request{delimiter}response\na{delimiter}b\n"
        said = _write(tmp_path / "b.csv", f"\ufeffsep={delimiter}\r\n{rows}")
        items = _read(said, PAIRS)
        assert _kept(items) == [("a", "b")]
        assert items[0].origin.line == 3
        given = ReadOptions("pairs", delimiter=delimiter)
        assert _kept(_read(_write(tmp_path / "c.csv", rows), given)) == [("a", "b")]


def test_names_of_columns_are_matched_in_nfc(tmp_path: Path) -> None:
    nfd = unicodedata.normalize("NFD", "hỏi,đáp\na,b\n")
    for name in (unicodedata.normalize(form, "hỏi") for form in ("NFC", "NFD")):
        options = ReadOptions("pairs", request_field=name, response_field="đáp")
        assert _kept(_read(_write(tmp_path / "a.csv", nfd), options)) == [("a", "b")]
        tsv = _write(tmp_path / "a.tsv", nfd.replace(",", "\t"))
        assert _kept(_read(tsv, options)) == [("a", "b")]


def test_columns_without_a_name_may_be_empty(tmp_path: Path) -> None:
    text = "request,response,,\na,b,,\nc,d,,\ne,f,x,\ng,h\ni,j,,,,,\nk,l,,,,m\n"
    for path in (
        _write(tmp_path / "a.csv", text),
        _write(tmp_path / "a.tsv", text.replace(",", "\t")),
    ):
        items = _read(path, PAIRS)
        assert _kept(items) == [("a", "b"), ("c", "d"), ("i", "j")]
        assert [(line, reason) for line, _, reason in _reasons(items)] == [
            (4, "nameless-column"),
            (5, "ragged-row"),
            (7, "ragged-row"),
        ]


def test_seed_cells_are_found_by_the_header(tmp_path: Path) -> None:
    text = "id\ttarget\tinput\t\n1\ta [EOS]\t[BOS] a\t\n2\t\tb [EOS]\t[BOS] b\n\tc [EOS]\t[BOS] c\n"
    items = _read(_write(tmp_path / "a.tsv", text), SEED)
    assert _kept(items) == [("a",), ("b",)]
    assert [item.notes for item in items if isinstance(item, Record)] == [(), ("extra-tabs",)]
    assert [(line, reason) for line, _, reason in _reasons(items)] == [(4, "ragged-row")]


def test_cr_alone_ends_lines_of_whole_texts_and_is_refused_elsewhere(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.txt", "một\rhai\rba")
    assert _kept(_read(path, TEXT)) == [("một\nhai\nba",)]
    for options in (ReadOptions("text", text_split="line"), PAIRS):
        with pytest.raises(InputError, match="end in CR alone") as caught:
            _read(path, options)
        assert "tr " in caught.value.remedy


def test_tsv_quotes_are_text_unless_asked(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", 'request\tresponse\n"A"\t"B ""c"""\n')
    (plain,) = _read(path, PAIRS)
    assert isinstance(plain, Record)
    assert plain.segments == ('"A"', '"B ""c"""')
    assert plain.notes == ("quoted-cell",)
    assert _kept(_read(path, ReadOptions("pairs", quoted_tsv=True))) == [("A", 'B "c"')]


def test_seed_tsv_rows(tmp_path: Path) -> None:
    text = (
        "input\ttarget\n[BOS] a b\ta b [EOS]\n[BOS] a b\t\t\ta b [EOS]\n[BOS] a b\ta c [EOS]\n"
        "a b\ta b [EOS]\n[BOS] a\n\n[BOS] a\ta [EOS]\tb\n"
    )
    items = _read(_write(tmp_path / "a.tsv", text), SEED)
    assert _kept(items) == [("a b",), ("a b",)]
    assert [item.notes for item in items if isinstance(item, Record)] == [(), ("extra-tabs",)]
    assert [(line, reason) for line, _, reason in _reasons(items)] == [
        (4, "not-shifted"),
        (5, "missing-marker"),
        (6, "ragged-row"),
        (7, "blank-line"),
        (8, "ragged-row"),
    ]


def test_blocks(tmp_path: Path) -> None:
    text = (
        "lạc\nRequest: một\nhai\nResponse: ba\nbốn\n\nRequest: năm\n"
        "Request: sáu\nResponse: bảy\nResponse: tám\nchín\nRequest: x\nResponse: y\n"
    )
    items = _read(_write(tmp_path / "a.txt", text), PAIRS)
    assert _kept(items) == [("một\nhai", "ba\nbốn"), ("x", "y")]
    assert [(line, reason) for line, _, reason in _reasons(items)] == [
        (1, "outside-block"),
        (7, "incomplete-block"),
        (8, "two-responses"),
    ]


def test_messages(tmp_path: Path) -> None:
    def chat(*turns: tuple[str, str]) -> str:
        return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]})

    lines = [
        chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
        chat(("system", "S"), ("user", "a"), ("assistant", "b")),
        chat(("user", "a")),
        chat(("assistant", "a"), ("user", "b")),
        chat(("user", "a"), ("assistant", "  ")),
    ]
    items = _read(_write(tmp_path / "a.jsonl", "\n".join(lines)), PAIRS)
    assert _kept(items) == [("a", "b", "c", "d"), ("S\na", "b")]
    assert [(line, reason) for line, _, reason in _reasons(items)] == [
        (3, "bad-messages"),
        (4, "bad-messages"),
        (5, "empty-response"),
    ]
    assert all(item.excerpt for item in items if isinstance(item, Excluded))


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"request": ["a", None], "response": ["b", "c"], "n": [1, 2]}), path)
    items = _read(path, PAIRS)
    assert _kept(items) == [("a", "b")]
    assert _reasons(items) == [(2, None, "missing-field")]
    messages = [[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]]
    pq.write_table(pa.table({"messages": messages}), path)
    assert _kept(_read(path, PAIRS)) == [("x", "y")]
    with pytest.raises(InputError, match="no column text; the header has: messages"):
        _read(path, TEXT)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        _read(path, PAIRS)


def _zstd(raw: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("ending", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", _zstd)],
)
def test_compressed_inputs_and_damage_to_them(
    tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]
) -> None:
    lines = [json.dumps({"text": f"câu số {number * 7919 % 1000}"}) for number in range(3000)]
    raw = "\n".join(lines).encode()
    path = _write(tmp_path / f"a.jsonl{ending}", compress(raw))
    items = _read(path, TEXT)
    assert len(_kept(items)) == 3000
    assert items[-1].origin.byte_offset == len(raw) - len(lines[-1])
    _write(path, b"".join(compress(f"{line}\n".encode()) for line in lines[:9]))
    assert len(_kept(_read(path, TEXT))) == 9, "a file may have several compressed parts"
    _write(path, compress(raw)[:-200])
    with pytest.raises(InputError, match="cannot be read"):
        _read(path, TEXT)
    _write(path, b"")
    with pytest.raises(InputError, match="cut short"):
        _read(path, TEXT)
    _write(path, compress(b""))
    assert _read(path, TEXT) == []


def test_xz_is_streams_and_padding_alone(tmp_path: Path) -> None:
    options = ReadOptions("text", text_split="line")
    first, second = (lzma.compress(f"{text}\n".encode() * 9) for text in ("một", "hai"))
    path = tmp_path / "a.txt.xz"
    for padding in (0, 4, 8, 1 << 20):
        _write(path, first + bytes(padding) + second + bytes(padding))
        assert _kept(_read(path, options)) == [("một",)] * 9 + [("hai",)] * 9
    flipped = bytes([second[0] ^ 1]) + second[1:]
    for rest in (flipped, b"junk", bytes(3), bytes(5) + second, b"\n", second[:3], second[:-1]):
        _write(path, first + rest)
        with pytest.raises(InputError, match="cannot be read") as caught:
            _read(path, options)
        assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("một".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"\x1f\x8brest", "gzip data"),
        (b"PAR1rest", "Parquet"),
        (b"ARROW1rest", "Arrow"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = _write(tmp_path / "a.csv", content)
    with pytest.raises(InputError, match=message) as caught:
        _read(path, PAIRS)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ['[{"text": "a"}]', '[\n{"text": "a"}\n]', '{\n"text": "a"\n}'])
def test_json_that_is_no_jsonl_is_read_as_json_or_named(tmp_path: Path, text: str) -> None:
    assert _kept(_read(_write(tmp_path / "a.json", text), TEXT)) == [("a",)]
    with pytest.raises(InputError, match="not one object a line") as caught:
        _read(_write(tmp_path / "a.jsonl", text), TEXT)
    assert "--format json" in caught.value.remedy
    assert _kept(_read(tmp_path / "a.jsonl", ReadOptions("text", format="json"))) == [("a",)]


def test_headers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column request; the header has: hỏi, response"):
        _read(_write(tmp_path / "a.csv", "hỏi,response\na,b\n"), PAIRS)
    with pytest.raises(InputError) as caught:
        _read(_write(tmp_path / "a.tsv", "request,response\na,b\n"), PAIRS)
    assert "--format csv" in caught.value.remedy
    with pytest.raises(InputError, match="twice"):
        _read(_write(tmp_path / "b.tsv", "request\tresponse\trequest\n"), PAIRS)
    with pytest.raises(InputError, match="header line cannot be read"):
        _read(_write(tmp_path / "c.tsv", b"y\xeau\tresponse\na\tb\n"), PAIRS)
    assert _reasons(_read(_write(tmp_path / "d.tsv", ""), PAIRS)) == [(1, 0, "empty-file")]
    with pytest.raises(InputError) as caught:
        _read(_write(tmp_path / "f.tsv", "input\ttarget\n"), PAIRS)
    assert "vnprep pretrain-tsv" in caught.value.remedy
    assert "--request-field" in caught.value.remedy
    with pytest.raises(InputError) as caught:
        _read(_write(tmp_path / "f.tsv", "request\tresponse\n"), SEED)
    assert "--request-field" not in caught.value.remedy
    assert "vnprep finetune-pairs" in caught.value.remedy
    named = ReadOptions("pairs", request_field="hỏi", response_field="đáp")
    assert _kept(_read(_write(tmp_path / "e.csv", "hỏi,đáp\na,b\n"), named)) == [("a", "b")]
