"""Every split of a step over ranks, micro-batches and ZeRO stages gives the one true gradient."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e

Gradients = dict[str, torch.Tensor]

SCRIPT = Path(__file__).with_name("whole_gradients.py")
MODEL = ModelConfig(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.2,
)
#: Supervised positions of each row; the third micro-batch has none.
SUPERVISED = [(31, 4), (1, 0), (0, 0), (17, 9)]
LENGTH = 32


def micro_batch(supervised: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Two packed rows of two documents each."""
    ids = torch.randint(4, 128, (2, LENGTH))
    labels = torch.randint(4, 128, (2, LENGTH))
    for row, count in enumerate(supervised):
        labels[row, torch.randperm(LENGTH)[count:]] = -100
    cut = 11
    position = torch.cat([torch.arange(cut), torch.arange(LENGTH - cut)])
    document = (torch.arange(LENGTH) >= cut).to(torch.int32)
    return {
        "input_ids": ids,
        "labels": labels,
        "position_ids": position.repeat(2, 1),
        "document_ids": document.repeat(2, 1),
    }


def plain_gradients(batches: list[dict[str, torch.Tensor]]) -> Gradients:
    """The gradient of sum(nll) / tokens over the whole step, in one pass, without DeepSpeed."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(MODEL)
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    (model(**whole) / (whole["labels"] >= 0).sum()).backward()
    found: Gradients = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad
    return found


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Gradients]:
    """A step's micro-batches in a file, and the gradient that they should give."""
    torch.manual_seed(1)
    batches = [micro_batch(supervised) for supervised in SUPERVISED]
    path = tmp_path_factory.mktemp("step") / "batches.pt"
    torch.save({"model": asdict(MODEL), "batches": batches}, path)
    return path, plain_gradients(batches)


def worst(found: Gradients, expected: Gradients) -> float:
    """Return the largest difference of any element."""
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def differences(
    server: Server, step: tuple[Path, Gradients], out: Path, ranks: int, weighing: str
) -> list[float]:
    """Return how far each ZeRO stage's gradient is from the plain one."""
    source, expected = step
    result = server.run(ranks, str(SCRIPT), source, out, weighing)
    assert result.code == 0, result.text
    stages: list[Any] = [torch.load(out / f"zero{stage}.pt") for stage in (0, 1, 2, 3)]
    return [worst(found, expected) for found in stages]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_gradient_is_that_of_the_whole_batch_by_tokens(
    server: Server, step: tuple[Path, Gradients], tmp_path: Path, ranks: int
) -> None:
    assert max(float(gradient.abs().max()) for gradient in step[1].values()) > 0.01
    assert max(differences(server, step, tmp_path, ranks, "tokens")) <= 1e-6


def test_means_of_micro_batches_are_told_apart(
    server: Server, step: tuple[Path, Gradients], tmp_path: Path
) -> None:
    assert min(differences(server, step, tmp_path, 2, "means")) > 1e-3
