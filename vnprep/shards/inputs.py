"""``inputs-*.jsonl``: what a data set was made from, one line a file, so that a million fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from vnprep.durable import canonical_json, replacing
from vnprep.errors import ShardError
from vnprep.shards.manifest import FileRecord, Inputs


def inputs_name(part: int) -> str:
    """Return the name of a list of inputs: 0 for a first run, and one more for each append."""
    return f"inputs-{part:05d}.jsonl"


def _lines(inputs: Iterable[FileRecord]) -> Iterator[bytes]:
    return (canonical_json(asdict(record)).encode() + b"\n" for record in inputs)


def inputs_sha256(inputs: Iterable[FileRecord]) -> str:
    """Return the SHA-256 that the list of these inputs has, without writing it."""
    digest = hashlib.sha256()
    for line in _lines(inputs):
        digest.update(line)
    return digest.hexdigest()


def write_inputs(path: Path, inputs: Iterable[FileRecord]) -> Inputs:
    """Write a list of inputs, whole or not at all."""
    digest, count, total, size = hashlib.sha256(), 0, 0, 0
    with replacing(path) as file:
        for record in inputs:
            (line,) = _lines([record])
            file.write(line)
            digest.update(line)
            count, total, size = count + 1, total + record.bytes, size + len(line)
    return Inputs(FileRecord(path.name, size, digest.hexdigest()), count, total)


def read_inputs(folder: Path, inputs: Iterable[Inputs]) -> Iterator[FileRecord]:
    """Yield every input of a data set, in the order they were read.

    Raises:
        ShardError: a list is missing or damaged.
    """
    for part in inputs:
        path = folder / part.file.name
        try:
            with path.open("rb") as lines:
                for line in lines:
                    yield FileRecord(**json.loads(line))
        except (OSError, ValueError, TypeError) as error:
            raise ShardError(
                f"the list of inputs cannot be read ({type(error).__name__}: {error})",
                place=path,
                remedy="vnprep verify lists all damage; prepare the data again",
            ) from None
