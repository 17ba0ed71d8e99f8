"""Checkpoints that are whole or do not exist.

DeepSpeed writes its files into ``step-00000300.tmp``; when all ranks are done, every file is
hashed, ``commit.json`` is written last, and the folder gets its name. A folder without a commit
record that matches every byte is no checkpoint. DeepSpeed's files are pickles, so nothing is
unpickled before its hash has been checked.

The folder of checkpoints must be one that all ranks see (a shared file system, on several nodes).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.distributed import World
from trainer.runfolder import differences
from vnprep.durable import (
    canonical_json,
    fsync_folder,
    readable_json,
    sha256_file,
    sha256_text,
    write_text,
)
from vnprep.errors import OutputError, TrainingError
from vnprep.shards.manifest import FileRecord

FORMAT = "vnprep-checkpoint"
FORMAT_VERSION = 1
COMMIT_NAME = "commit.json"
#: DeepSpeed's own files, below the checkpoint's folder; beside it stands its recovery script.
_STATE = "state"
TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True)
class Commit:
    """What vouches for a checkpoint.

    Attributes:
        step: optimizer steps done.
        settings: what decides the run's curve (see ``runfolder``).
        world_size: ranks that wrote it.
        zero_stage: ZeRO stage it was written under.
        files: every file of the folder but this record.
        trainer_state: of the loop's guard (see ``guard``), as plain JSON.
    """

    step: int
    settings: dict[str, Any]
    world_size: int
    zero_stage: int
    files: tuple[FileRecord, ...] = ()
    trainer_state: dict[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> str:
        """How the training state is spread; it can be loaded into the same layout only."""
        ranks = "1 rank" if self.world_size == 1 else f"{self.world_size} ranks"
        return f"{ranks} under ZeRO stage {self.zero_stage}"

    def write(self, folder: Path) -> None:
        """Write ``commit.json`` durably, with a hash over its own content."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        body["commit_sha256"] = sha256_text(canonical_json(body))
        write_text(folder / COMMIT_NAME, readable_json(body))

    @classmethod
    def read(cls, folder: Path) -> Commit:
        """Read a checkpoint's record; the files it names are not looked at.

        Raises:
            TrainingError: the record is missing, altered or of another format.
        """
        try:
            body = json.loads((folder / COMMIT_NAME).read_bytes())
            stated = body.pop("commit_sha256")
            if stated != sha256_text(canonical_json(body)):
                raise ValueError("its own hash does not match")
            if (body.pop("format"), body.pop("format_version")) != (FORMAT, FORMAT_VERSION):
                raise ValueError("it is of another format version")
            files = tuple(FileRecord(**record) for record in body.pop("files"))
            return cls(**body, files=files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            missing = isinstance(error, FileNotFoundError)
            cause = f"{COMMIT_NAME} is missing" if missing else f"{COMMIT_NAME}: {error}"
            raise TrainingError(cause, place=folder, remedy="take another checkpoint") from None


def check_continues(commit: Commit, ours: Commit, place: Path) -> None:
    """See that a checkpoint belongs to this run and can be loaded by this set of ranks.

    Args:
        commit: the checkpoint's.
        ours: what this run would record.
        place: the checkpoint's folder.

    Raises:
        TrainingError: it does not, with what differs.
    """
    if changed := differences(commit.settings, ours.settings):
        raise TrainingError(
            f"comes from a run with other settings: {'; '.join(changed)}",
            place=place,
            remedy="repeat the settings of that run, or start anew in another --out",
        )
    if commit.layout != ours.layout:
        raise TrainingError(
            f"was written by {commit.layout}, this is {ours.layout}",
            place=place,
            remedy="continue with the ranks and the ZeRO stage that it was written with",
        )


def folder_name(step: int) -> str:
    """Return the folder name of a step's checkpoint; names sort by step."""
    return f"step-{step:08d}"


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the folders that carry a checkpoint's name, newest first, whole or not."""
    names = folder.glob("step-*")
    return sorted(
        (path for path in names if path.name.removeprefix("step-").isdigit()), reverse=True
    )


def file_problems(folder: Path, files: Iterable[FileRecord]) -> list[str]:
    """Say what is wrong with the files that a commit record names, one text for each."""
    problems = []
    for record in files:
        path = folder / record.name
        if not path.is_file():
            problems.append(f"{record.name} is missing")
        elif path.stat().st_size != record.bytes:
            problems.append(f"{record.name} has {path.stat().st_size:,} of {record.bytes:,} bytes")
        elif sha256_file(path) != record.sha256:
            problems.append(f"{record.name} is damaged (its sha256 differs)")
    return problems


def verify(folder: Path, world: World) -> Commit:
    """Check every file of a checkpoint, the work shared among the ranks.

    Raises:
        TrainingError: on every rank alike, if the checkpoint is not whole.
    """
    commit = Commit.read(folder)
    mine = file_problems(folder, commit.files[world.rank :: world.size])
    problems = [problem for each in world.gather(mine) for problem in each]
    if problems:
        raise TrainingError(
            "; ".join(sorted(problems)), place=folder, remedy="take another checkpoint"
        )
    return commit


def newest_whole(folder: Path, world: World) -> tuple[Path | None, list[TrainingError]]:
    """Find the newest checkpoint that is whole.

    Returns:
        Its folder, and why each newer one was passed over. None if there is no checkpoint at all.

    Raises:
        TrainingError: there are checkpoints, but none is whole.
    """
    damaged: list[TrainingError] = []
    for path in checkpoints_in(folder):
        try:
            verify(path, world)
        except TrainingError as error:
            damaged.append(error)
            continue
        return path, damaged
    if damaged:
        raise TrainingError(
            f"no checkpoint is whole: {'; '.join(f'{e.place}: {e.cause}' for e in damaged)}",
            place=folder,
            remedy="restore one, or start anew in another --out",
        )
    return None, []


def save(engine: Any, folder: Path, commit: Commit, world: World, keep: int) -> Path:
    """Save the engine's state as the checkpoint of ``commit.step``; all ranks call this.

    Args:
        engine: DeepSpeed's engine.
        folder: the folder of checkpoints.
        commit: what to record; ``files`` is filled in here.
        world: the ranks.
        keep: how many checkpoints to keep, this one included; the oldest go first.

    Raises:
        OutputError: a file could not be written. The checkpoints before this one stand.
    """
    final = folder / folder_name(commit.step)
    temporary = final.with_name(final.name + TEMPORARY_SUFFIX)
    if world.is_main:
        with _readable_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _remove(temporary)
    world.barrier()
    with _readable_errors(folder):
        engine.save_checkpoint(str(temporary), tag=_STATE, save_latest=False)
    files = world.agree(lambda: _record_files(temporary, world))

    def finish() -> None:
        if world.is_main:
            with _readable_errors(folder):
                _commit(temporary, final, replace(commit, files=files))
                prune(folder, keep)

    world.agree(finish)
    return final


@contextlib.contextmanager
def _readable_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the checkpoint cannot be written ({error})",
            place=folder,
            remedy="make room or mend the permissions, then run the same command again: "
            "it continues from the newest checkpoint",
        ) from None


