"""Inputs → work units.

A unit is fixed by the inputs and the configuration, never by the workers: a byte range of a
large file, cut where a record begins, or a run of small whole files. One unit makes one shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.manifest import FileRecord
from vnprep.sources.inputs import Input, find_inputs

__all__ = ["Input", "Piece", "Plan", "Unit", "find_inputs", "make_plan"]

_BLOCK = 4 << 20


@dataclass(frozen=True)
class Piece:
    """The records of one input that begin in ``start:end`` (all of it when ``end`` is None)."""

    input: Input
    start: int
    end: int | None
    first_line: int


@dataclass(frozen=True)
class Unit:
    """What one worker turns into one shard."""

    number: int
    pieces: tuple[Piece, ...]
    bytes: int


@dataclass(frozen=True)
class Plan:
    """All work, and the identity of every input (name, size, SHA-256).

    Attributes:
        inputs: the identities.
        units: the work.
        sources: the inputs themselves, in the order of ``inputs``.
    """

    inputs: tuple[FileRecord, ...]
    units: tuple[Unit, ...]
    sources: tuple[Input, ...]


def make_plan(
    inputs: Sequence[Input],
    options: ReadOptions,
    unit_bytes: int,
    progress: Callable[[int], None] | None = None,
) -> Plan:
    """Hash every input once and cut the work into units.

    Args:
        inputs: from ``find_inputs``.
        options: decide which formats may be cut inside a file.
        unit_bytes: a unit takes this many bytes, and the rest of the last record.
        progress: called with the bytes read since the last call.
    """
    identities: list[FileRecord] = []
    units: list[Unit] = []
    gathered: list[Piece] = []
    gathered_bytes = 0

    def close() -> None:
        nonlocal gathered, gathered_bytes
        if gathered:
            units.append(Unit(len(units), tuple(gathered), gathered_bytes))
        gathered, gathered_bytes = [], 0

    for item in inputs:
        cut = _can_be_cut(item, options)
        scan = _scan(item, unit_bytes if cut else None, progress)
        identities.append(FileRecord(item.name, scan.bytes, scan.sha256))
        if len(scan.cuts) > 1:
            close()
            for piece, size in _pieces(item, scan):
                units.append(Unit(len(units), (piece,), size))
            continue
        if gathered_bytes + scan.bytes > unit_bytes:
            close()
        gathered.append(Piece(item, 0, None, 1))
        gathered_bytes += scan.bytes
    close()
    return Plan(tuple(identities), tuple(units), tuple(inputs))


@dataclass(frozen=True)
class _Scan:
    bytes: int
    sha256: str
    cuts: tuple[tuple[int, int], ...]  # (byte offset, line number) where each piece begins


def _can_be_cut(item: Input, options: ReadOptions) -> bool:
    """Tell whether a record of this input is exactly one line."""
    if item.compressed:
        return False
    if item.format == "text":
        return options.text_split == "line"
    return item.format == "jsonl"


def _scan(item: Input, unit_bytes: int | None, progress: Callable[[int], None] | None) -> _Scan:
    digest = hashlib.sha256()
    offset, line = 0, 1
    cuts = [(0, 1)]
    try:
        with item.path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                if unit_bytes is not None:
                    cuts += _cuts(block, offset, line, cuts[-1][0], unit_bytes)
                    line += block.count(b"\n")
                offset += len(block)
                if progress is not None:
                    progress(len(block))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", place=item.path) from None
    if len(cuts) > 1 and cuts[-1][0] == offset:
        cuts.pop()
    return _Scan(offset, digest.hexdigest(), tuple(cuts))


def _cuts(
    block: bytes, offset: int, line: int, last: int, unit_bytes: int
) -> Iterator[tuple[int, int]]:
    """Yield where new pieces begin in a block: after the first line end past each full unit."""
    while True:
        position = block.find(b"\n", max(last + unit_bytes - offset - 1, 0))
        if position < 0:
            return
        last = offset + position + 1
        yield last, line + block.count(b"\n", 0, position + 1)


def _pieces(item: Input, scan: _Scan) -> Iterator[tuple[Piece, int]]:
    ends = [start for start, _ in scan.cuts[1:]] + [scan.bytes]
    for (start, first_line), end in zip(scan.cuts, ends, strict=True):
        yield Piece(item, start, end, first_line), end - start
