"""Inputs → work units.

A unit is fixed by the inputs and the configuration, never by the workers: a part of a large
file, cut where a record begins, or a run of small whole files. One unit makes one shard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.manifest import FileRecord
from vnprep.sources.cutting import Cutter, rule_for
from vnprep.sources.digest import Digest
from vnprep.sources.formats import TABLES
from vnprep.sources.inputs import Input, find_inputs
from vnprep.sources.tables import Group, table_groups
from vnprep.sources.unpacking import NOWHERE, is_worth_unpacking, unpack

__all__ = ["Input", "Piece", "Plan", "Unit", "find_inputs", "make_plan"]

_BLOCK = 4 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """The records of one input that begin in ``start:end`` (all of it when ``end`` is None).

    Attributes:
        input: the file.
        start, end: byte offsets; of a table (Parquet, Arrow) numbers of groups of rows.
        first_line: the number of the line, or row, at ``start``.
        header: the header line of a text table, for a piece that begins below it.
    """

    input: Input
    start: int
    end: int | None
    first_line: int
    header: bytes = b""


@dataclass(frozen=True, slots=True)
class Unit:
    """What one worker turns into one shard."""

    number: int
    pieces: tuple[Piece, ...]
    bytes: int

    @property
    def compressed(self) -> bool:
        """Whether some of its bytes are of compressed files, and stand for more text."""
        return any(piece.input.compressed for piece in self.pieces)


class Stamp(NamedTuple):
    """What tells that a file was written to: its size, time of change and place on disk."""

    size: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Stamp:
        """Take it from what the system says of a file."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


@dataclass(frozen=True)
class Plan:
    """All work, and the identity of every input (name, size, SHA-256).

    Attributes:
        inputs: the identities.
        units: the work.
        sources: the inputs themselves, in the order of ``inputs``.
        stamps: of the inputs when they were hashed, likewise.
    """

    inputs: tuple[FileRecord, ...]
    units: tuple[Unit, ...]
    sources: tuple[Input, ...]
    stamps: tuple[Stamp, ...]


Progress = Callable[[int], None]


