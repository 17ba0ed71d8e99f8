"""Whole training runs: real DeepSpeed on two gloo ranks; see ``conftest.py`` for their making."""

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
import torch
from safetensors.torch import load_file

from metrics import read_metrics
from validation import supervised_tokens, to_device
from vnprep.loader import PackedLoader
from vnprep.shards.read import ShardSet
from weights import load_model

pytestmark = pytest.mark.e2e

if TYPE_CHECKING:
    from conftest import Server, Workshop

CONFIGS = Path(__file__).parents[2] / "ds_configs"
#: Optimizer steps of the runs that ``Workshop.pretraining`` describes.
STEPS = 12
TIMEOUT_S = 240


def losses(out: Path) -> list[float]:
    """The loss of every step, in order."""
    rows = [row for row in read_metrics(out / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").glob("step-*"))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def staged(server: Server, workshop: Workshop) -> dict[int, Path]:
    """The same run under ZeRO 0, 1, 2 and 3, on two ranks."""
    outs = {}
    for stage in (0, 1, 2, 3):
        out = workshop.folder / f"zero{stage}"
        result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(stage)))
        assert result.code == 0, result.text
        outs[stage] = out
    return outs


def test_every_zero_stage_gives_the_same_run(staged: dict[int, Path]) -> None:
    reference = losses(staged[0])
    assert len(reference) == STEPS
    for stage in (1, 2, 3):
        assert losses(staged[stage]) == pytest.approx(reference, abs=1e-5)
        rows, expected = (read_metrics(staged[each] / "metrics.jsonl") for each in (stage, 0))
        for row, other in zip(rows, expected, strict=True):
            assert row.keys() == other.keys()
            for name in row.keys() & {"loss", "valid_loss", "grad_norm"}:
                assert row[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), (stage, row)
    weights = {stage: load_file(out / "model/model.safetensors") for stage, out in staged.items()}
    for stage in (1, 2, 3):
        assert weights[stage].keys() == weights[0].keys()
        for name, tensor in weights[0].items():
            assert weights[stage][name].dtype == torch.float32
            torch.testing.assert_close(weights[stage][name], tensor, atol=2e-5, rtol=0)


def test_the_loss_falls(staged: dict[int, Path]) -> None:
    rows = read_metrics(staged[1] / "metrics.jsonl")
    valid = {row["step"]: row["valid_perplexity"] for row in rows if "valid_loss" in row}
    # An untrained model knows nothing: about as many guesses as the vocabulary has entries.
    assert valid[0] == pytest.approx(128, rel=0.2)
    assert valid[STEPS] < 0.6 * valid[0]
    curve = losses(staged[1])
    assert curve[-1] < curve[0] - 0.5


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_scheduled_rate_is_the_one_that_is_used(staged: dict[int, Path], stage: int) -> None:
    """The last step has a learning rate of 0, so it must change nothing."""
    rows = read_metrics(staged[stage] / "metrics.jsonl")
    valid = {row["step"]: row["valid_loss"] for row in rows if "valid_loss" in row}
    assert sorted(valid) == [0, STEPS - 1, STEPS]
    assert [row["lr"] for row in rows if "lr" in row][-1] == 0
    assert valid[STEPS] == valid[STEPS - 1]


def test_the_run_leaves_what_it_promised(staged: dict[int, Path], workshop: Workshop) -> None:
    out = staged[3]
    assert checkpoints(out) == ["step-00000005", "step-00000010", "step-00000012"]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    row = next(row for row in read_metrics(out / "metrics.jsonl") if "loss" in row)
    assert (row["supervised_share"], row["step"]) == (1.0, 1)
    assert 0 < row["tokens"] <= 2 * 4 * 32
    # The weights that were written give the validation loss that was logged.
    model = load_model(out).model.eval()
    loader = PackedLoader(ShardSet.open(workshop.valid), seq_len=32, micro_batch=4, shuffle=False)
    total = tokens = 0.0
    with torch.no_grad():
        for step in range(loader.steps_per_epoch):
            for batch in loader.step(step):
                total += float(model(**to_device(batch, torch.device("cpu"))))
                tokens += supervised_tokens(batch)
    logged = read_metrics(out / "metrics.jsonl")[-1]
    assert logged["valid_tokens"] == tokens
    assert logged["valid_loss"] == pytest.approx(total / tokens, abs=1e-5)


