"""Streams, which can be read once → files, which can be hashed, cut and read again.

A stream is copied whole to a temporary file (in ``TMPDIR``), which goes when the process ends.
The same command with the same stream gives the same bytes again, so a rerun can go on.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from vnprep.errors import InputError
from vnprep.interrupts import at_end

#: The argument that means standard input.
STDIN = "-"
_LABEL = "<stdin>"
_BLOCK = 1 << 20

# The names of what a process has open: another process, a worker, finds other files there.
_DESCRIPTOR = re.compile(r"/dev/(stdin|fd/\d+)|/proc/self/fd/\d+")

# How compressed streams begin; the temporary file gets the ending that says so.
_MAGIC = {
    b"\x1f\x8b\x08": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\xfd7zXZ\x00": ".xz",
    b"BZh91AY&SY": ".bz2",
}

_copies: dict[str, str] = {}


def is_stream(argument: str) -> bool:
    """Tell whether a path is a pipe or a device, as ``<(…)`` makes them."""
    if _DESCRIPTOR.fullmatch(argument):
        return True
    try:
        mode = os.stat(argument).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def spool(argument: str) -> tuple[str, str]:
    """Copy a stream to a temporary file, once in a process.

    Args:
        argument: ``-`` or the path of a stream.

    Returns:
        The file's path, and what to call it in messages and rejects.

    Raises:
        InputError: it cannot be read or copied, or standard input is a terminal.
    """
    is_stdin = argument in (STDIN, "/dev/stdin", "/dev/fd/0")
    label = _LABEL if is_stdin else argument
    if label not in _copies:
        _copies[label] = _copy(argument, label, is_stdin)
    return _copies[label], label


def _copy(argument: str, label: str, is_stdin: bool) -> str:
    if is_stdin and sys.stdin.isatty():
        raise InputError(
            "nothing comes in on standard input",
            place=label,
            remedy="pipe text into the command: COMMAND | vnprep … -",
        )
    try:
        folder = Path(tempfile.mkdtemp(prefix="vnprep-"))
        at_end(lambda: shutil.rmtree(folder, ignore_errors=True))
        if is_stdin:
            return str(_write(sys.stdin.buffer, folder))
        with open(argument, "rb") as stream:  # noqa: PTH123
            return str(_write(stream, folder))
    except OSError as error:
        raise InputError(
            f"cannot be copied to a temporary file ({error.strerror})",
            place=label,
            remedy="set TMPDIR to a folder with room, or save the text to a file first",
        ) from None


def _write(stream: BinaryIO, folder: Path) -> Path:
    head = stream.read(_BLOCK)
    ending = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
    path = folder / f"stream{ending}"
    with path.open("wb") as file:
        file.write(head)
        shutil.copyfileobj(stream, file, _BLOCK)
    return path
