"""JSON arrays and values over many lines: each value found with its place, or rejected alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.sources import json_values
from vnprep.sources.inputs import find_inputs
from vnprep.sources.json_values import read_values

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


def _read(raw: bytes, block: int = 1 << 20, limit: int = 1 << 20) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "_BLOCK", block)
        return list(read_values(io.BytesIO(raw), "a.json", limit))


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(JSON, max_size=6),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    block=st.integers(1, 40),
    bom=st.booleans(),
)
def test_an_array_is_cut_into_its_elements_whatever_the_blocks(
    values: list[Any], indent: int | None, ascii_only: bool, block: int, bom: bool
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    raw = b"\xef\xbb\xbf" * bom + text.encode("utf-8")
    lines = _read(raw, max(block, 3))
    assert [json.loads(line.text) for line in lines] == values
    for line in lines:
        assert raw[line.origin.byte_offset :].startswith(line.text.encode())
        assert raw.count(b"\n", 0, line.origin.byte_offset) == line.origin.line - 1


@settings(max_examples=100, deadline=None)
@given(objects=st.lists(st.dictionaries(st.text(max_size=4), JSON), max_size=5))
def test_objects_that_follow_each_other_are_cut_apart(objects: list[Any]) -> None:
    for joint in ("", "\n", "\n\n"):
        raw = joint.join(json.dumps(value, indent=2) for value in objects).encode()
        assert [json.loads(line.text) for line in _read(raw, 7)] == objects


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=60) | st.text('[]{}",:\\ \n1a', max_size=60).map(str.encode))
def test_any_bytes_are_cut_the_same_way_by_any_blocks(raw: bytes) -> None:
    assert _read(raw, 3) == _read(raw, 5) == _read(raw)


def test_a_broken_value_costs_itself_alone() -> None:
    raw = b"""[
      {"a": 1},
      {"a": "\xff"},
      {"a": "no end},
      {"a": 2}, 5, {"b": "longer than the limit"},
      {"a": 3}
    ]
    {"after": 1}"""
    items = _read(raw, limit=20)
    shown = [
        (item.origin.line, item.reason if isinstance(item, Excluded) else item.text)
        for item in items
    ]
    assert shown == [
        (2, '{"a": 1}'),
        (3, "invalid-utf8"),
        (4, '{"a": "no end}'),
        (5, '{"a": 2}'),
        (5, "5"),
        (5, "too-large"),
        (6, '{"a": 3}'),
        (8, '{"after": 1}'),
    ]


def test_an_element_over_many_blocks_that_is_too_large_is_not_held() -> None:
    raw = b'[{"a": "' + b"x" * 5000 + b'"}, {"a": 1}]'
    cutter = json_values._Cutter("a.json", 100)
    for place in range(0, len(raw), 50):
        found = list(cutter.feed(raw[place : place + 50]))
        assert len(cutter._text) <= 200
        if found:
            assert isinstance(found[0], Excluded)
            assert found[0].origin.byte_offset == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"a": 1}\n{"a": 2}\n', "jsonl"),
        ('\ufeff\n{"a": 1}', "jsonl"),
        ('{"a": broken\n{"a": 2}\n', "jsonl"),
        ('{"a": "' + "x" * 100_000 + '"}\n', "jsonl"),
        ("", "jsonl"),
        ('[{"a": 1}]', "json"),
        ('[\n  {"a": 1}\n]', "json"),
        ('{\n  "a": 1\n}', "json"),
    ],
)
def test_a_json_file_shows_whether_it_has_an_object_a_line(
    tmp_path: Path, text: str, kind: str
) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    (item,) = find_inputs([str(tmp_path / "a.json")], None)
    assert item.format == kind
    (item,) = find_inputs([str(tmp_path)], "jsonl")
    assert item.format == "jsonl", "a format that is given wins"


def test_a_damaged_compressed_json_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(InputError, match="cannot be read"):
        find_inputs([str(tmp_path / "a.json.gz")], None)
