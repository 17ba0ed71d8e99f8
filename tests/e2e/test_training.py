"""Whole training runs: real DeepSpeed on two gloo ranks; see ``conftest.py`` for their making."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from modeling.weights import load_model
from trainer.metrics import read_metrics
from trainer.validation import supervised_tokens, to_device
from vnprep.loading.loader import PackedLoader
from vnprep.shards.read import ShardSet

pytestmark = pytest.mark.e2e

if TYPE_CHECKING:
    from conftest import Server, Workshop

CONFIGS = Path(__file__).parents[2] / "ds_configs"
#: Optimizer steps of the runs that ``Workshop.pretraining`` describes.
STEPS = 12
TIMEOUT_S = 240


def test_every_zero_stage_gives_the_same_run(staged: dict[int, Path], workshop: Workshop) -> None:
    reference = workshop.losses(staged[0])
    assert len(reference) == STEPS
    for stage in (1, 2, 3):
        assert workshop.losses(staged[stage]) == pytest.approx(reference, abs=1e-5)
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


def test_the_loss_falls(staged: dict[int, Path], workshop: Workshop) -> None:
    rows = read_metrics(staged[1] / "metrics.jsonl")
    valid = {row["step"]: row["valid_perplexity"] for row in rows if "valid_loss" in row}
    # An untrained model knows nothing: about as many guesses as the vocabulary has entries.
    assert valid[0] == pytest.approx(128, rel=0.2)
    assert valid[STEPS] < 0.6 * valid[0]
    curve = workshop.losses(staged[1])
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
    assert workshop.checkpoints(out) == ["step-00000005", "step-00000010", "step-00000012"]
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


def test_nothing_is_left_in_shared_memory(server: Server, workshop: Workshop) -> None:
    """DeepSpeed's shared-memory op would leave 138 MB behind after every run."""
    memory = Path("/dev/shm")
    before = set(memory.iterdir())
    arguments = workshop.pretraining(workshop.folder / "shm", workshop.config(1), steps=1)
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    port = server.last_port
    left = {path.name for path in set(memory.iterdir()) - before}
    assert not {name for name in left if port in name}


def test_accumulating_on_one_rank_is_the_same_as_two_ranks(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "alone"
    arguments = workshop.pretraining(out, workshop.config(1), accumulation=2, steps=STEPS)
    result = server.run(1, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert workshop.losses(out)[:5] == pytest.approx(workshop.losses(staged[1])[:5], abs=1e-6)
    assert workshop.losses(out) == pytest.approx(workshop.losses(staged[1]), abs=1e-5)


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3", "zero3_offload"])
def test_the_files_for_gpus_train_on_two_cpu_ranks(
    server: Server, staged: dict[int, Path], workshop: Workshop, name: str
) -> None:
    out = workshop.folder / f"bf16-{name}"
    arguments = workshop.pretraining(out, CONFIGS / f"{name}.json", save_every=0)
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    # bf16 has 8 bits of mantissa: near the fp32 curve, not on it.
    assert workshop.losses(out) == pytest.approx(workshop.losses(staged[1]), abs=0.1)
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
