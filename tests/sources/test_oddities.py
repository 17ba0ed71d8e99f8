"""Every format with every oddity: right, or one reject with its place; the rows after survive."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnprep.config import PrepareConfig, ReadOptions
from vnprep.errors import InputError, NoRowsError
from vnprep.pipeline import make_shard
from vnprep.run.prepare import prepare
from vnprep.shards.ledger import Excluded
from vnprep.sources.batches import read_batches
from vnprep.sources.inputs import find_inputs
from vnprep.sources.plan import Piece, make_plan
from vnprep.sources.reading import read_records
from vnprep.sources.records import Record
from vnprep.tokenizer.fast import FastEncoder
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer

LIMIT = 5_000_000
LONG = b"x" * (LIMIT + 1)
TEXT, PAIRS = ReadOptions("text"), ReadOptions("pairs")
FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}".encode()


@dataclass(frozen=True)
class Form:
    """How a format writes rows: ``row`` holds ``%b`` where the text of a row stands."""

    ending: str
    options: ReadOptions
    row: bytes
    head: bytes = b""
    tail: bytes = b""


FORMS = {
    "lines": Form("txt", replace(TEXT, text_split="line"), b"%b\n"),
    "paragraphs": Form("txt", replace(TEXT, text_split="paragraph"), b"%b\n\n"),
    "jsonl": Form("jsonl", TEXT, b'{"text": "%b"}\n'),
    "json": Form("json", TEXT, b'  {"text": "%b"},\n', b"[\n", b'  {"text": "z"}\n]\n'),
    "tsv": Form("tsv", PAIRS, b"%b\tB\n", b"request\tresponse\n"),
    "quoted-tsv": Form("tsv", replace(PAIRS, quoted_tsv=True), b"%b\tB\n", b"request\tresponse\n"),
    "csv": Form("csv", PAIRS, b"B,%b\n", b"response,request\n"),
    "seed": Form("tsv", ReadOptions("seed-tsv"), b"[BOS] %b\t%b [EOS]\n", b"input\ttarget\n"),
    "blocks": Form("txt", PAIRS, b"Request: %b\nResponse: B\n"),
}
KEPT = ""

#: What stands in a row's text → what becomes of the row; by format where they differ.
TEXTS: dict[str, tuple[bytes, dict[str, str]]] = {
    "letters": ("Đã bật".encode(), {"": KEPT}),
    "line separators": ("a\u2028b\x85c\u2029d".encode(), {"": KEPT}),
    "no-break space": ("a\u00a0b".encode(), {"": KEPT}),
    "joined emoji": (FAMILY, {"": KEPT}),
    "carriage return at the end": (
        b"a\r",
        {"": KEPT, "jsonl": "bad-json", "json": "bad-json", "quoted-tsv": "bad-quoting"},
    ),
    "markers": (b"[EOS] a [SEP]", {"": KEPT}),
    "bad UTF-8": (b"a\xff\xfeb", {"": "invalid-utf8"}),
    "half a letter": ("ế".encode()[:2], {"": "invalid-utf8"}),
    "surrogate in UTF-8": (b"a\xed\xa0\xbd", {"": "invalid-utf8"}),
    "NUL": (b"a\0b", {"": "nul-character", "jsonl": "bad-json", "json": "bad-json"}),
    "empty": (
        b"",
        {
            "": "empty-request",
            "lines": "blank-line",
            "paragraphs": "nothing",
            "jsonl": "empty",
            "json": "empty",
            "seed": "empty",
        },
    ),
    "too large": (LONG, {"": "too-large"}),
}

#: Whole rows that only one format can have.
ROWS: dict[str, list[tuple[bytes, str]]] = {
    "jsonl": [
        (b'{"text": "\\ud83d"}\n', "lone-surrogate"),
        (b'{"text": "\\ud83d\\ude00"}\n', KEPT),
        (b'{"text": "\\u0000"}\n', "nul-character"),
        (b'{"text": "a", "text": "b"}\n', "bad-json"),
        (b'{"text": NaN}\n', "not-text"),
        (b'{"text": "a", "n": NaN}\n', KEPT),
        (b'{"text": "a", "n": 1, "n": 2}\n', KEPT),
        (b'{"text": "a", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", KEPT),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "bad-json"),
        (b'{"text": "a"\n', "bad-json"),
        (b'{"text": "a"} {"text": "b"}\n', "bad-json"),
        (b'["a"]\n', "bad-json"),
        (b'{"txt": "a"}\n', "missing-field"),
        (b'{"text": null}\n', "missing-field"),
        (b'{"text": ["a"]}\n', "not-text"),
        (b"\t \n", "blank-line"),
    ],
    "json": [
        (b'  {"text": "\\ud83d"},\n', "lone-surrogate"),
        (b'  {"text": "a", "text": "b"},\n', "bad-json"),
        (b'  {"text": NaN},\n', "not-text"),
        (b'  {"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"},\n", "bad-json"),
        (b'  {"text": "a},\n', "bad-json"),
        (b'  {\n"text":\n"a"\n},\n', KEPT),
        (b'  {"text": "]},[{\\"\\\\"},\n', KEPT),
        (b'  "a",\n', "bad-json"),
    ],
    "csv": [
        (b'"B, C","a ""b"""\n', KEPT),
        (b'B,"a\nb\r\nc"\n', KEPT),
        (b'B,"a" b\n', "bad-quoting"),
        (b'B,"a\n', "bad-quoting"),
        (b'B,a "b" c\n', KEPT),
        (b"B\n", "ragged-row"),
        (b"B,a,c\n", "ragged-row"),
        (b"B,a,,\n", KEPT),
        (b",a\n", "empty-response"),
        (b"\xc2\xa0,\n", "blank-line"),
        (b"B,a\rb\n", "bad-quoting"),
    ],
    "tsv": [
        (b'"a"\t"b\n', KEPT),
        (b"a\tB\tc\n", "ragged-row"),
        (b"a\t\n", "empty-response"),
        (b"a\tB\t\t\n", KEPT),
        (b"\t\n", "blank-line"),
    ],
    "quoted-tsv": [(b'"a\n\tb"\tB\n', KEPT), (b'"a\tB\n', "bad-quoting")],
    "seed": [
        (b"[BOS] a\t\t\ta [EOS]\n", KEPT),
        (b"[BOS] a\ta\n", "missing-marker"),
        (b"[BOS] a\tb [EOS]\n", "not-shifted"),
        (b"[BOS] a\n", "ragged-row"),
    ],
    "blocks": [
        (b"Request: a\n\n", "incomplete-block"),
        (b"Request: a\nResponse: b\nResponse: c\n", "two-responses"),
        (b"Request: a\nResponse:\nb\nc\n\n", KEPT),
        (b"Request: a\nResponse: \n", "empty-response"),
    ],
}