def test_accumulating_on_one_rank_is_the_same_as_two_ranks(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "alone"
    arguments = workshop.pretraining(out, workshop.config(1), accumulation=2, steps=STEPS)
    result = server.run(1, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert losses(out)[:5] == pytest.approx(losses(staged[1])[:5], abs=1e-6)
    assert losses(out) == pytest.approx(losses(staged[1]), abs=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_resumed_run_is_bit_identical(
    server: Server, staged: dict[int, Path], workshop: Workshop, stage: int
) -> None:
    """The newest checkpoint is damaged: the one before is taken, and nothing else changes."""
    out = workshop.folder / f"resumed{stage}"
    shutil.copytree(staged[stage], out)
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "step-00000012")
    damaged = sorted((out / "checkpoints" / "step-00000010").rglob("*model_states.pt"))[0]
    flip_a_byte(damaged)
    expected = (out / "metrics.jsonl").read_bytes()
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(stage)))
    assert result.code == 0, result.text
    assert "checkpoint passed over" in result.text
    assert f"step-00000010: state/{damaged.name} is damaged" in result.text
    assert "continuing after step 5 " in result.text
    assert losses(out) == losses(staged[stage])
    timeless = [{**row, "tokens_per_s": 0} for row in read_metrics(out / "metrics.jsonl")]
    (out / "metrics.jsonl").write_bytes(expected)
    assert timeless == [{**r, "tokens_per_s": 0} for r in read_metrics(out / "metrics.jsonl")]
    weights, reference = (path / "model/model.safetensors" for path in (out, staged[stage]))
    assert weights.read_bytes() == reference.read_bytes()
    assert checkpoints(out) == checkpoints(staged[stage])


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
    for name in checkpoints(out):
        flip_a_byte(out / "checkpoints" / name / "commit.json")
    before = (out / "metrics.jsonl").read_bytes()
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(1)))
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "no checkpoint is whole" in result.text and "Traceback" not in result.text
    assert (out / "metrics.jsonl").read_bytes() == before


def test_other_ranks_cannot_continue_and_are_told_so(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "fewer"
    shutil.copytree(staged[1], out)
    result = server.run(
        1, "pretrain.py", *workshop.pretraining(out, workshop.config(1), accumulation=2)
    )
    assert result.code == 1
    assert "was written by 2 ranks under ZeRO stage 1, this is 1 rank" in result.text


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    """SIGTERM saves and leaves with a code of its own; the same command ends the run."""
    out = workshop.folder / "stopped"
    arguments = workshop.pretraining(out, workshop.config(1))
    ranks = server.start(2, "pretrain.py", *arguments)
    wait_for_steps(out, 1)
    for process in ranks.processes:
        os.kill(process, signal.SIGTERM)
    stopped = server.finish(ranks)
    assert stopped.code == 128 + signal.SIGTERM, stopped.text
    assert "the same command continues from here" in stopped.text
    done = len(losses(out))
    assert 1 <= done < STEPS and not (out / "model").exists()
    assert checkpoints(out)[-1] == f"step-{done:08d}"
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert losses(out) == losses(staged[1])


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
    assert checkpoints(out) == [f"step-{len(losses(out)):08d}"]


@pytest.mark.parametrize(("lr", "what"), [(3e38, "the loss"), (1e30, "the gradient")])
def test_a_number_that_is_none_stops_the_run(
    server: Server, workshop: Workshop, lr: float, what: str
) -> None:
    """Step 1 makes the weights infinite, or so large that step 2's gradient is."""
    out = workshop.folder / f"exploded-{lr}"
    arguments = workshop.pretraining(
        out, workshop.config(1), lr=lr, warmup=0, grad_clip=0, save_every=1, eval_every=0
    )
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert f"error: {what} of step 2 is " in result.text
    assert "lower --lr" in result.text and "Traceback" not in result.text
    assert checkpoints(out) == ["step-00000001"]
    assert not (out / "model").exists()
    assert all(math.isfinite(loss) for loss in losses(out))


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3", "zero3_offload"])
def test_the_files_for_gpus_train_on_two_cpu_ranks(
    server: Server, staged: dict[int, Path], workshop: Workshop, name: str
) -> None:
    out = workshop.folder / f"bf16-{name}"
    arguments = workshop.pretraining(out, CONFIGS / f"{name}.json", save_every=0)
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    # bf16 has 8 bits of mantissa: near the fp32 curve, not on it.
    assert losses(out) == pytest.approx(losses(staged[1]), abs=0.1)
    tensors = load_file(out / "model/model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_finetuning_by_the_launcher(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    """The README's command, with ``cpu.json`` as it is."""
    fine = workshop.folder / "fine"
    tuning: list[object] = ["--data", workshop.pairs, "--valid", workshop.pairs, "--epochs", 2]
    tuning += ["--init", staged[1], "--deepspeed_config", CONFIGS / "cpu.json", "--out", fine]
    result = server.launch("finetune.py", *tuning, "--micro-batch", 2)
    assert result.code == 0, result.text
    rows = read_metrics(fine / "metrics.jsonl")
    assert rows[-1]["valid_loss"] < rows[0]["valid_loss"]
    trained = [row for row in rows if "loss" in row]
    # 60 requests of some 7 tokens: each row is a request, [SEP] and as long a response.
    assert all(0.4 < row["supervised_share"] < 0.6 for row in trained)
    supervised = sum(row["tokens"] * row["supervised_share"] for row in trained)
    manifest = ShardSet.open(workshop.pairs).manifest
    assert supervised == pytest.approx(2 * manifest.supervised_tokens, rel=1e-3)
    assert load_model(fine).stage == "finetune"


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
