"""A folder that is either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from vnprep.durable import folder_lock, fsync_folder
from vnprep.errors import OutputError

#: Beside the wanted folder while it is being written; what a killed run left is taken over.
PARTIAL_SUFFIX = ".partial"
_DATA, _LOCK = "data", "lock"


@contextlib.contextmanager
def whole_folder(out: Path, needed: int) -> Iterator[Path]:
    """Give an empty folder to write in; when the body ends well it becomes ``out``.

    If the body raises, nothing is left. Files must be fsynced by who writes them.

    Args:
        out: the folder to make; it may stand already if it is empty.
        needed: bytes that will be written.

    Raises:
        OutputError: ``out`` holds something, another run is writing it, or the disk is too full.
    """
    out = out.resolve()
    _refuse_taken(out)
    work = out.with_name(out.name + PARTIAL_SUFFIX)
    (work / _LOCK).mkdir(parents=True, exist_ok=True)
    with folder_lock(work / _LOCK):
        _refuse_foreign(work)
        data = work / _DATA
        try:
            shutil.rmtree(data, ignore_errors=True)
            _refuse_full(work, needed)
            data.mkdir()
            yield data
            fsync_folder(data)
            _publish(data, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _refuse_taken(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(
            "exists already", place=out, remedy="choose another --out, or remove this one"
        )


def _refuse_foreign(work: Path) -> None:
    foreign = sorted({path.name for path in work.iterdir()} - {_DATA, _LOCK})
    if foreign:
        raise OutputError(
            f"needed while the export is written, but holds other files ({foreign[0]})",
            place=work,
            remedy="choose another --out, or move this folder away",
        )


def _refuse_full(work: Path, needed: int) -> None:
    free = shutil.disk_usage(work).free
    if free < needed:
        raise OutputError(
            f"the export needs {needed / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free",
            place=work.parent,
            remedy="make room, or choose an --out on another disk",
        )


def _publish(data: Path, out: Path) -> None:
    try:
        data.rename(out)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            _refuse_taken(out)
        raise
    fsync_folder(out.parent)