CASES = [
    (form, name, FORMS[form].row.replace(b"%b", text), by_form.get(form, by_form[""]))
    for form in FORMS
    for name, (text, by_form) in TEXTS.items()
] + [
    (form, f"row {number}", row, reason)
    for form, rows in ROWS.items()
    for number, (row, reason) in enumerate(rows)
]


def _file(form: Form, odd: bytes, bom: bool, crlf: bool, cut_end: bool) -> tuple[bytes, int]:
    """Return a file with an odd row between plain ones, and where that row begins."""
    before = form.head + form.row.replace(b"%b", b"x")
    after = form.row.replace(b"%b", b"y") + form.tail
    if crlf:
        before, after = (part.replace(b"\n", b"\r\n") for part in (before, after))
        odd = odd.removesuffix(b"\n") + b"\r\n" if odd.endswith(b"\n") else odd
    before = b"\xef\xbb\xbf" * bom + before
    raw = before + odd + after
    return (raw.rstrip() if cut_end else raw), len(before)


def _check(items: list[Record | Excluded], raw: bytes, place: int, odd: bytes, reason: str) -> None:
    kept = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Excluded)]
    assert kept[0].segments[0] == "x"
    assert kept[-1].segments[0] in ("y", "z"), "what comes after survives"
    indent = len(odd) - len(odd.lstrip(b" "))
    line, offset = raw.count(b"\n", 0, place) + 1, place + indent
    if reason == KEPT:
        assert not left_out
        (item,) = [one for one in kept if one.segments[0] not in ("x", "y", "z")] or [kept[1]]
        assert (item.origin.line, item.origin.byte_offset) == (line, offset)
    elif reason == "nothing":
        assert not left_out
    else:
        assert left_out[0].reason == reason
        assert left_out[0].origin.line == line
        assert left_out[0].origin.byte_offset in (place, offset)
        if left_out[0].outcome == "rejected" and odd.strip(b"\r\n, \t") and reason != "too-large":
            assert left_out[0].excerpt


