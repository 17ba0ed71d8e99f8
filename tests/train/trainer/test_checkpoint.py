"""The protocol: whole or not there, damage is found, passed over, and never silently ignored."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn

from trainer import checkpoint
from trainer.checkpoint import COMMIT_NAME, Commit, folder_name
from trainer.distributed import EveryRankError, World
from vnprep.durable import sha256_file
from vnprep.errors import OutputError, TrainingError
from vnprep.shards.manifest import FileRecord

SETTINGS = {"lr": 0.001, "seed": 7}
STATE = Path("state/rank-00000.safetensors")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A group of one rank."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        yield World(0, 1, 0, torch.device("cpu"), dist.group.WORLD)
    finally:
        dist.destroy_process_group()


class SmallEngine:
    """What DeepSpeed's engine is at stage 0 in fp32: a module, torch's optimizer, counts.

    The real ones, of all stages, are in tests/e2e.
    """

    global_rank, world_size = 0, 1

    def __init__(self, seed: int = 0, steps: int = 0) -> None:
        torch.manual_seed(seed)
        self.module = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2, bias=False))
        self.module[1].weight.requires_grad = False  # frozen: no part of a checkpoint
        trained = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=0.1)
        self.global_steps = self.micro_steps = self.global_samples = 0
        for _ in range(steps):
            self.step()

    def step(self) -> float:
        loss = self.module(torch.ones(4, 3)).square().sum()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.global_steps += 1
        return float(loss.detach())

    def gradient_accumulation_steps(self) -> int:
        return 4

    def train_batch_size(self) -> int:
        return 16


def commit_of(step: int, settings: dict[str, Any] | None = None, ranks: int = 1) -> Commit:
    return Commit(step, SETTINGS if settings is None else settings, ranks, 0, "fp32")


def save(
    folder: Path, step: int, world: World, keep: int = 9, keep_every: int = 0, steps: int = 1
) -> Path:
    engine = SmallEngine(steps=steps)
    return checkpoint.save(engine, folder, commit_of(step), world, keep, keep_every)


def test_what_was_saved_comes_back(tmp_path: Path, world: World) -> None:
    folder = tmp_path / "checkpoints"
    engine = SmallEngine(steps=3)
    path = checkpoint.save(engine, folder, commit_of(300), world, 9)
    assert path.name == "step-00000300"
    commit = checkpoint.verify(path, world)
    assert (commit.step, commit.settings, commit.world_size, commit.zero_stage) == (
        300,
        SETTINGS,
        1,
        0,
    )
    assert [record.name for record in commit.files] == ["state/rank-00000.safetensors"]
    other = SmallEngine(seed=1)
    other.module[1].weight.data.copy_(engine.module[1].weight)
    checkpoint.load(other, path, commit)
    assert (other.global_steps, other.micro_steps, other.global_samples) == (300, 1200, 4800)
    assert [other.step() for _ in range(3)] == [engine.step() for _ in range(3)]
    assert [entry.name for entry in folder.iterdir()] == ["step-00000300"]


def test_a_run_whose_every_step_was_skipped_has_no_moments_and_comes_back(
    tmp_path: Path, world: World
) -> None:
    engine = SmallEngine()
    path = checkpoint.save(engine, tmp_path, commit_of(1), world, 9)
    other = SmallEngine(seed=1)
    checkpoint.load(other, path, checkpoint.verify(path, world))
    assert not other.optimizer.state
    assert torch.equal(other.module[0].weight, engine.module[0].weight)


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
    assert seen == 10
    found, damaged = checkpoint.newest_whole(tmp_path, world)
    assert found == newest and not damaged


def test_checkpoints_of_which_none_is_whole_are_an_error(tmp_path: Path, world: World) -> None:
    for step in (1, 2):
        (save(tmp_path, step, world) / STATE).write_bytes(b"")
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


def test_a_full_disk_is_told_and_leaves_the_older_one(tmp_path: Path, world: World) -> None:
    """The system itself refuses the bytes, as it does where a file may grow no further."""
    before = save(tmp_path, 1, world)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        with pytest.raises(EveryRankError, match=r"cannot be written.*too large\)\n  remedy: make"):
            save(tmp_path, 2, world)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.newest_whole(tmp_path, world) == (before, [])
    assert [path.name for path in tmp_path.glob("step*")] == [before.name]


def test_what_a_killed_run_left_is_no_checkpoint_and_goes_with_the_next_save(
    tmp_path: Path, world: World
) -> None:
    before = save(tmp_path, 1, world)
    for step in (2, 3):
        shutil.copytree(before, tmp_path / f"{folder_name(step)}.tmp")
    assert checkpoint.newest_whole(tmp_path, world) == (before, [])
    save(tmp_path, 2, world)
    assert sorted(path.name for path in tmp_path.glob("step*")) == [
        "step-00000001",
        "step-00000002",
    ]


def test_a_file_that_is_not_recorded_is_not_looked_at(tmp_path: Path, world: World) -> None:
    path = save(tmp_path, 1, world)
    (path / "state" / "rank-00001.safetensors").write_bytes(b"not even a header")
    commit = checkpoint.verify(path, world)
    checkpoint.load(SmallEngine(), path, commit)


def test_a_damaged_checkpoint_gives_way_to_a_whole_one_of_its_step(
    tmp_path: Path, world: World
) -> None:
    (save(tmp_path, 2, world) / STATE).write_bytes(b"")
    path = save(tmp_path, 2, world)
    assert checkpoint.verify(path, world).step == 2
    assert [entry.name for entry in tmp_path.glob("step*")] == [path.name]


def test_the_oldest_go_first(tmp_path: Path, world: World) -> None:
    for step in (1, 2, 10, 11):
        save(tmp_path, step, world, keep=2)
    names = sorted(path.name for path in tmp_path.glob("step*"))
    assert names == [folder_name(10), folder_name(11)]


def test_multiples_are_kept_beside_the_newest(tmp_path: Path, world: World) -> None:
    for step in (5, 10, 15, 20, 25, 30):
        save(tmp_path, step, world, keep=1, keep_every=10)
    names = sorted(path.name for path in tmp_path.glob("step*"))
    assert names == [folder_name(step) for step in (10, 20, 30)]
    save(tmp_path, 31, world, keep=1)
    assert [path.name for path in tmp_path.glob("step*")] == [folder_name(31)]


def test_a_damaged_later_one_pushes_no_whole_one_out(tmp_path: Path, world: World) -> None:
    """The run goes on from before it; were it counted, the one that is saved would go."""
    save(tmp_path, 5, world)
    (save(tmp_path, 10, world) / STATE).write_bytes(b"")
    save(tmp_path, 7, world, keep=1)
    found, damaged = checkpoint.newest_whole(tmp_path, world)
    assert found is not None and found.name == folder_name(7)
    assert [problem.place for problem in damaged] == [str(tmp_path / folder_name(10))]


def test_a_checkpoint_of_other_settings_is_refused_by_name() -> None:
    commit, place = commit_of(5, ranks=2), Path("step-00000005")
    checkpoint.check_continues(commit, commit_of(9), place)
    with pytest.raises(TrainingError, match=r"lr: 0\.001 there, 0\.002 here"):
        checkpoint.check_continues(commit, commit_of(5, {**SETTINGS, "lr": 0.002}), place)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, world: World) -> None:
    path = save(tmp_path, 5, world)
    commit = checkpoint.verify(path, world)
    wider = SmallEngine()
    wider.module[0] = nn.Linear(3, 6)
    wider.optimizer = torch.optim.AdamW(wider.module[0].parameters())
    with pytest.raises(TrainingError, match=r"step-0.*: holds 0\.weight of shape \(5, 3\)"):
        checkpoint.load(wider, path, commit)
    more = SmallEngine()
    more.optimizer.add_param_group({"params": [more.module[1].weight]})
    with pytest.raises(TrainingError, match=r"holds 1\.weight of shape None"):
        checkpoint.load(more, path, commit)


def test_a_sound_file_of_something_else_is_refused(tmp_path: Path, world: World) -> None:
    path = save(tmp_path, 5, world)
    save_file({"a": torch.zeros(3)}, path / STATE)
    record = FileRecord(str(STATE), (path / STATE).stat().st_size, sha256_file(path / STATE))
    replace(commit_of(5), files=(record,)).write(path)
    with pytest.raises(TrainingError, match="no file of a checkpoint's state"):
        checkpoint.load(SmallEngine(), path, checkpoint.verify(path, world))


def test_an_error_of_one_rank_is_raised_by_all(world: World) -> None:
    def fail() -> None:
        raise OutputError("no room")

    with pytest.raises(EveryRankError, match="no room"):
        world.agree(fail)
    assert world.agree(lambda: 5) == 5


def test_an_error_of_the_file_system_is_told_too(world: World, tmp_path: Path) -> None:
    with pytest.raises(EveryRankError, match=r"missing: No such file or directory\n  remedy"):
        world.agree(lambda: (tmp_path / "missing").read_bytes())
