"""The record of a finished unit, in the work folder: what a resumed run trusts."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from pathlib import Path

from vnprep.durable import canonical_json, readable_json, sha256_text, write_text
from vnprep.pipeline import ENGINE_VERSION
from vnprep.shards.manifest import ShardRecord
from vnprep.shards.read import file_problem
from vnprep.sources.plan import Unit


def record_path(work: Path, unit: Unit) -> Path:
    """Return where the record of a unit stands."""
    return work / f"{unit.number:05d}.json"


def write_record(work: Path, unit: Unit, record: ShardRecord) -> None:
    """Write the record of a unit whose files are whole."""
    body = {"made_from": _made_from(unit), "record": record.to_json()}
    write_text(record_path(work, unit), readable_json(body))


def read_record(work: Path, unit: Unit) -> ShardRecord | None:
    """Return the record of a unit that was finished earlier.

    None if there is none, if the unit was cut elsewhere or made by another version, which may
    have written other bytes, or if its files are not whole.
    """
    try:
        body = json.loads(record_path(work, unit).read_text(encoding="utf-8"))
        if body["made_from"] != _made_from(unit):
            return None
        record = ShardRecord.from_json(body["record"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    files = [record.file, *([record.rejects] if record.rejects else [])]
    return None if any(file_problem(work, file, "full") for file in files) else record


def forget_records(work: Path, units: Iterable[Unit], names: Container[str]) -> None:
    """Remove the records of all units that read an input of one of these names."""
    for unit in units:
        if any(piece.input.name in names for piece in unit.pieces):
            record_path(work, unit).unlink(missing_ok=True)


def _made_from(unit: Unit) -> str:
    """Return a hash over what decides a unit's bytes, beside the identity of its run."""
    pieces = [[piece.input.name, piece.start, piece.end, piece.first_line] for piece in unit.pieces]
    return sha256_text(canonical_json([ENGINE_VERSION, pieces]))
