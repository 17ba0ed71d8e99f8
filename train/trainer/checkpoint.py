"""Checkpoints that are whole or do not exist.

Each rank writes its file (see ``statefiles``) into ``step-00000300.tmp``; when all are done,
``commit.json``, with the hash of every file, is written last, and the folder gets its name. A
folder without a commit record that matches every byte is no checkpoint, and no file is parsed
before its hash has been checked. Nothing in the files depends on the number of ranks or the ZeRO
stage: any others can continue.

The folder of checkpoints must be one that all ranks see (a shared file system, on several nodes).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from trainer.distributed import EveryRankError, World
from trainer.runfolder import differences
from trainer.statefiles import StateReader, read_state, write_state
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

T = TypeVar("T")

FORMAT = "vnprep-checkpoint"
FORMAT_VERSION = 2
COMMIT_NAME = "commit.json"
#: The ranks' files, below the checkpoint's folder.
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
        precision: that of the pass, ``bf16`` or ``fp32``; the weights here are fp32.
        files: every file of the folder but this record.
        trainer_state: of the loop's guard (see ``guard``), as plain JSON.
    """

    step: int
    settings: dict[str, Any]
    world_size: int
    zero_stage: int
    precision: str
    files: tuple[FileRecord, ...] = ()
    trainer_state: dict[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> str:
        """Who trains, in words; none of it binds those who continue."""
        ranks = "1 rank" if self.world_size == 1 else f"{self.world_size} ranks"
        return f"{ranks} under ZeRO stage {self.zero_stage} in {self.precision}"

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
    """See that a checkpoint belongs to this run; ranks, stage and precision may be others.

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
        try:
            if not path.is_file():
                problems.append(f"{record.name} is missing")
            elif (size := path.stat().st_size) != record.bytes:
                problems.append(f"{record.name} has {size:,} of {record.bytes:,} bytes")
            elif sha256_file(path) != record.sha256:
                problems.append(f"{record.name} is damaged (its sha256 differs)")
        except OSError as error:
            problems.append(f"{record.name} cannot be read ({error.strerror})")
    return problems


def verify(folder: Path, world: World) -> Commit:
    """Check every file of a checkpoint, the work shared among the ranks.

    Raises:
        TrainingError: on every rank alike, if the checkpoint is not whole.
    """
    commit = None
    try:
        commit = Commit.read(folder)
        mine = file_problems(folder, commit.files[world.rank :: world.size])
    except TrainingError as error:
        mine = [error.cause]
    problems = {problem for each in world.gather(mine) for problem in each}
    if problems or commit is None:
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


def save(
    engine: Any, folder: Path, commit: Commit, world: World, keep_last: int, keep_every: int = 0
) -> Path:
    """Save the engine's state as the checkpoint of ``commit.step``; all ranks call this.

    Args:
        engine: DeepSpeed's engine.
        folder: the folder of checkpoints.
        commit: what to record; ``files`` is filled in here.
        world: the ranks.
        keep_last: how many checkpoints to keep, this one included; the oldest go first.
        keep_every: keep those of steps that are a multiple of this, too; 0 is none.

    Raises:
        EveryRankError: a file could not be written, on whatever rank. The checkpoints before this
            one stand.
    """
    final = folder / folder_name(commit.step)
    temporary = final.with_name(final.name + TEMPORARY_SUFFIX)

    def begin() -> None:
        if world.is_main:
            _remove(temporary)
            (temporary / _STATE).mkdir(parents=True)

    def write() -> FileRecord:
        record = write_state(engine, temporary / _STATE, world.rank)
        return replace(record, name=f"{_STATE}/{record.name}")

    def finish() -> None:
        if world.is_main:
            _commit(temporary, final, replace(commit, files=files))
            prune(folder, commit.step, keep_last, keep_every)

    try:
        world.agree(lambda: _readable(begin, folder))
        files = tuple(world.gather(world.agree(lambda: _readable(write, folder))))
        world.agree(lambda: _readable(finish, folder))
    except EveryRankError:
        if world.is_main:
            with contextlib.suppress(OSError):  # the next save removes what is left
                _remove(temporary)
        raise
    return final


def _readable(action: Callable[[], T], folder: Path) -> T:
    try:
        return action()
    except OSError as error:
        raise OutputError(
            f"the checkpoint cannot be written ({error})",
            place=folder,
            remedy="make room or mend the permissions, then run the same command again: "
            "it continues from the newest checkpoint",
        ) from None


def _commit(temporary: Path, final: Path, commit: Commit) -> None:
    fsync_folder(temporary / _STATE)
    commit.write(temporary)
    fsync_folder(temporary)
    # A damaged checkpoint of this step may be in the way: it was passed over on resuming.
    _remove(final)
    temporary.rename(final)
    fsync_folder(final.parent)


def prune(folder: Path, step: int, keep_last: int, keep_every: int = 0) -> None:
    """Remove old checkpoints.

    Args:
        folder: the folder of checkpoints.
        step: of the one that was just written. Those of later steps are left alone: they were
            passed over as damaged, or this run was told to continue from before them. They must
            not push a whole one out.
        keep_last: how many to keep, up to ``step``.
        keep_every: keep those of steps that are a multiple of this, too; 0 is none.
    """
    past = [path for path in checkpoints_in(folder) if _step_of(path) <= step]
    for path in past[keep_last:]:
        if keep_every == 0 or _step_of(path) % keep_every:
            _remove(path)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Remove what an interrupted run left half-written or half-removed."""
    for path in folder.glob("step-*" + TEMPORARY_SUFFIX):
        _remove(path)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove(path: Path) -> None:
    """Remove a folder; cut short, it leaves nothing that carries a checkpoint's name."""
    if not path.name.endswith(TEMPORARY_SUFFIX) and path.exists():
        doomed = path.with_name(path.name + ".old" + TEMPORARY_SUFFIX)
        _remove(doomed)
        path.rename(doomed)
        path = doomed
    if path.exists():
        shutil.rmtree(path)


def open_state(path: Path, commit: Commit) -> StateReader:
    """Open the files of a checkpoint that ``verify`` found whole; other files are not looked at.

    Raises:
        TrainingError: a file is none of a checkpoint's.
    """
    return StateReader(path / record.name for record in commit.files)


def load(engine: Any, path: Path, commit: Commit) -> None:
    """Load a checkpoint that ``verify`` found whole; then all ranks call ``refresh_weights``.

    Raises:
        TrainingError: it holds another model.
    """
    try:
        read_state(engine, open_state(path, commit))
    except TrainingError as error:
        if error.place is not None:
            raise
        raise TrainingError(error.cause, place=path, remedy=error.remedy) from None
    # DeepSpeed counts, too; its micro-batches tell it where a step ends.
    engine.global_steps = commit.step
    engine.micro_steps = commit.step * engine.gradient_accumulation_steps()
    engine.global_samples = commit.step * engine.train_batch_size()
