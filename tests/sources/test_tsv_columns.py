"""The fast reader of plain TSV says what the careful one says, whatever the bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.sources import chunks as chunks_module
from vnprep.sources.batch import TextBatch, gather
from vnprep.sources.batches import read_batches
from vnprep.sources.inputs import Input
from vnprep.sources.plan import make_plan
from vnprep.sources.reading import read_records

LIMIT = 60
PARTS = [
    *(b"a", "Đã bật".encode(), b"e\xcc\x81", b" ", b"\xc2\xa0", b"\xe2\x80\xa8", b"\r", b"\0"),
    *(b"\xff", b'"', b'"a"', b"", b"x" * (LIMIT + 3)),
]
CELLS = st.lists(st.sampled_from(PARTS), max_size=3).map(b"".join)
LINES = st.one_of(
    st.tuples(CELLS, CELLS, CELLS).map(b"\t".join),
    st.lists(CELLS, max_size=5).map(b"\t".join),
    st.just(b"a\tb\t"),
)
HEADERS = st.sampled_from(
    [b"request\tresponse\tn", b"response\t\trequest", b"request\tresponse", b"text\trequest", b""]
)


def _seen(batches: list[TextBatch]) -> tuple[list[object], list[object], object, int]:
    kept: list[object] = []
    excluded: list[object] = []
    noted: dict[str, int] = {}
    blank = 0
    for batch in batches:
        for row in range(len(batch)):
            segments = batch.texts[batch.record_offsets[row] : batch.record_offsets[row + 1]]
            kept.append((batch.origin(row, ["f"]), segments.to_pylist()))
        listed = [item for item in batch.excluded if item.reason != "blank-line"]
        excluded += listed
        blank += batch.blank_lines + len(batch.excluded) - len(listed)
        for name, count in batch.noted.items():
            noted[name] = noted.get(name, 0) + count
    return kept, excluded, noted, blank


@settings(max_examples=400, deadline=None)
@given(
    header=HEADERS,
    lines=st.lists(LINES, max_size=8),
    end=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
    bom=st.booleans(),
    unit_bytes=st.integers(1, 80),
    layout=st.sampled_from(["pairs", "pairs", "text"]),
    chunk=st.sampled_from([7, 40, 1 << 20]),
)
@example(b"request\tresponse", [b'"a"\tb', b'a\t""', b'"\tb'], b"\n", True, False, 1, "pairs", 40)
@example(b"request\tresponse", [b"a\tb", b" \t", b"\t"], b"\n", True, True, 1, "pairs", 7)
def test_batches_are_those_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory,
    header: bytes,
    lines: list[bytes],
    end: bytes,
    last: bool,
    bom: bool,
    unit_bytes: int,
    layout: str,
    chunk: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "columns.tsv"
    path.write_bytes(b"\xef\xbb\xbf" * bom + end.join([header, *lines]) + end * last)
    options = ReadOptions("pairs" if layout == "pairs" else "text", max_record_bytes=LIMIT)
    item = Input(str(path), "tsv", compressed=False)
    for unit in make_plan([item], options, unit_bytes).units:
        (piece,) = unit.pieces
        try:
            by_row = _seen(list(gather(read_records(piece, options), 0)))
        except InputError as error:
            with pytest.raises(InputError) as caught:
                list(read_batches(piece, 0, options))
            assert str(caught.value) == str(error)
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chunks_module, "_CHUNK", chunk)
            by_block = _seen(list(read_batches(piece, 0, options)))
        assert by_block == by_row


def test_plain_rows_need_no_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vnprep.sources import tsv_columns

    path = tmp_path / "a.tsv"
    path.write_text("n\trequest\tresponse\n" + "1\tBật đèn\tĐã bật đèn\n" * 5000, encoding="utf-8")
    monkeypatch.setattr(tsv_columns, "_with_care", None)
    options = ReadOptions("pairs")
    (unit,) = make_plan([Input(str(path), "tsv", compressed=False)], options, 1 << 30).units
    assert sum(map(len, read_batches(unit.pieces[0], 0, options))) == 5000
