"""How a data set comes to stand in its folder: made aside, then put in place in one go.

All work is done in ``DIR/.work``; what stands in ``DIR`` meanwhile, be it nothing or an older
data set, stays whole for its readers. The commit is decided when ``.work/manifest.json`` is there.
From then on any run into the folder, whatever it was started for, carries the commit through.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from vnprep.durable import LOCK_NAME, folder_lock, fsync_folder, write_text
from vnprep.errors import OutputError, ShardError
from vnprep.shards.folder import IDENTITY_NAME, WORK_FOLDER, is_own
from vnprep.shards.manifest import FORMAT, MANIFEST_NAME, Manifest

_COPY = "manifest.copy.json"


@contextlib.contextmanager
def hold(out: Path, overwrite: bool) -> Iterator[Path]:
    """Hold an output folder for one run; give its work folder.

    At the end, folders in which nothing is left are removed.

    Args:
        out: made if it is not there.
        overwrite: whether what stands there is to be replaced.

    Raises:
        OutputError: another run holds it, or it holds files that are not vnprep's.
    """
    refuse_foreign(out, overwrite)
    work = out / WORK_FOLDER
    with folder_lock(work):
        try:
            yield work
        except BaseException:
            with contextlib.suppress(OSError):  # what went wrong first is what matters
                _leave(out)
            raise
        _leave(out)


def _leave(out: Path) -> None:
    work = out / WORK_FOLDER
    if {path.name for path in work.iterdir()} <= {LOCK_NAME}:
        (work / LOCK_NAME).unlink()
        with contextlib.suppress(OSError):  # the next run is in there already
            work.rmdir()
            out.rmdir()


def refuse_foreign(out: Path, overwrite: bool) -> None:
    """Refuse a folder that is somebody else's."""
    names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    started = MANIFEST_NAME in names or WORK_FOLDER in names
    foreign = [name for name in names if not (started and is_own(name))]
    path = out / MANIFEST_NAME
    if path.exists() and f'"{FORMAT}"' not in path.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(
            "its manifest.json is not vnprep's", place=out, remedy="choose another --out"
        )
    if not foreign or (started and not overwrite):
        return
    listed = f"({', '.join(foreign[:3])}{', …' * (len(foreign) > 3)})"
    if started:
        raise OutputError(
            f"--overwrite would leave other files behind {listed}",
            place=out,
            remedy="move them away, or choose another --out",
        )
    raise OutputError(
        f"the folder holds other files {listed}",
        place=out,
        remedy="choose an empty or new folder with --out",
    )


def commit(out: Path, manifest: Manifest) -> None:
    """Put the data set that was made in the work folder in its place."""
    manifest.write(out / WORK_FOLDER)
    carry_through(out)


def carry_through(out: Path) -> bool:
    """Finish a commit that was decided, if there is one; return whether there was.

    A data set that is only added to stays valid throughout, for the manifest is replaced in one
    step. Another one ceases to exist first; by then its successor is whole and on disk.
    """
    work = out / WORK_FOLDER
    try:
        new = Manifest.read(work)
    except ShardError:  # there is none, or it was damaged and what it vouched for is made again
        return False
    old = _standing(out)
    if old is None or not set(old.files) <= set(new.files):
        (out / MANIFEST_NAME).unlink(missing_ok=True)
        fsync_folder(out)
    kept = {MANIFEST_NAME, WORK_FOLDER} | {record.name for record in new.files}
    for path in list(out.iterdir()):
        if is_own(path.name) and path.name not in kept:
            path.unlink()  # of the older data set, or an index over it
    for record in new.files:
        if (work / record.name).exists():
            (work / record.name).replace(out / record.name)
    fsync_folder(out)
    # A copy, since the original tells that the commit was decided until all is tidied up.
    write_text(work / _COPY, (work / MANIFEST_NAME).read_text(encoding="utf-8"))
    (work / _COPY).replace(out / MANIFEST_NAME)
    fsync_folder(out)
    clear(work)
    return True


def _standing(out: Path) -> Manifest | None:
    try:
        return Manifest.read(out)
    except ShardError:
        return None


def clear(work: Path, keep: str = "") -> None:
    """Empty a work folder, but for its lock; last of all what tells that a commit was decided.

    Args:
        work: the folder.
        keep: the name of something in it that stays.
    """
    last = [work / IDENTITY_NAME, work / MANIFEST_NAME]
    for path in sorted(work.iterdir()):
        if path.name == keep:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in last and path.name != LOCK_NAME:
            path.unlink()
    for path in last:
        path.unlink(missing_ok=True)
