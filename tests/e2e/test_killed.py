"""Runs that are killed, or that find the disk full, and go on as if nothing had been."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainer.metrics import read_metrics

pytestmark = pytest.mark.e2e

if TYPE_CHECKING:
    from conftest import Ranks, Server, Workshop

#: Optimizer steps of the runs that ``Workshop.pretraining`` describes.
STEPS = 12
TIMEOUT_S = 60
#: Bytes: more than a log of metrics, less than a rank's share of the state.
LITTLE = 30_000


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "what the test waits for does not come"
        time.sleep(0.0005)


def steps_logged(out: Path) -> int:
    return len([row for row in read_metrics(out / "metrics.jsonl") if "loss" in row])


def goes_on_to_the_same_end(
    server: Server, workshop: Workshop, out: Path, reference: Path, arguments: list[object]
) -> None:
    """Run the same command again: sample order and losses are those of a run left in peace."""
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert "continuing after step " in result.text
    assert workshop.losses(out) == workshop.losses(reference)
    ends = [run / "model/model.safetensors" for run in (out, reference)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert not list((out / "checkpoints").glob("*.tmp"))


def end_of(server: Server, ranks: Ranks) -> tuple[list[int], str]:
    """Return how the ranks ended and what they said; they must not wait for the dead."""
    began = time.monotonic()
    codes = server.wait(ranks)
    assert time.monotonic() - began < 30
    return codes, "".join(path.read_text() for path in ranks.errors)


@pytest.mark.parametrize(
    ("killed", "stage", "moment"),
    [([1], 1, "step"), ([0], 3, "save"), ([0, 1], 2, "save"), ([0, 1], 0, "step")],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    server: Server,
    staged: dict[int, Path],
    workshop: Workshop,
    killed: list[int],
    stage: int,
    moment: str,
) -> None:
    out = workshop.folder / f"killed-{'-'.join(map(str, killed))}-{moment}"
    arguments = workshop.pretraining(
        out, workshop.config(stage), save_every=1, keep_last=2, eval_every=STEPS - 1
    )
    ranks = server.start(2, "pretrain.py", *arguments)
    checkpoints = out / "checkpoints"
    wait_for(lambda: steps_logged(out) >= 4)
    if moment == "save":
        wait_for(lambda: any(checkpoints.glob("step-*.tmp/state/*")))
    for rank in killed:
        os.kill(ranks.processes[rank], signal.SIGKILL)
    codes, text = end_of(server, ranks)
    assert [codes[rank] for rank in killed] == [-signal.SIGKILL] * len(killed)
    if len(killed) == 1:
        assert codes[1 - killed[0]] == 1
        assert text.count("error: ") == 1 and "Traceback" not in text, text
        assert f"error: rank {1 - killed[0]}: another rank has ended" in text
    goes_on_to_the_same_end(server, workshop, out, staged[stage], arguments)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_leaves_the_older_checkpoint_and_tells_once(
    server: Server, staged: dict[int, Path], workshop: Workshop, rank: int
) -> None:
    """One rank finds no room for its file: both end, and neither waits for the other."""
    out = workshop.folder / f"full{rank}"
    arguments = workshop.pretraining(out, workshop.config(1), save_every=1, keep_last=2)
    ranks = server.start(2, "pretrain.py", *arguments)
    wait_for(lambda: steps_logged(out) >= 4)
    limits = (LITTLE, resource.RLIM_INFINITY)
    resource.prlimit(ranks.processes[rank], resource.RLIMIT_FSIZE, limits)
    codes, text = end_of(server, ranks)
    assert codes == [1, 1], text
    assert text.count("error: ") == 1 and "Traceback" not in text, text
    assert "the checkpoint cannot be written ([Errno 27] File too large)" in text
    assert "remedy: make room" in text
    names = workshop.checkpoints(out)
    assert len(names) == 2 and not any(name.endswith(".tmp") for name in names)
    assert names[-1] in (f"step-{steps_logged(out) - 1:08d}", f"step-{steps_logged(out):08d}")
    goes_on_to_the_same_end(server, workshop, out, staged[1], arguments)


def test_damage_of_every_kind_is_named_and_passed_over(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    """Of five checkpoints two are cut or robbed of a file; one has a file too many."""
    out = workshop.folder / "five"
    arguments = workshop.pretraining(out, workshop.config(3), save_every=2)
    assert server.run(2, "pretrain.py", *arguments).code == 0
    files = {step: out / f"checkpoints/step-{step:08d}/state" for step in (8, 10, 12)}
    cut = files[12] / "rank-00001.safetensors"
    whole = cut.stat().st_size
    os.truncate(cut, whole // 2)
    (files[12] / "rank-00000.safetensors").write_bytes(b"x" * whole)
    (files[10] / "rank-00001.safetensors").unlink()
    (files[8] / "rank-00007.safetensors").write_bytes(b"of nobody")
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert "continuing after step 8 " in result.text
    assert result.text.count("checkpoint passed over") == 2
    assert "step-00000012: state/rank-00000.safetensors " in result.text
    assert f"rank-00001.safetensors has {whole // 2:,} of {whole:,} bytes" in result.text
    assert "step-00000010: state/rank-00001.safetensors is missing" in result.text
    assert workshop.losses(out) == workshop.losses(staged[3])
