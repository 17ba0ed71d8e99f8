"""One optimizer step on one rank; on several, under DeepSpeed: ``tests/e2e/test_guard.py``."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.distributed import World
from trainer.feed import StepData
from trainer.guard import Guard
from trainer.step import OptimizerStep, Outcome

ALONE = World(0, 1, 0, torch.device("cpu"), None)


class SmallEngine:
    """What DeepSpeed's engine is at stage 0: a module, torch's optimizer, a step.

    The loss of a batch is its ``x`` times the weights, so the gradient is known.
    """

    def __init__(self, width: int) -> None:
        self.module = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.optimizer = self.basic_optimizer = torch.optim.SGD(self.module.parameters(), lr=123.0)
        self._backwards = 0

    def __call__(self, x: Tensor, offset: float) -> Tensor:
        return self.module(x).sum() + offset

    def backward(self, loss: Tensor, *, scale_wrt_gas: bool) -> None:
        assert scale_wrt_gas is False
        loss.backward()
        self._backwards += 1

    def step(self) -> None:
        if self._backwards == 2:
            self.optimizer.step()
            self.module.zero_grad()
            self._backwards = 0

    @property
    def weights(self) -> list[float]:
        weights: list[float] = self.module.weight.detach().flatten().tolist()
        return weights


def do_step(
    small: SmallEngine, clip: float, gradient: list[float], offset: float = 0.0, **changes: Any
) -> Outcome:
    """Do a step of two micro-batches and 4 tokens; they give half the gradient each."""
    batches: list[Any] = [{"x": torch.tensor([gradient]) * 2, "offset": offset}] * 2
    batches[1] = dict(batches[0])
    data = StepData(batches, [0, 1], tokens=8, supervised=4)
    step = OptimizerStep(small, ALONE, changes.get("guard") or Guard(0, clip, {}), clip)
    return step.run(data, 0.1, asked=lambda: changes.get("asked", False), waited=0.25)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0.0, [-0.3, -0.4]), (10.0, [-0.3, -0.4]), (1.0, [-0.06, -0.08])],
)
def test_an_update_has_the_rate_and_the_limit_it_was_given(
    limit: float, expected: list[float]
) -> None:
    small = SmallEngine(2)
    outcome = do_step(small, limit, [3.0, 4.0], offset=5.0)
    assert outcome.grad_norm == pytest.approx(5.0)
    assert (outcome.loss, outcome.skipped, outcome.stop, outcome.waited) == (2.5, None, False, 0.25)
    assert small.weights == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("gradient", "offset", "reason"),
    [
        ([1.0, math.nan], 0.0, "loss"),
        ([1.0, 2.0], math.inf, "loss"),
        ([1e38, 1e38], 0.0, "grad_norm"),
    ],
)
def test_what_is_no_number_is_never_applied(
    gradient: list[float], offset: float, reason: str
) -> None:
    small = SmallEngine(2)
    assert do_step(small, 1.0, gradient, offset).skipped == reason
    assert small.weights == [0.0, 0.0]
    # And nothing of it is left for the next step.
    assert do_step(small, 1.0, [3.0, 4.0]).skipped is None
    assert small.weights == pytest.approx([-0.06, -0.08], rel=1e-5)


def test_a_spike_is_never_applied() -> None:
    small, guard = SmallEngine(1), Guard(10, 1.0, {"norms": [0.1] * 50})
    outcome = do_step(small, 1.0, [2.0], guard=guard)
    assert (outcome.skipped, outcome.grad_norm, small.weights) == ("spike", 2.0, [0.0])
    assert guard.in_a_row == 1


def test_the_wish_to_stop_is_told() -> None:
    assert do_step(SmallEngine(1), 1.0, [1.0], asked=True).stop