def make_plan(
    inputs: Sequence[Input],
    options: ReadOptions,
    unit_bytes: int,
    progress: Progress | None = None,
    unpacked: Path | None = None,
) -> Plan:
    """Hash every input once and cut the work into units.

    Args:
        inputs: from ``find_inputs``.
        options: decide which formats may be cut inside a file.
        unit_bytes: a unit takes this many bytes, and the rest of the last record.
        progress: called now and then with the bytes read since the last call.
        unpacked: a folder into which large compressed files are unpacked, to be cut like others;
            or ``NOWHERE``, of which plan nothing can be read; or None: they are left whole.

    Raises:
        InputError: an input cannot be read.
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

    scan = _Scan(options, unit_bytes, progress, unpacked)
    for item in inputs:
        record, pieces = scan.file(item)
        identities.append(record)
        if len(pieces) > 1:
            close()
            for piece, size in pieces:
                units.append(Unit(len(units), (piece,), size))
            continue
        if gathered_bytes + record.bytes > unit_bytes:
            close()
        gathered.append(pieces[0][0])
        gathered_bytes += record.bytes
    close()
    scan.tell(0)
    return Plan(tuple(identities), tuple(units), tuple(inputs), tuple(scan.stamps))


class _Sized(NamedTuple):
    piece: Piece
    bytes: int


class _Scan:
    """Reads files once: for their hash, and for where they can be cut."""

    def __init__(
        self,
        options: ReadOptions,
        unit_bytes: int,
        progress: Progress | None,
        unpacked: Path | None,
    ) -> None:
        self._options, self._unit_bytes = options, unit_bytes
        self._unpacked, self._unpacked_files = unpacked, 0
        self._progress = progress
        self._untold = 0
        #: Of every file that was read, in order.
        self.stamps: list[Stamp] = []

    def file(self, item: Input) -> tuple[FileRecord, list[_Sized]]:
        """Return a file's identity and its pieces; one that is not cut is one piece."""
        digest = Digest()
        rule = rule_for(item, self._options)
        try:
            with open(item.where, "rb", buffering=0) as file:  # noqa: PTH123 - a million inputs
                stamp = Stamp.of(os.fstat(file.fileno()))
                size = stamp.size
                cutter = None
                if rule is not None and size > self._unit_bytes:
                    cutter = Cutter(rule, self._options, self._unit_bytes, size)
                total = 0
                # One byte more than there is: a small file takes one small buffer and one read.
                wanted = min(_BLOCK, size + 1)
                while block := file.read(wanted):
                    total += len(block)
                    digest.feed(block)
                    if cutter is not None:
                        cutter.feed(block)
                    self.tell(len(block))
                    if len(block) < wanted:
                        break
            sha256 = digest.hexdigest()
        except OSError as error:
            raise InputError(
                f"cannot be read ({error.strerror})",
                place=item.name,
                remedy="check that it is there and that you may read it",
            ) from None
        if total != size:
            raise InputError(
                "changed while it was being read",
                place=item.name,
                remedy="run again once nothing writes to it",
            )
        self.stamps.append(stamp)
        record = FileRecord(item.name, total, sha256)
        if is_worth_unpacking(item, total, self._unit_bytes):
            return record, self._unpack(item, total)
        if item.format in TABLES and total > self._unit_bytes:
            return record, list(_of_groups(item, table_groups(item), total, self._unit_bytes))
        return record, list(_of_bytes(item, cutter, total))

    def _unpack(self, item: Input, size: int) -> list[_Sized]:
        """Cut a large compressed file; if it makes one unit alone, it is left as it is."""
        rule = rule_for(replace(item, compressed=False), self._options)
        if rule is None or self._unpacked is None:
            return [_Sized(Piece(item, 0, None, 1), size)]
        cutter = Cutter(rule, self._options, self._unit_bytes)
        to = self._unpacked
        if to != NOWHERE:
            to.mkdir(exist_ok=True)
            to /= f"{self._unpacked_files:05d}"
        plain, total = unpack(item, to, cutter.feed)
        if cutter.cuts[-1][0] == total:
            cutter.cuts.pop()
        if len(cutter.cuts) == 1:
            return [_Sized(Piece(item, 0, None, 1), size)]
        self._unpacked_files += 1  # the next one takes another name
        return list(_of_bytes(plain, cutter, total))

    def tell(self, count: int) -> None:
        """Pass progress on, not for every tiny file."""
        self._untold += count
        if self._progress is not None and (self._untold >= _BLOCK or (self._untold and not count)):
            self._progress(self._untold)
            self._untold = 0


def _of_bytes(item: Input, cutter: Cutter | None, size: int) -> Iterator[_Sized]:
    if cutter is None or len(cutter.cuts) == 1:
        yield _Sized(Piece(item, 0, None, 1), size)
        return
    ends = [start for start, _ in cutter.cuts[1:]] + [size]
    for (start, first_line), end in zip(cutter.cuts, ends, strict=True):
        header = cutter.header if start else b""
        yield _Sized(Piece(item, start, end, first_line, header), end - start)


def _of_groups(
    item: Input, groups: Sequence[Group], size: int, unit_bytes: int
) -> Iterator[_Sized]:
    """Gather groups to pieces of ``unit_bytes`` in memory; the file's bytes are shared out."""
    total = sum(group.bytes for group in groups) or 1
    start, first_row, row, gathered, before, told = 0, 1, 1, 0, 0, 0
    for number, group in enumerate(groups, start=1):
        row += group.rows
        gathered += group.bytes
        before += group.bytes
        if gathered >= unit_bytes and number < len(groups):
            share = size * before // total
            yield _Sized(Piece(item, start, number, first_row), share - told)
            start, first_row, gathered, told = number, row, 0, share
    end = len(groups) if start else None
    yield _Sized(Piece(item, start, end, first_row), size - told)
