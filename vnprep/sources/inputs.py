"""INPUT arguments → inputs: files, folders, globs and streams, each file once."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category

from vnprep.errors import InputError
from vnprep.sources.folders import Folder
from vnprep.sources.formats import COMPRESSIONS, FORMAT_NAMES, FORMATS, ending_of
from vnprep.sources.json_values import json_kind
from vnprep.sources.spool import STDIN, is_stream, spool

# Control characters; and surrogates, which stand for bytes that are not UTF-8.
_REFUSED = frozenset({"Cc", "Cs"})

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Input:
    """One input file. A run may have millions: paths are made when they are asked for.

    Attributes:
        where: its path.
        format: one of the values of ``FORMATS``.
        compressed: whether its name ends in ``.gz``, ``.bz2``, ``.xz`` or ``.zst``.
        label: what it is called where its path would tell nobody anything, as that of a stream's
            copy: ``<stdin>``.
    """

    where: str
    format: str
    compressed: bool
    label: str = ""

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.where)

    @property
    def name(self) -> str:
        """The name reported everywhere: the path as the user gave it."""
        return self.label or self.where


def find_inputs(
    arguments: Sequence[str],
    format_name: str | None,
    *,
    out: Path | None = None,
    tell: Tell | None = None,
) -> list[Input]:
    """Expand files, folders, globs and streams; folders and globs in sorted order.

    Args:
        arguments: as the user gave them; ``-`` is standard input.
        format_name: the format of all, or None: by the names.
        out: a folder that is never read as input.
        tell: called with a line on every folder of which something was passed over.

    Raises:
        InputError: nothing there, a file whose format its name does not tell, or a file twice.
    """
    found: list[Input] = []
    for argument in arguments:
        found += _expand(argument, format_name, out, tell)
    for item in found:
        # What is printable need not be looked at closer, and nearly every name is.
        if not item.name.isprintable() and _REFUSED.intersection(map(category, item.name)):
            raise InputError(
                "the file's name is not valid UTF-8 or holds control characters",
                place=item.name.encode("utf-8", "backslashreplace").decode("utf-8"),
                remedy="rename the file",
            )
    _refuse_twice(found)
    return found


def _expand(
    argument: str, format_name: str | None, out: Path | None, tell: Tell | None
) -> Iterator[Input]:
    if argument == STDIN or is_stream(argument):
        if format_name is None:
            raise _no_format("its format cannot be told", argument)
        path, label = spool(argument)
        yield Input(path, format_name, ending_of(path)[1], label)
        return
    place = str(Path(argument))
    if Path(place).is_dir():
        yield from _of_folder(place, format_name, out, tell)
    elif os.path.lexists(place):
        yield _input(place, format_name)
    else:
        # A shell expands a glob to files and folders alike; so does this.
        matches = sorted(map(Path, glob.glob(argument, recursive=True)))  # noqa: PTH207
        if not matches:
            raise InputError(
                "no such file or folder", place=argument, remedy="check the path's spelling"
            )
        folders = "**" not in argument
        for match in matches:
            if not match.is_dir():
                yield _input(str(match), format_name)
            elif folders:
                yield from _of_folder(str(match), format_name, out, tell)


def _of_folder(
    place: str, format_name: str | None, out: Path | None, tell: Tell | None
) -> Iterator[Input]:
    folder = Folder(place, out, None if format_name else frozenset(FORMATS))
    empty = True
    for file in folder:
        empty = False
        yield _input(file, format_name)
    if tell is not None:
        for line in folder.passed_over():
            tell(line)
    if empty:
        raise InputError(
            "no file here has a known ending",
            place=place,
            remedy=f"known: {', '.join(FORMATS)}, each also with {', '.join(COMPRESSIONS)}",
        )


_OFFICE = {".xlsx", ".xls", ".ods", ".docx", ".doc", ".odt", ".pdf"}


def _input(place: str, format_name: str | None) -> Input:
    ending, compressed = ending_of(place)
    name = format_name or FORMATS.get(ending)
    if name is None:
        raise _no_format(f"the ending {ending or '(none)'} does not tell the format", place)
    if name == "json" and format_name is None:
        name = json_kind(Path(place))
    return Input(place, name, compressed)


def _no_format(cause: str, place: str) -> InputError:
    remedy = f"pass --format, one of: {', '.join(FORMAT_NAMES)}"
    if Path(place).suffix.lower() in _OFFICE:
        remedy = "save it as CSV UTF-8 (a table), or as plain text"
    return InputError(cause, place=place, remedy=remedy)


def _refuse_twice(found: Sequence[Input]) -> None:
    """Refuse a file that is there twice, under whatever spelling."""
    by_inode = Counter(map(_inode, found))
    if len(by_inode) == len(found):
        return
    # Hard links are files of their own; two names of one path are not.
    seen: dict[str, Input] = {}
    for item in found:
        if by_inode[_inode(item)] == 1:
            continue
        first = seen.setdefault(os.path.realpath(item.where), item)
        if first is not item:
            also = "" if first.name == item.name else f", also as {first.name}"
            raise InputError(f"given twice{also}", place=item.name, remedy="name every input once")


def _inode(item: Input) -> tuple[int, int]:
    try:
        about = os.stat(item.where)  # noqa: PTH116 - a million inputs
    except OSError as error:
        raise _unreadable(item, error) from None
    if not stat.S_ISREG(about.st_mode):
        raise InputError("not a file", place=item.name, remedy="give files, folders or -")
    return about.st_dev, about.st_ino


def _unreadable(item: Input, error: OSError) -> InputError:
    if os.path.islink(item.where):  # noqa: PTH114
        target = os.readlink(item.where)  # noqa: PTH115
        return InputError(
            f"a link that leads nowhere (to {target})",
            place=item.name,
            remedy="bring the file that it names, or remove the link",
        )
    return InputError(
        f"cannot be read ({error.strerror})", place=item.name, remedy="check its permissions"
    )
