"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vnprep.shards.ledger import Excluded
from vnprep.sources.lines import Line
from vnprep.sources.records import TableRow, dropped, rejected


class _DuplicateKey(ValueError):
    pass


def read_jsonl(lines: Iterator[Line | Excluded]) -> Iterator[TableRow | Excluded]:
    """Yield the object of every line; a line that is none is rejected, the rest go on."""
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
    for line in lines:
        if isinstance(line, Excluded):
            yield line
        elif not line.text.strip():
            yield dropped(line.origin, "blank-line")
        else:
            yield _row(line, decoder)


def _row(line: Line, decoder: json.JSONDecoder) -> TableRow | Excluded:
    try:
        value = decoder.decode(line.text)
    except RecursionError:
        return rejected(line.origin, "bad-json", "nested too deep", line.text)
    except ValueError as error:
        return rejected(line.origin, "bad-json", str(error), line.text)
    if not isinstance(value, dict):
        detail = f"a {type(value).__name__}, not an object"
        return rejected(line.origin, "bad-json", detail, line.text)
    return TableRow(value, line.origin, text=line.text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        # Which of the two values is meant, nobody can know.
        raise _DuplicateKey("an object has the same key twice")
    return fields


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