@pytest.mark.parametrize(
    ("form", "name", "odd", "reason"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
def test_an_oddity_costs_at_most_its_row_and_is_told_with_its_place(
    tmp_path: Path, form: str, name: str, odd: bytes, reason: str
) -> None:
    options = replace(FORMS[form].options, max_record_bytes=LIMIT)
    path = tmp_path / f"a.{FORMS[form].ending}"
    variants = [(bom, crlf, cut) for bom in (0, 1) for crlf in (0, 1) for cut in (0, 1)]
    for bom, crlf, cut_end in variants if name != "too large" else variants[:1]:
        raw, place = _file(FORMS[form], odd, bool(bom), bool(crlf), bool(cut_end))
        path.write_bytes(raw)
        (item,) = find_inputs([str(path)], None)
        (unit,) = make_plan([item], options, 1 << 30).units
        items = list(read_records(unit.pieces[0], options))
        _check(items, raw, place, odd, reason)
        assert _by_block(unit.pieces[0], options) == _by_row(items)


def _by_row(items: list[Record | Excluded]) -> tuple[list[object], list[object]]:
    kept = [(item.origin.line, item.segments) for item in items if isinstance(item, Record)]
    return kept, [
        (item.origin.line, item.origin.byte_offset, item.reason)
        for item in items
        if isinstance(item, Excluded) and item.reason != "blank-line"
    ]


def _by_block(piece: Piece, options: ReadOptions) -> tuple[list[object], list[object]]:
    """Read as preparing does: by the block, where the format allows."""
    kept: list[object] = []
    excluded: list[Record | Excluded] = []
    for batch in read_batches(piece, 0, options):
        starts = batch.record_offsets.tolist()
        texts = batch.texts.to_pylist()
        kept += [
            (line, tuple(texts[starts[row] : starts[row + 1]]))
            for row, line in enumerate(batch.line.tolist())
        ]
        excluded += batch.excluded
    return kept, _by_row(excluded)[1]


@pytest.fixture(scope="module")
def tokenizer(bpe_path: Path) -> LoadedTokenizer:
    return load_tokenizer(bpe_path)


@pytest.mark.parametrize("form", FORMS)
def test_the_ledger_and_the_list_of_rejects_agree_over_all_oddities(
    tmp_path: Path, tokenizer: LoadedTokenizer, form: str
) -> None:
    """All oddities of a format in one file, the whole way to the shards, in units of any size."""
    kind = FORMS[form]
    options = replace(kind.options, max_record_bytes=LIMIT)
    plain = kind.row.replace(b"%b", b"x")
    odd = [row for name, _, row, _ in CASES if name == form]
    path = tmp_path / f"a.{kind.ending}"
    path.write_bytes(kind.head + plain + b"".join(row + plain for row in odd) + kind.tail)
    stage = "finetune" if options.layout == "pairs" else "pretrain"
    listed = []
    for unit_bytes in (1 << 30, 1000):
        config = PrepareConfig(stage, options, unit_bytes=unit_bytes)
        out = tmp_path / f"out{unit_bytes}"
        ledger = prepare([str(path)], out, config, tokenizer).manifest.ledger
        assert ledger.closes
        assert ledger.kept > len(odd)
        rejects = [
            json.loads(line)
            for file in sorted(out.glob("*.rejects.jsonl"))
            for line in file.read_text(encoding="utf-8").splitlines()
        ]
        blank = ledger.dropped["blank-line"]
        assert len(rejects) == ledger.dropped.total() + ledger.rejected.total() - blank
        for reject in rejects:
            assert path.read_bytes().count(b"\n", 0, reject["byte_offset"]) == reject["line"] - 1
        listed.append((ledger.to_json(), rejects))
    assert listed[0] == listed[1]


WORDS = b"request response text input target Request: Response: [BOS] [EOS] sep=; a".split()
SIGNS = [b'{"text":', b'"a"', b"}", b"[", b"]", b"\n", b"\r\n", b"\r", b"\t", b",", b";", b'"']
BYTES = [b"\\", b" ", b"\xff", b"\0", b"\xef\xbb\xbf"]
ANY_BYTES = st.binary(max_size=80) | st.lists(
    st.sampled_from(WORDS + SIGNS + BYTES), max_size=25
).map(b"".join)


@pytest.mark.parametrize("form", [*FORMS, "parquet", "arrow"])
@settings(max_examples=120, deadline=None)
@given(raw=ANY_BYTES, headed=st.booleans(), unit_bytes=st.integers(1, 50))
def test_any_bytes_are_an_error_or_a_ledger_that_closes(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: LoadedTokenizer,
    form: str,
    raw: bytes,
    headed: bool,
    unit_bytes: int,
) -> None:
    kind = FORMS.get(form) or Form(form, PAIRS, b"")
    path = tmp_path_factory.getbasetemp() / f"any-{form}.{kind.ending}"
    path.write_bytes(kind.head * headed + raw)
    stage = "finetune" if kind.options.layout == "pairs" else "pretrain"
    config = PrepareConfig(stage, kind.options, unit_bytes=unit_bytes)
    encoder = FastEncoder(tokenizer)
    try:
        plan = make_plan(find_inputs([str(path)], None), kind.options, unit_bytes)
        records = [make_shard(unit, config, tokenizer, encoder, path.parent) for unit in plan.units]
    except InputError as error:
        assert error.remedy
        return
    for record in records:
        assert record.ledger.closes
        assert record.rows == record.ledger.kept


MEASURE = (
    "import sys, resource, json\n"
    "from vnprep.config import ReadOptions\n"
    "from vnprep.shards.ledger import Excluded\n"
    "from vnprep.sources.inputs import find_inputs\n"
    "from vnprep.sources.plan import make_plan\n"
    "from vnprep.sources.reading import read_records\n"
    "layout, split, path = sys.argv[1:]\n"
    "options = ReadOptions(layout, text_split=split, max_record_bytes=4 << 20)\n"
    "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    "plan = make_plan(find_inputs([path], None), options, 16 << 20)\n"
    "items = [item for unit in plan.units for piece in unit.pieces\n"
    "         for item in read_records(piece, options)]\n"
    "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
    "print(json.dumps([grown, [getattr(item, 'reason', 'kept') for item in items],\n"
    "                  [item.origin.byte_offset for item in items]]))\n"
)


def _measure(path: Path, options: ReadOptions) -> tuple[float, list[str], list[int]]:
    """Read a file in a process of its own: MiB it grew by, reasons, byte offsets."""
    arguments = [options.layout, options.text_split, str(path)]
    shown = subprocess.check_output([sys.executable, "-c", MEASURE, *arguments])
    grown, reasons, offsets = json.loads(shown)
    return grown / 1024, reasons, offsets


@pytest.mark.parametrize(
    ("form", "mebibytes"),
    [("jsonl", 2048), ("lines", 256), ("csv", 256), ("blocks", 256), ("json", 64)],
)
def test_a_giant_line_is_rejected_and_never_held(tmp_path: Path, form: str, mebibytes: int) -> None:
    kind = FORMS[form]
    head, _, rest = kind.row.partition(b"%b")
    path = tmp_path / f"a.{kind.ending}"
    with path.open("wb") as file:
        file.write(kind.head + kind.row.replace(b"%b", b"a") + head)
        start = file.tell() - len(head)
        file.seek(mebibytes << 20, 1)  # a hole: it takes no room on the disk
        file.write(rest + kind.row.replace(b"%b", b"b") + kind.tail)
    grown, reasons, offsets = _measure(path, kind.options)
    reasons = [reason for reason in reasons if reason != "incomplete-block"]
    assert reasons[:3] == ["kept", "too-large", "kept"]
    assert start <= offsets[1] <= start + 2
    assert grown < 80, f"{grown:.0f} MiB beside what was there"


def test_a_compressed_giant_line_is_rejected_and_never_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in (b'{"text": "a"}\n', *[bytes(1 << 20)] * 128, b'\n{"text": "b"}\n'):
            file.write(part)
    grown, reasons, _ = _measure(path, TEXT)
    assert reasons == ["kept", "too-large", "kept"]
    assert grown < 80


def test_a_quote_that_never_closes_costs_its_line_and_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = 40_000
    path.write_bytes(b'request,response\na,"b\n' + (b"c," + b"d" * 1000 + b"\n") * rows)
    grown, reasons, _ = _measure(path, PAIRS)
    assert reasons == ["bad-quoting"] + ["kept"] * rows
    # The records themselves are 40 MB, the lines that were taken back another 4.
    assert grown < 160


def test_a_text_of_oddities_alone_says_so(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{\xff}\n[1]\n")
    config = PrepareConfig("pretrain", TEXT)
    with pytest.raises(NoRowsError, match="1 invalid-utf8"):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "out", config, tokenizer)
