"""Runs that are stopped, damaged, refused or misled; see ``conftest.py`` for their making."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from modeling.weights import load_model, save_model
from trainer.metrics import read_metrics

pytestmark = pytest.mark.e2e

if TYPE_CHECKING:
    from conftest import Server, Workshop

CONFIGS = Path(__file__).parents[2] / "ds_configs"
#: Optimizer steps of the runs that ``Workshop.pretraining`` describes.
STEPS = 12
TIMEOUT_S = 240


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the log without what differs from run to run."""
    return {k: v for k, v in row.items() if k not in ("tokens_per_s", "data_wait", "memory_gib")}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_resumed_run_is_bit_identical(
    server: Server, staged: dict[int, Path], workshop: Workshop, stage: int
) -> None:
    """The newest checkpoint is damaged: the one before is taken, and nothing else changes."""
    out = workshop.folder / f"resumed{stage}"
    shutil.copytree(staged[stage], out)
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "step-00000012")
    damaged = sorted((out / "checkpoints" / "step-00000010").rglob("*.safetensors"))[0]
    flip_a_byte(damaged)
    expected = (out / "metrics.jsonl").read_bytes()
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(stage)))
    assert result.code == 0, result.text
    assert "checkpoint passed over" in result.text
    assert f"step-00000010: state/{damaged.name} is damaged" in result.text
    assert "continuing after step 5 " in result.text
    assert workshop.losses(out) == workshop.losses(staged[stage])
    timeless = [without_times(row) for row in read_metrics(out / "metrics.jsonl")]
    (out / "metrics.jsonl").write_bytes(expected)
    assert timeless == [without_times(r) for r in read_metrics(out / "metrics.jsonl")]
    weights, reference = (path / "model/model.safetensors" for path in (out, staged[stage]))
    assert weights.read_bytes() == reference.read_bytes()
    assert workshop.checkpoints(out) == workshop.checkpoints(staged[stage])


def test_a_finished_run_is_not_done_again(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "again"
    shutil.copytree(staged[1], out)
    before = (out / "metrics.jsonl").read_bytes()
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(1)))
    assert result.code == 0, result.text
    assert "continuing after step 12 " in result.text
    assert (out / "metrics.jsonl").read_bytes() == before


def test_damaged_checkpoints_never_mean_starting_over(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "damaged"
    shutil.copytree(staged[1], out)
    for name in workshop.checkpoints(out):
        flip_a_byte(out / "checkpoints" / name / "commit.json")
    before = (out / "metrics.jsonl").read_bytes()
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(1)))
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "no checkpoint is whole" in result.text and "Traceback" not in result.text
    assert (out / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("who", ["all ranks", "one rank alone"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    server: Server, staged: dict[int, Path], workshop: Workshop, who: str
) -> None:
    """SIGTERM saves and leaves with a code of its own; the same command ends the run."""
    out = workshop.folder / f"stopped by {who}"
    arguments = workshop.pretraining(out, workshop.config(1))
    ranks = server.start(2, "pretrain.py", *arguments)
    wait_for_steps(out, 1)
    for process in ranks.processes if who == "all ranks" else ranks.processes[1:]:
        os.kill(process, signal.SIGTERM)
    stopped = server.finish(ranks)
    assert stopped.code == 128 + signal.SIGTERM, stopped.text
    assert "the same command continues from here" in stopped.text
    done = len(workshop.losses(out))
    assert 1 <= done < STEPS and not (out / "model").exists()
    assert workshop.checkpoints(out)[-1] == f"step-{done:08d}"
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert workshop.losses(out) == workshop.losses(staged[1])


def wait_for_steps(out: Path, steps: int) -> None:
    """Wait until a run has logged some steps."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        if len([row for row in read_metrics(out / "metrics.jsonl") if "loss" in row]) >= steps:
            return
        time.sleep(0.005)
    raise AssertionError("the run does not begin")


def test_ranks_do_not_outlive_the_launcher(server: Server, workshop: Workshop) -> None:
    """On SIGTERM the ``deepspeed`` command dies at once; its ranks notice, save and end."""
    out = workshop.folder / "orphans"
    arguments = workshop.pretraining(out, workshop.config(1), steps=20_000, save_every=0)
    launcher = subprocess.Popen(
        server.launch_command("pretrain.py", *arguments),
        env=server.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    family = []
    try:
        wait_for_steps(out, 1)
        family = psutil.Process(launcher.pid).children(recursive=True)
        launcher.terminate()
        launcher.wait(timeout=TIMEOUT_S)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        launcher.kill()
        launcher.wait()
    assert len(family) >= 3  # DeepSpeed's launcher on the node, and two ranks
    assert workshop.checkpoints(out) == [f"step-{len(workshop.losses(out)):08d}"]


def test_a_loss_that_is_no_number_stops_the_run(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    broken, out = workshop.folder / "broken", workshop.folder / "nan"
    loaded = load_model(staged[1])
    state = loaded.model.state_dict()
    state["model.norm.weight"][0] = math.nan
    source = loaded.tokenizer_path
    save_model(broken, loaded.config, state, source, loaded.special, loaded.fingerprint, "pretrain")
    tuning: list[object] = ["--data", workshop.pairs, "--init", broken, "--out", out]
    tuning += ["--deepspeed_config", workshop.config(1), "--max-bad-steps", 2]
    result = server.run(2, "finetune.py", *tuning)
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "2 steps in a row were skipped, the last because its loss is nan" in result.text
    assert "lower --lr" in result.text and "Traceback" not in result.text
    assert (workshop.losses(out), workshop.checkpoints(out)) == (["nan", "nan"], [])


def test_a_gradient_that_is_no_number_stops_the_run(server: Server, workshop: Workshop) -> None:
    """Step 1 makes the weights so large that step 2's gradient overflows."""
    out = workshop.folder / "exploded"
    arguments = workshop.pretraining(
        out, workshop.config(1), lr=1e30, warmup=0, grad_clip=0, save_every=1, max_bad_steps=1
    )
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "1 step was skipped, the last because its" in result.text
    assert workshop.checkpoints(out) == ["step-00000001"] and not (out / "model").exists()
    assert len(workshop.losses(out)) == 2


def test_a_refusal_is_one_error_and_leaves_nothing(server: Server, workshop: Workshop) -> None:
    out = workshop.folder / "refused"
    tuning: list[Any] = ["--data", workshop.pretrain, "--init", workshop.folder, "--out", out]
    result = server.launch("finetune.py", *tuning, "--deepspeed_config", CONFIGS / "cpu.json")
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "holds pretraining data, this is fine-tuning" in result.text
    assert "remedy: use train/pretrain.py" in result.text
    assert "Traceback" not in result.text
    assert not out.exists()


def test_a_wrong_option_is_told_once(server: Server, workshop: Workshop) -> None:
    arguments = workshop.pretraining(workshop.folder / "x", CONFIGS / "cpu.json")
    result = server.run(2, "pretrain.py", *arguments, "--stepz")
    assert result.code == 2
    assert result.text.count("No such option") == 1, result.text


def test_a_port_in_use_is_told_with_the_way_out(workshop: Workshop, server: Server) -> None:
    """Two runs at once on a machine: the launcher gives both the same port."""
    arguments = workshop.pretraining(workshop.folder / "port", CONFIGS / "cpu.json")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        group = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        group["MASTER_PORT"] = str(taken.getsockname()[1])
        result = server.run_in(group, "pretrain.py", *arguments)
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "is in use" in result.text and "--master_port" in result.text
    assert "Traceback" not in result.text
