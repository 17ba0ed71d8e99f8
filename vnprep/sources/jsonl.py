"""JSON Lines: one object a line.

``read_jsonl`` takes a line at a time and knows every rule; ``vnprep.sources.jsonl_columns`` reads
most lines much faster and asks it for the others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from vnprep.shards.ledger import Excluded
from vnprep.sources.lines import Line
from vnprep.sources.records import AmbiguousObject, TableRow, dropped, rejected


def read_jsonl(
    lines: Iterable[Line | Excluded], wanted: Collection[str]
) -> Iterator[TableRow | Excluded]:
    """Yield the object of every line; a line that is none is rejected, the rest go on.

    Args:
        lines: as they stand.
        wanted: the fields that will be read: one that comes twice is rejected, since nobody can
            know which of its values is meant.
    """
    for line in lines:
        if isinstance(line, Excluded):
            yield line
        elif not line.text.strip():
            yield dropped(line.origin, "blank-line")
        else:
            yield _row(line, wanted)


def _row(line: Line, wanted: Collection[str]) -> TableRow | Excluded:
    try:
        value = decode_json(line.text)
    except RecursionError:
        return rejected(line.origin, "bad-json", "nested too deep", line.text)
    except ValueError as error:
        return rejected(line.origin, "bad-json", str(error), line.text)
    if not isinstance(value, dict):
        detail = f"a {type(value).__name__}, not an object"
        return rejected(line.origin, "bad-json", detail, line.text)
    if isinstance(value, AmbiguousObject) and (twice := sorted(value.twice & set(wanted))):
        return rejected(line.origin, "bad-json", f"{twice[0]!r} is there twice", line.text)
    return TableRow(value, line.origin, text=line.text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    names = [name for name, _ in pairs]
    return AmbiguousObject(fields, {name for name in names if names.count(name) > 1})


class number:
    """A number as it is written; rejects show the name beside those of ``dict`` and ``list``.

    It is never computed with, and Python refuses to convert one of very many digits.
    """

    def __init__(self, written: str) -> None:
        self._written = written

    def __repr__(self) -> str:
        return self._written


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=number, parse_float=number, parse_constant=number
)


def decode_json(text: str) -> object:
    """Return a JSON value in which numbers are not converted.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deep.
    """
    return _DECODER.decode(text)
