"""Files that are either whole or not there: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from vnprep.errors import OutputError

_BLOCK = 1 << 20
TEMPORARY_SUFFIX = ".tmp"
#: The file inside a folder that its holder has locked.
LOCK_NAME = "lock"


def canonical_json(value: Any) -> str:
    """Give the one JSON text of a value: sorted keys, no white space, UTF-8 letters as they are."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def readable_json(value: Any) -> str:
    """Give an indented JSON text with sorted keys and a final newline, for files people open."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def sha256_text(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: Path, start: int = 0, end: int | None = None) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes ``start`` to ``end`` (default: all)."""
    digest = hashlib.sha256()
    left = (path.stat().st_size if end is None else end) - start
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return the system call of this name, where there is one: on Linux."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


_SYNC = _sync_file_range()
_SYNC_FILE_RANGE_WRITE = 2


def start_writing_out(file: BinaryIO) -> None:
    """Let the system begin to bring to disk what was written, without waiting for it.

    The fsync at the end then has little left to wait for. It is a hint: errors are left to fsync.
    """
    if _SYNC is not None:
        file.flush()
        _SYNC(file.fileno(), 0, 0, _SYNC_FILE_RANGE_WRITE)


@contextlib.contextmanager
def replacing(path: Path, *, name_durable: bool = True) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when it is whole and on disk.

    If the body raises, nothing appears and the temporary file is removed. Its name is that of
    this process alone: a process that outlives the run it belonged to disturbs no other.

    Args:
        path: the file.
        name_durable: whether its name, too, must be on disk at the end. A file that counts only
            once another in the same folder stands may leave that to the other.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        if name_durable:
            fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what matters
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file that is either whole or not there."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; a second one is told who has it.

    The folder is made if it is not there. The holder may remove it: who waits at the door of a
    folder that is gone does not get in, but begins again with a new one.

    Raises:
        OutputError: another live process holds the folder. A dead holder's lock falls by itself.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / LOCK_NAME).open("a+", encoding="utf-8")
        except FileNotFoundError:  # its holder has just removed the folder
            continue
        with file:
            _flock(file, folder)
            if not _stands(file, folder / LOCK_NAME):
                continue
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
            return


def _flock(file: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        raise OutputError(
            f"another vnprep run is writing here{holder and f' (process {holder})'}",
            place=folder.parent,
            remedy="wait for it to end, or choose another --out",
        ) from None


def _stands(file: TextIO, path: Path) -> bool:
    """Tell whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
