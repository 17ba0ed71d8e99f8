"""Units: fixed by the inputs, cut where a record begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.sources.plan import find_inputs, make_plan
from vnprep.sources.reading import read_records

LINES = ReadOptions("text", text_split="line")


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.text(alphabet="ab ế\r\u2028", max_size=12), max_size=30),
    unit_bytes=st.integers(1, 60),
    newline_at_end=st.booleans(),
)
def test_cut_pieces_hold_every_line_once_with_its_number_and_offset(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[str],
    unit_bytes: int,
    newline_at_end: bool,
) -> None:
    path = tmp_path_factory.mktemp("plan") / "a.txt"
    path.write_bytes(("\n".join(lines) + "\n" * newline_at_end).encode("utf-8"))
    inputs = find_inputs([str(path)], None)
    whole = make_plan(inputs, LINES, 1 << 30)
    cut = make_plan(inputs, LINES, unit_bytes)
    assert [unit.number for unit in cut.units] == list(range(len(cut.units)))
    assert sum(unit.bytes for unit in cut.units) == path.stat().st_size

    def read(plan: object) -> list[object]:
        found: list[object] = []
        for unit in plan.units:  # type: ignore[attr-defined]
            for piece in unit.pieces:
                try:
                    for item in read_records(piece, LINES):
                        what = item.reason if isinstance(item, Excluded) else item.segments
                        found.append((item.origin.line, item.origin.byte_offset, what))
                except InputError as error:
                    return [error.cause]
        return found

    assert read(cut) == read(whole)
    for unit in cut.units[:-1]:
        assert unit.bytes >= unit_bytes


def test_a_large_file_is_cut_and_small_files_share_a_unit(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text("dòng\n" * 100, encoding="utf-8")
    for number in range(5):
        (tmp_path / f"small{number}.txt").write_text("x\n")
    plan = make_plan(find_inputs([str(tmp_path)], None), LINES, 100)
    names = [sorted({piece.input.path.name for piece in unit.pieces}) for unit in plan.units]
    assert names[-1] == [f"small{number}.txt" for number in range(5)]
    assert names[0] == names[1] == ["large.txt"]


def test_inputs_are_found_in_one_order_whatever_the_file_system_says(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl.gz", ".hidden.txt", "c.unknown", "sub/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [(item.path.name, item.format) for item in find_inputs([str(tmp_path)], None)]
    assert found == [("a.jsonl.gz", "jsonl"), ("b.txt", "text"), ("d.csv", "csv")]
    globbed = find_inputs([str(tmp_path / "*.txt")], None)
    assert [item.path.name for item in globbed] == ["b.txt"]


def test_inputs_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        find_inputs([str(tmp_path / "nothing.txt")], None)
    (tmp_path / "a.bin").write_text("x")
    with pytest.raises(InputError, match=r"\.bin does not tell the format"):
        find_inputs([str(tmp_path / "a.bin")], None)
    assert find_inputs([str(tmp_path / "a.bin")], "text")[0].format == "text"
    with pytest.raises(InputError, match="no file here has a known ending"):
        find_inputs([str(tmp_path)], None)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="given twice"):
        find_inputs([str(tmp_path / "a.txt"), str(tmp_path / "*.txt")], None)
