"""A file cut anywhere it may be reads as the file uncut: rows, rejects, lines, byte offsets."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.sources import plan as plan_module
from vnprep.sources.inputs import Input
from vnprep.sources.plan import Plan, make_plan
from vnprep.sources.reading import read_records

TEXT, PAIRS = ReadOptions("text"), ReadOptions("pairs")
LIMIT = 40

#: (format, options, bytes that stand first, what the rest is made of)
KINDS = {
    "lines": ("text", ReadOptions("text", text_split="line"), b"", b""),
    "paragraphs": ("text", ReadOptions("text", text_split="paragraph"), b"", b""),
    "jsonl": ("jsonl", TEXT, b"", b'{"text": "x"}'),
    "tsv": ("tsv", PAIRS, b"request\tresponse\n", b"a\tb"),
    "seed": ("tsv", ReadOptions("seed-tsv"), b"input\ttarget\n", b"[BOS] a\ta [EOS]"),
    "csv": ("csv", PAIRS, b"request,response\n", b"a,b"),
    "csv-quoted-header": ("csv", PAIRS, b'"request","response"\r\n', b"a,b"),
    "csv-long-header": ("csv", PAIRS, b'request,"x\ny",response\n', b"a,x,b"),
    "csv-sep": ("csv", PAIRS, b"sep=;\nrequest;response\n", b"a;b"),
    "csv-semicolons": ("csv", PAIRS, b"request;response\n", b"a;b"),
    "quoted-tsv": ("tsv", ReadOptions("pairs", quoted_tsv=True), b"request\tresponse\n", b"a\tb"),
    "blocks": ("text", PAIRS, b"", b"Request: a\nResponse: b"),
}

PARTS = [
    *(b"\n", b"\r\n", b"\r", b" ", b"a", b"\xff", b"\xc3\xaa", b"\xe2\x80\xa8", b"\0", b'"', b'""'),
    *(b"\t", b",", b";", b"\n\n", b"\r\n\r\n", b"Request:", b"Response:", b" Request: b\n"),
    *(b"Request: b\nResponse: c\n", b"Request: \xff\n", b"Request: " + b"x" * LIMIT + b"\n"),
    b"x" * (LIMIT + 5),
]


def _plan(item: Input, options: ReadOptions, unit_bytes: int, block: int) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "_BLOCK", block)
        return make_plan([item], options, unit_bytes)


def _read(plan: Plan, options: ReadOptions) -> list[object]:
    found: list[object] = []
    for unit in plan.units:
        for piece in unit.pieces:
            try:
                found += read_records(piece, options)
            except InputError as error:
                return [error.cause]
    return found


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.sampled_from(PARTS) | st.just(b"ROW\n"), max_size=60),
    unit_bytes=st.integers(1, 60),
    block=st.sampled_from([32, 33, 47, 1 << 20]),
    bom=st.booleans(),
)
@example(parts=[b"ROW\n"] * 20, unit_bytes=10, block=1 << 20, bom=False)
def test_a_cut_file_reads_as_the_uncut_one(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    parts: list[bytes],
    unit_bytes: int,
    block: int,
    bom: bool,
) -> None:
    format_name, options, head, row = KINDS[kind]
    options = ReadOptions(
        options.layout,
        text_split=options.text_split,
        quoted_tsv=options.quoted_tsv,
        max_record_bytes=LIMIT,
    )
    body = b"".join(parts).replace(b"ROW", row or b"a b")
    path = tmp_path_factory.getbasetemp() / f"cut-{kind}"
    path.write_bytes(b"\xef\xbb\xbf" * bom + head + body)
    item = Input(str(path), format_name, compressed=False)
    whole = _plan(item, options, 1 << 30, 1 << 20)
    cut = _plan(item, options, unit_bytes, block)
    assert len(whole.units) == 1
    assert [unit.number for unit in cut.units] == list(range(len(cut.units)))
    assert sum(unit.bytes for unit in cut.units) == path.stat().st_size
    assert all(unit.bytes >= unit_bytes for unit in cut.units[:-1])
    assert _read(cut, options) == _read(whole, options)


@pytest.mark.parametrize("kind", KINDS)
def test_large_files_are_cut_and_where_does_not_depend_on_the_blocks(
    tmp_path: Path, kind: str
) -> None:
    format_name, options, head, row = KINDS[kind]
    end = b"\n\n" if kind == "paragraphs" else b"\n"
    path = tmp_path / "a"
    path.write_bytes(head + (row + end if row else b"a b" + end) * 400)
    item = Input(str(path), format_name, compressed=False)
    plans = [_plan(item, options, 100, block) for block in (64, 71, 1000, 1 << 20)]
    assert len(plans[0].units) > 10
    assert plans[0] == plans[1] == plans[2] == plans[3]
    records = _read(plans[0], options)
    assert len(records) == 400
    assert not [record for record in records if isinstance(record, Excluded)]


def test_a_quote_ends_the_cutting_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    row = b"a,b\n"
    path.write_bytes(b'"request",response\n' + row * 50 + b'"c\nd",e\n' + row * 50)
    item = Input(str(path), "csv", compressed=False)
    cut = make_plan([item], PAIRS, 40)
    assert len(cut.units) > 3
    quote = path.read_bytes().index(b'"c')
    starts = [unit.pieces[0].start for unit in cut.units]
    assert max(starts) <= quote
    assert cut.units[-1].bytes > 200


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.none() | st.text(max_size=5), min_size=1, max_size=40),
    rows=st.integers(1, 10),
    unit_bytes=st.integers(1, 400),
)
def test_tables_are_cut_between_their_groups(
    tmp_path_factory: pytest.TempPathFactory,
    ending: str,
    texts: list[str | None],
    rows: int,
    unit_bytes: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"cut.{ending}"
    table = pa.table({"text": pa.array(texts, pa.string()), "n": list(range(len(texts)))})
    if ending == "parquet":
        pq.write_table(table, path, row_group_size=rows)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    item = Input(str(path), ending, compressed=False)
    whole, cut = make_plan([item], TEXT, 1 << 30), make_plan([item], TEXT, unit_bytes)
    assert sum(unit.bytes for unit in cut.units) == path.stat().st_size
    assert _read(cut, TEXT) == _read(whole, TEXT)
    assert len(_read(whole, TEXT)) == len(texts)
    if unit_bytes == 1:
        assert len(cut.units) == -(-len(texts) // rows)