def _record_files(folder: Path, world: World) -> tuple[FileRecord, ...]:
    """Make every file durable and hash it, the work shared among the ranks."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    mine = []
    for name in names[world.rank :: world.size]:
        path = folder / name
        with path.open("rb") as file:
            os.fsync(file.fileno())
        mine.append(FileRecord(name, path.stat().st_size, sha256_file(path)))
    return tuple(sorted((r for each in world.gather(mine) for r in each), key=lambda r: r.name))


def _commit(temporary: Path, final: Path, commit: Commit) -> None:
    fsync_folder(temporary / _STATE)
    commit.write(temporary)
    fsync_folder(temporary)
    # A damaged checkpoint of this step may be in the way: it was passed over on resuming.
    _remove(final)
    temporary.rename(final)
    fsync_folder(final.parent)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest checkpoints, and whatever an interrupted run left half-written."""
    for path in [*checkpoints_in(folder)[keep:], *folder.glob("step-*" + TEMPORARY_SUFFIX)]:
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder; cut short, it leaves nothing that carries a checkpoint's name."""
    if not path.name.endswith(TEMPORARY_SUFFIX) and path.exists():
        doomed = path.with_name(path.name + ".old" + TEMPORARY_SUFFIX)
        _remove(doomed)
        path.rename(doomed)
        path = doomed
    if path.exists():
        shutil.rmtree(path)


def load(engine: Any, path: Path, commit: Commit) -> None:
    """Load a checkpoint that ``verify`` found whole; all ranks call this.

    Raises:
        TrainingError: DeepSpeed loaded nothing, or another step than the record says.
    """
    loaded, _ = engine.load_checkpoint(str(path), tag=_STATE)
    if loaded is None or engine.global_steps != commit.step:
        raise TrainingError(
            f"DeepSpeed loaded {'nothing' if loaded is None else f'step {engine.global_steps}'}, "
            f"the commit record says step {commit.step}",
            place=path,
            remedy="take another checkpoint",
        )
