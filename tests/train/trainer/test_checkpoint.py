"""The protocol: whole or not there, damage is found, passed over, and never silently ignored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from trainer import checkpoint
from trainer.checkpoint import COMMIT_NAME, Commit, folder_name
from trainer.distributed import EveryRankError, World
from vnprep.errors import OutputError, TrainingError

SETTINGS = {"lr": 0.001, "seed": 7}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A group of one rank."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        yield World(0, 1, 0, torch.device("cpu"), dist.group.WORLD)
    finally:
        dist.destroy_process_group()


class SmallEngine:
    """Writes and reads files as DeepSpeed does, without a model."""

    def __init__(self, value: float = 0.0, step: int = 0) -> None:
        self.value = value
        self.global_steps = step

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        assert not save_latest
        path = Path(folder) / tag
        path.mkdir(parents=True)
        for name in ("model.pt", "optimizer.pt"):
            torch.save({"value": self.value, "step": self.global_steps}, path / name)

    def load_checkpoint(self, folder: str, tag: str) -> tuple[str | None, dict[str, Any]]:
        state = torch.load(Path(folder) / tag / "model.pt")
        self.value, self.global_steps = state["value"], state["step"]
        return folder, {}


class FullDisk(SmallEngine):
    """Writes half and then finds no space left."""

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        super().save_checkpoint(folder, tag, save_latest)
        (Path(folder) / tag / "optimizer.pt").unlink()
        raise OSError(28, "No space left on device")


def save(folder: Path, step: int, world: World, keep: int = 9, ranks: int = 1) -> Path:
    commit = Commit(step, SETTINGS, ranks, 1)
    return checkpoint.save(SmallEngine(float(step), step), folder, commit, world, keep)


def test_what_was_saved_comes_back(tmp_path: Path, world: World) -> None:
    folder = tmp_path / "checkpoints"
    path = save(folder, 300, world)
    assert path.name == "step-00000300"
    commit = checkpoint.verify(path, world)
    assert (commit.step, commit.settings, commit.world_size, commit.zero_stage) == (
        300,
        SETTINGS,
        1,
        1,
    )
    assert {record.name for record in commit.files} == {"state/model.pt", "state/optimizer.pt"}
    engine = SmallEngine()
    checkpoint.load(engine, path, commit)
    assert (engine.value, engine.global_steps) == (300.0, 300)
    assert [entry.name for entry in folder.iterdir()] == ["step-00000300"]


def test_the_newest_is_found_by_step_not_by_time(tmp_path: Path, world: World) -> None:
    for step in (10, 2, 9):
        save(tmp_path, step, world)
    found, damaged = checkpoint.newest_whole(tmp_path, world)
    assert found is not None and found.name == folder_name(10)
    assert damaged == []


def test_no_checkpoint_at_all_is_no_error(tmp_path: Path, world: World) -> None:
    assert checkpoint.newest_whole(tmp_path, world) == (None, [])
    assert checkpoint.newest_whole(tmp_path / "missing", world) == (None, [])


def damages(path: Path) -> Iterator[str]:
    """Damage a copy of a checkpoint in every way, one at a time; the original is put back."""
    spare = path.with_name("spare")
    shutil.copytree(path, spare)
    for file in sorted(each for each in spare.rglob("*") if each.is_file()):
        name = file.relative_to(spare)
        content = file.read_bytes()
        for place in (0, len(content) // 2, len(content) - 2):
            changed = bytearray(content)
            changed[place] ^= 1
            (path / name).write_bytes(bytes(changed))
            yield f"{name}: byte {place} changed"
        (path / name).write_bytes(content[:-2])
        yield f"{name}: cut short"
        (path / name).unlink()
        yield f"{name}: missing"
        (path / name).write_bytes(content)
    shutil.rmtree(spare)


def test_any_damage_is_found_and_the_checkpoint_before_is_taken(
    tmp_path: Path, world: World
) -> None:
    save(tmp_path, 1, world)
    newest = save(tmp_path, 2, world)
    seen = 0
    for damage in damages(newest):
        found, damaged = checkpoint.newest_whole(tmp_path, world)
        assert found is not None and found.name == folder_name(1), damage
        assert [problem.place for problem in damaged] == [str(newest)], damage
        seen += 1
    assert seen == 15
    found, damaged = checkpoint.newest_whole(tmp_path, world)
    assert found == newest and not damaged


def test_checkpoints_of_which_none_is_whole_are_an_error(tmp_path: Path, world: World) -> None:
    for step in (1, 2):
        (save(tmp_path, step, world) / "state" / "model.pt").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"no checkpoint is whole.*step-00000002.*00000001"):
        checkpoint.newest_whole(tmp_path, world)


def test_a_folder_without_a_record_is_no_checkpoint(tmp_path: Path, world: World) -> None:
    path = save(tmp_path, 5, world)
    (path / COMMIT_NAME).unlink()
    with pytest.raises(TrainingError, match=r"commit\.json is missing"):
        checkpoint.verify(path, world)


def test_a_record_edited_by_hand_is_refused(tmp_path: Path, world: World) -> None:
    path = save(tmp_path, 5, world)
    body = json.loads((path / COMMIT_NAME).read_text())
    body["step"] = 6
    (path / COMMIT_NAME).write_text(json.dumps(body))
    with pytest.raises(TrainingError, match="its own hash does not match"):
        checkpoint.verify(path, world)


def test_a_save_cut_short_leaves_the_older_one_and_the_next_save_cleans_up(
    tmp_path: Path, world: World
) -> None:
    before = save(tmp_path, 1, world)
    with pytest.raises(OutputError, match="No space left on device"):
        checkpoint.save(FullDisk(2.0, 2), tmp_path, Commit(2, SETTINGS, 1, 1), world, 9)
    assert checkpoint.newest_whole(tmp_path, world) == (before, [])
    assert (tmp_path / "step-00000002.tmp").is_dir()
    save(tmp_path, 2, world)
    assert sorted(path.name for path in tmp_path.glob("step*")) == [
        "step-00000001",
        "step-00000002",
    ]


def test_a_damaged_checkpoint_gives_way_to_a_whole_one_of_its_step(
    tmp_path: Path, world: World
) -> None:
    (save(tmp_path, 2, world) / "state" / "model.pt").write_bytes(b"")
    path = save(tmp_path, 2, world)
    assert checkpoint.verify(path, world).step == 2
    assert [entry.name for entry in tmp_path.glob("step*")] == [path.name]


def test_the_oldest_go_first(tmp_path: Path, world: World) -> None:
    for step in (1, 2, 10, 11):
        save(tmp_path, step, world, keep=2)
    names = sorted(path.name for path in tmp_path.glob("step*"))
    assert names == [folder_name(10), folder_name(11)]


def test_a_checkpoint_of_other_settings_or_ranks_is_refused_by_name() -> None:
    commit = Commit(5, SETTINGS, 2, 1)
    place = Path("step-00000005")
    checkpoint.check_continues(commit, Commit(9, SETTINGS, 2, 1), place)
    with pytest.raises(TrainingError, match=r"lr: 0\.001 there, 0\.002 here"):
        checkpoint.check_continues(commit, Commit(5, {**SETTINGS, "lr": 0.002}, 2, 1), place)
    with pytest.raises(TrainingError, match="2 ranks under ZeRO stage 1, this is 1 rank under"):
        checkpoint.check_continues(commit, Commit(5, SETTINGS, 1, 1), place)
    with pytest.raises(TrainingError, match="ZeRO stage 1, this is 2 ranks under ZeRO stage 3"):
        checkpoint.check_continues(commit, Commit(5, SETTINGS, 2, 3), place)


def test_a_load_that_brings_another_step_or_nothing_is_fatal(tmp_path: Path, world: World) -> None:
    path = save(tmp_path, 5, world)
    with pytest.raises(TrainingError, match="loaded step 5, the commit record says step 6"):
        checkpoint.load(SmallEngine(), path, Commit(6, SETTINGS, 1, 1))

    class Nothing(SmallEngine):
        def load_checkpoint(self, *_: str, **__: str) -> tuple[None, dict[str, Any]]:
            return None, {}

    with pytest.raises(TrainingError, match="loaded nothing"):
        checkpoint.load(Nothing(), path, Commit(5, SETTINGS, 1, 1))


def test_an_error_of_one_rank_is_raised_by_all(world: World) -> None:
    def fail() -> None:
        raise OutputError("no room")

    with pytest.raises(EveryRankError, match="no room"):
        world.agree(fail)
    assert world.agree(lambda: 5) == 5


def test_an_error_of_the_file_system_is_told_too(world: World, tmp_path: Path) -> None:
    with pytest.raises(EveryRankError, match=r"missing: No such file or directory\n  remedy"):
        world.agree(lambda: (tmp_path / "missing").read_bytes())
