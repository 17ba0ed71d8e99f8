"""Parquet and Arrow: the same rows from every container, groups, damage, names."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.sources.batch import TextBatch
from vnprep.sources.batches import read_batches
from vnprep.sources.inputs import find_inputs
from vnprep.sources.plan import Piece
from vnprep.sources.reading import read_records
from vnprep.sources.records import Record
from vnprep.sources.tables import read_table, table_groups

PAIRS = ReadOptions("pairs")
TABLE = pa.table(
    {
        "n": list(range(10)),
        "response": [None if number == 7 else f"đáp {number}" for number in range(10)],
        "request": [f"hỏi {number}" for number in range(10)],
    }
)


def _ipc_file(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


def _ipc_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


def _parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=4)


def _feather(table: pa.Table, path: Path) -> None:
    feather.write_feather(table, str(path), compression="zstd", chunksize=4)


CONTAINERS = pytest.mark.parametrize(
    ("ending", "write"),
    [
        (".parquet", _parquet),
        (".arrow", _ipc_file),
        (".arrow", _ipc_stream),
        (".feather", _feather),
    ],
    ids=["parquet", "file", "stream", "feather"],
)
Write = Callable[[pa.Table, Path], None]


def _read(path: Path, options: ReadOptions = PAIRS) -> list[Record | Excluded]:
    (item,) = find_inputs([str(path)], options.format)
    return list(read_records(Piece(item, 0, None, 1), options))


@CONTAINERS
def test_rows_and_rejects_are_those_of_the_table(tmp_path: Path, ending: str, write: Write) -> None:
    path = tmp_path / f"a{ending}"
    write(TABLE, path)
    items = _read(path)
    assert [item.origin.line for item in items] == list(range(1, 11))
    for number, item in enumerate(items):
        assert item.origin.byte_offset is None
        if number == 7:
            assert isinstance(item, Excluded)
            assert item.reason == "missing-field"
            assert "hỏi 7" in item.excerpt
        else:
            assert isinstance(item, Record)
            assert item.segments == (f"hỏi {number}", f"đáp {number}")
    with pytest.raises(InputError, match="no column text; the header has: n, response, request"):
        _read(path, ReadOptions("text"))


@CONTAINERS
def test_damage_is_an_error(tmp_path: Path, ending: str, write: Write) -> None:
    path = tmp_path / f"a{ending}"
    write(TABLE, path)
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) - 9, len(whole) // 2, 9, 3):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"not a readable (Parquet|Arrow) file"):
            _read(path)


@pytest.mark.parametrize("rows", range(1, 10))
def test_a_stream_cut_between_two_messages_is_damaged(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "a.arrow"
    batch = pa.record_batch({"text": [f"câu {number}" for number in range(rows)]})
    ends = []
    with path.open("wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(3):
            writer.write_batch(batch)
            ends.append(sink.tell())
    assert len(_read(path, ReadOptions("text"))) == 3 * rows
    whole = path.read_bytes()
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="without its end mark"):
            _read(path, ReadOptions("text"))


def test_a_stream_of_the_old_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    old = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4, use_legacy_format=True)
    with path.open("wb") as sink, pa.ipc.new_stream(sink, TABLE.schema, options=old) as writer:
        writer.write_table(TABLE)
    assert not path.read_bytes().startswith(b"\xff")
    assert len(_read(path)) == TABLE.num_rows
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="not a readable Arrow file"):
        _read(path)


def test_groups_are_read_apart(tmp_path: Path) -> None:
    for write, name in ((_parquet, "a.parquet"), (_ipc_file, "a.arrow")):
        write(TABLE, tmp_path / name)
        (item,) = find_inputs([str(tmp_path / name)], None)
        groups = table_groups(item)
        assert [group.rows for group in groups] == [4, 4, 2]
        assert all(group.bytes > 0 for group in groups)
        rows = list(read_table(item, PAIRS, 1, 2, 5))
        assert [row.origin.line for row in rows] == [5, 6, 7, 8]
    _ipc_stream(TABLE, tmp_path / "s.arrow")
    (item,) = find_inputs([str(tmp_path / "s.arrow")], None)
    assert table_groups(item) == []


@CONTAINERS
def test_a_string_that_is_not_utf8_costs_its_row_alone(
    tmp_path: Path, ending: str, write: Write
) -> None:
    strings = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).view(pa.string())
    path = tmp_path / f"a{ending}"
    write(pa.table({"text": strings}), path)
    items = _read(path, ReadOptions("text"))
    assert [item.segments for item in items if isinstance(item, Record)] == [("a",), ("c",)]
    (bad,) = [item for item in items if isinstance(item, Excluded)]
    assert (bad.origin.line, bad.reason) == (2, "invalid-utf8")


@CONTAINERS
def test_names_are_matched_in_nfc(tmp_path: Path, ending: str, write: Write) -> None:
    columns = {unicodedata.normalize("NFD", "hỏi"): ["a"], " đáp ": ["b"]}
    path = tmp_path / f"a{ending}"
    write(pa.table(columns), path)
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "hỏi")
        options = ReadOptions("pairs", request_field=name, response_field="đáp")
        assert [item.segments for item in _read(path, options)] == [("a", "b")]  # type: ignore[union-attr]


def test_text_types_and_messages(tmp_path: Path) -> None:
    texts = ["một", "hai", "một"]
    messages = [[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]] * 3
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        table = pa.table({"text": pa.array(texts).cast(kind), "messages": messages})
        _ipc_file(table, tmp_path / "a.arrow")
        items = _read(tmp_path / "a.arrow", ReadOptions("text"))
        assert [item.segments for item in items] == [(text,) for text in texts]  # type: ignore[union-attr]
        assert [item.segments for item in _read(tmp_path / "a.arrow")] == [("x", "y")] * 3  # type: ignore[union-attr]
    _ipc_file(pa.table({"text": pa.array([b"x"], pa.binary())}), tmp_path / "a.arrow")
    (item,) = _read(tmp_path / "a.arrow", ReadOptions("text"))
    assert isinstance(item, Excluded)
    assert item.reason == "not-text"


def _by_batch(path: Path, options: ReadOptions) -> list[TextBatch]:
    (item,) = find_inputs([str(path)], options.format)
    return list(read_batches(Piece(item, 0, None, 1), 0, options))


@CONTAINERS
@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
    ids=str,
)
def test_a_row_over_the_limit_is_rejected_alone(
    tmp_path: Path, ending: str, write: Write, kind: pa.DataType
) -> None:
    options = ReadOptions("pairs", max_record_bytes=60)
    requests = ["", "ngắn", None, "ư" * 30, "ư" * 30, "x" * 61, "sau", "\0", "dài" * 999]
    responses = ["a", "b", "c", "", "z", "d", "e", "f", "g"]
    path = tmp_path / f"a{ending}"
    columns = {"request": pa.array(requests).cast(kind), "response": pa.array(responses)}
    write(pa.table(columns), path)
    items = _read(path, options)
    found = [(item.origin.line, item.reason) for item in items if isinstance(item, Excluded)]
    assert found == [
        (1, "empty-request"),
        (3, "missing-field"),
        (4, "empty-response"),  # as long as a row may be
        (5, "too-large"),
        (6, "too-large"),
        (8, "nul-character"),
        (9, "too-large"),
    ]
    excerpts = [item.excerpt for item in items if getattr(item, "reason", "") == "too-large"]  # type: ignore[union-attr]
    assert excerpts == ["ư" * 30, "x" * 61, "dài" * 40]
    batches = _by_batch(path, options)
    assert [item for batch in batches for item in batch.excluded] == [
        item for item in items if isinstance(item, Excluded)
    ]
    kept = [text for batch in batches for text in batch.texts.to_pylist()]
    assert kept == ["ngắn", "b", "sau", "e"]


@CONTAINERS
def test_messages_over_the_limit_are_rejected_alone(
    tmp_path: Path, ending: str, write: Write
) -> None:
    def chat(content: str | None) -> list[dict[str, str | None]]:
        return [{"role": "user", "content": content}, {"role": "assistant", "content": "y"}]

    contents = [chat("x"), chat("x" * 87), None, chat(None), [], chat("x" * 86), chat("z")]
    path = tmp_path / f"a{ending}"
    write(pa.table({"messages": contents}), path)
    options = ReadOptions("pairs", max_record_bytes=100)  # 14 are those of the roles and "y"
    for items in (
        _read(path, options),
        [item for batch in _by_batch(path, options) for item in batch.excluded],
    ):
        bad = [item for item in items if isinstance(item, Excluded)]
        assert [(item.origin.line, item.reason) for item in bad] == [
            (2, "too-large"),
            (3, "bad-messages"),
            (4, "bad-messages"),
            (5, "bad-messages"),
        ]
        assert "x" * 80 in bad[0].excerpt


@CONTAINERS
@pytest.mark.parametrize("encoded", [True, False])
def test_texts_that_are_stored_once_do_not_fill_the_memory(
    tmp_path: Path, ending: str, write: Write, encoded: bool
) -> None:
    texts = pa.array(["một"] * 3000 + [f"{number % 3} " * 5000 for number in range(3000)])
    path = tmp_path / f"a{ending}"
    table = pa.table({"text": texts.dictionary_encode() if encoded else texts})
    if write is _parquet:
        pq.write_table(table, path)
        assert path.stat().st_size < 100_000
    elif write is _feather:
        feather.write_feather(table, str(path), compression="zstd")
    else:
        start = pa.ipc.new_file if write is _ipc_file else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, start(sink, table.schema) as writer:
            writer.write_table(table)
    batches = _by_batch(path, ReadOptions("text"))
    assert max(batch.nbytes for batch in batches) <= 4 << 20
    assert [text for batch in batches for text in batch.texts.to_pylist()] == texts.to_pylist()
    assert [line for batch in batches for line in batch.line.tolist()] == list(range(1, 6001))
    assert len(batches) < 25


def test_compressed_tables_and_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="a compressed Parquet file") as caught:
        _read(tmp_path / "a.parquet.gz")
    assert "unpack it" in caught.value.remedy
    (tmp_path / "a.arrow").write_bytes(b"")
    with pytest.raises(InputError, match="not a readable Arrow file"):
        _read(tmp_path / "a.arrow")
