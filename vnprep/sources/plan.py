"""INPUT arguments → inputs → work units.

A unit is fixed by the inputs and the configuration, never by the workers: a byte range of a
large file, cut where a record begins, or a run of small whole files. One unit makes one shard.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.manifest import FileRecord
from vnprep.sources.formats import COMPRESSIONS, FORMAT_NAMES, FORMATS

_BLOCK = 4 << 20


@dataclass(frozen=True)
class Input:
    """One input file.

    Attributes:
        path: where it is.
        format: one of the values of ``FORMATS``.
        compressed: whether its name ends in ``.gz``, ``.bz2``, ``.xz`` or ``.zst``.
    """

    path: Path
    format: str
    compressed: bool

    @property
    def name(self) -> str:
        """The name reported everywhere: the path as the user gave it."""
        return self.path.as_posix()


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
    """All work, and the identity of every input (name, size, SHA-256)."""

    inputs: tuple[FileRecord, ...]
    units: tuple[Unit, ...]


def find_inputs(arguments: Sequence[str], format_name: str | None) -> list[Input]:
    """Expand files, folders and globs; folders and globs in sorted order.

    Raises:
        InputError: nothing there, or a file whose format its name does not tell.
    """
    found: list[Input] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if _visible_file(file, path))
            inputs = [_input(file, format_name) for file in files if format_name or _known(file)]
            if not inputs:
                raise InputError(
                    "no file here has a known ending",
                    place=path,
                    remedy=f"known: {', '.join(FORMATS)}, each also with {', '.join(COMPRESSIONS)}",
                )
            found += inputs
        elif path.exists():
            found.append(_input(path, format_name))
        else:
            matches = sorted(map(Path, glob.glob(argument, recursive=True)))  # noqa: PTH207
            if not matches:
                raise InputError("no such file or folder", place=argument)
            found += [_input(match, format_name) for match in matches if match.is_file()]
    names = [item.name for item in found]
    for name in names:
        if not name.isprintable():
            raise InputError(
                "the file's name is not valid UTF-8 or holds control characters",
                place=name.encode("utf-8", "backslashreplace").decode("utf-8"),
                remedy="rename the file",
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError("given twice", place=twice[0], remedy="name every input once")
    return found


def _visible_file(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.is_file()


def _known(path: Path) -> bool:
    return _ending(path)[0] in FORMATS


def _ending(path: Path) -> tuple[str, bool]:
    compressed = path.suffix.lower() in COMPRESSIONS
    ending = (path.with_suffix("") if compressed else path).suffix.lower()
    return ending, compressed


def _input(path: Path, format_name: str | None) -> Input:
    ending, compressed = _ending(path)
    name = format_name or FORMATS.get(ending)
    if name is None:
        raise InputError(
            f"the ending {ending or '(none)'} does not tell the format",
            place=path,
            remedy=f"pass --format, one of: {', '.join(FORMAT_NAMES)}",
        )
    return Input(path, name, compressed)


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
    return Plan(tuple(identities), tuple(units))


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
