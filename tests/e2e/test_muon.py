"""Muon under DeepSpeed does what a plain Muon on whole matrices does."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeling.model import LlamaForCausalLM
from tests.e2e.conftest import Server
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
@pytest.mark.parametrize(("stage", "clip"), [(0, 0.0), (0, 0.1), (1, 0.0), (2, 0.0), (3, 0.0)])
def test_muon_is_a_plain_muon(
    server: Server, batches: Batches, tmp_path: Path, ranks: int, stage: int, clip: float
) -> None:
    source, out = tmp_path / "batches.pt", tmp_path / "weights.pt"
    torch.save({"model": asdict(MODEL), "batches": batches}, source)
    result = server.run(ranks, str(SCRIPT), source, out, stage, "fp32", clip)
    assert result.code == 0, result.text
    found, expected = torch.load(out), plain_muon(batches, clip)
    worst = {name: float((found[name] - expected[name]).abs().max()) for name in expected}
    assert max(worst.values()) <= 1e-5, worst
