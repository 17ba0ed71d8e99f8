"""Check a data folder against its manifest: every file, every byte."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from vnprep.audit.contents import Problem, contents
from vnprep.errors import ShardError
from vnprep.packing.file import is_pack_file
from vnprep.shards.folder import IDENTITY_NAME, WORK_FOLDER
from vnprep.shards.manifest import MANIFEST_NAME, FileRecord, Manifest
from vnprep.shards.read import file_problem


def verify(folder: Path, progress: Callable[[FileRecord], None] | None = None) -> list[Problem]:
    """Return all that is wrong with a data folder; nothing if it is as it was written.

    A run into the folder that is not finished (see ``unfinished``) is not damage.

    Args:
        folder: what a vnprep command wrote.
        progress: called with each file that was checked.

    Raises:
        ShardError: there is no manifest to check against.
    """
    manifest = Manifest.read(folder)
    problems: list[Problem] = []
    for record in manifest.files:
        if what := file_problem(folder, record, "full"):
            problems.append(Problem(record.name, what))
        if progress is not None:
            progress(record)
    problems += _unknown_files(folder, manifest)
    if not problems:
        problems += contents(folder, manifest)
    return problems


def unfinished(folder: Path) -> bool:
    """Tell whether a run into the folder was begun and is not finished."""
    return (folder / WORK_FOLDER / IDENTITY_NAME).exists()


def _unknown_files(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    known = {record.name for record in manifest.files} | {MANIFEST_NAME, WORK_FOLDER}
    with contextlib.suppress(ShardError):  # of a commit that was decided and not carried through
        known |= {record.name for record in Manifest.read(folder / WORK_FOLDER).files}
    for path in sorted(folder.iterdir()):
        if path.name not in known and not is_pack_file(path.name):
            yield Problem(path.name, "not in the manifest")
