"""Muon under DeepSpeed does what a plain Muon on whole matrices does."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeling.model import LlamaForCausalLM
from tests.e2e.conftest import Server, Workshop
from tests.e2e.test_gradients import MODEL, SUPERVISED, micro_batch

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).with_name("muon_steps.py")
Batches = list[dict[str, Tensor]]


def orthogonalised(matrix: Tensor) -> Tensor:
    """Five quintic Newton-Schulz steps in float32, by the published formula."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


def plain_muon(batches: Batches, clip: float) -> dict[str, Tensor]:
    """Three steps of Muon on the layers' matrices, and of torch's AdamW on the rest."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(MODEL)
    matrices = [p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2]
    ids = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in ids]
    decays = [{"params": [p], "weight_decay": 0.1 if p.ndim == 2 else 0.0} for p in rest]
    adamw = torch.optim.AdamW(decays, lr=1e-3, betas=(0.9, 0.95))
    momenta = [torch.zeros_like(p) for p in matrices]
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    for _ in range(3):
        model.zero_grad()
        (model(**whole) / (whole["labels"] >= 0).sum()).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        with torch.no_grad():
            for p, momentum in zip(matrices, momenta, strict=True):
                assert p.grad is not None
                momentum.lerp_(p.grad, 0.05)
                update = orthogonalised(p.grad.lerp(momentum, 0.95))
                p.mul_(1 - 0.02 * 0.1)
                p.sub_(0.02 * math.sqrt(max(1.0, p.shape[0] / p.shape[1])) * update)
        adamw.step()
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def batches() -> Batches:
    torch.manual_seed(1)
    return [micro_batch(supervised) for supervised in SUPERVISED]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_muon_is_a_plain_muon(
    server: Server, batches: Batches, tmp_path: Path, ranks: int, clip: float
) -> None:
    found = three_steps(server, batches, tmp_path, ranks, 0, "fp32", clip)
    expected = plain_muon(batches, clip)
    worst = {name: float((found[name] - expected[name]).abs().max()) for name in expected}
    assert max(worst.values()) <= 1e-5, worst


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_in_bf16_it_moves_the_matrices_the_same_way(
    server: Server, batches: Batches, tmp_path: Path, ranks: int, clip: float
) -> None:
    """ZeRO 1 gathers each matrix from the ranks that hold a part of it."""
    found = three_steps(server, batches, tmp_path, ranks, 1, "bf16", clip)
    expected = plain_muon(batches, clip)
    torch.manual_seed(0)
    before = dict(LlamaForCausalLM(MODEL).named_parameters())
    for name, weight in expected.items():
        if ".layers." in name and weight.ndim == 2:
            moved = (found[name].float() - before[name].detach()).flatten()
            wanted = (weight - before[name].detach()).flatten()
            assert torch.nn.functional.cosine_similarity(moved, wanted, dim=0) > 0.95, name
            assert float(moved.norm() / wanted.norm()) == pytest.approx(1, abs=0.1), name


def three_steps(
    server: Server,
    batches: Batches,
    folder: Path,
    ranks: int,
    stage: int,
    precision: str,
    clip: float,
) -> dict[str, Tensor]:
    source, out = folder / "batches.pt", folder / "weights.pt"
    torch.save({"model": asdict(MODEL), "batches": batches}, source)
    result = server.run(ranks, str(SCRIPT), source, out, stage, precision, clip)
    assert result.code == 0, result.text
    weights: dict[str, Tensor] = torch.load(out)
    return weights


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_with_muon_goes_on_exactly_and_on_one_rank(
    server: Server, workshop: Workshop, precision: str
) -> None:
    def run(out: Path, ranks: int) -> list[float]:
        config = (
            workshop.config(0) if precision == "fp32" else workshop.config_folder / "zero1.json"
        )
        arguments = workshop.pretraining(out, config, optimizer="muon", keep_last=9)
        ended = server.start(ranks, "pretrain.py", *arguments, TORCHDYNAMO_DISABLE="1")
        result = server.finish(ended)
        assert result.code == 0, result.text
        return workshop.losses(out)

    whole = workshop.folder / f"muon-{precision}"
    curve = run(whole, 2)
    assert curve[-1] < curve[0] - 0.5
    for ranks in (2, 1):
        out = workshop.folder / f"muon-{precision}-{ranks}"
        shutil.copytree(whole, out)
        shutil.rmtree(out / "model")
        for step in (10, 12):
            shutil.rmtree(out / "checkpoints" / f"step-{step:08d}")
        resumed = run(out, ranks)
        if ranks == 2:
            assert resumed == curve
        else:
            assert resumed[5] == pytest.approx(curve[5], abs=1e-6 if precision == "fp32" else 1e-2)
            # Without the momentum the matrices would go another way.
            assert resumed == pytest.approx(curve, abs=1e-4 if precision == "fp32" else 5e-2)
