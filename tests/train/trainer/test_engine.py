"""One update: the scheduled rate, the clipping, and gradients that are no numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainer import engine
from vnprep.errors import TrainingError


class SmallEngine:
    """What DeepSpeed's engine is at stage 0: a module, torch's optimizer, a step."""

    def __init__(self, gradient: list[float]) -> None:
        self.module = nn.Linear(len(gradient), 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.module.weight.grad = torch.tensor([gradient])
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=123.0)
        self.global_steps = 4

    def step(self) -> None:
        self.optimizer.step()
        self.global_steps += 1

    def was_step_applied(self) -> bool:
        return True

    @property
    def weights(self) -> list[float]:
        return self.module.weight.detach().flatten().tolist()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0.0, [-0.3, -0.4]), (10.0, [-0.3, -0.4]), (1.0, [-0.06, -0.08])],
)
def test_an_update_has_the_rate_and_the_limit_it_was_given(
    limit: float, expected: list[float]
) -> None:
    small = SmallEngine([3.0, 4.0])
    assert engine.update(small, 0.1, limit) == pytest.approx(5.0)
    assert small.weights == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_is_never_applied(bad: float) -> None:
    small = SmallEngine([1.0, bad])
    with pytest.raises(TrainingError, match="gradient of step 5 is not finite"):
        engine.update(small, 0.1, 1.0)
    assert small.weights == [0.0, 0.0]


def test_only_fp32_without_zero_is_clipped_by_the_loop() -> None:
    assert engine.clips_itself({"zero_optimization": {"stage": 0}})
    assert engine.clips_itself({})
    assert not engine.clips_itself({"zero_optimization": {"stage": 1}})
    assert not engine.clips_itself({"bf16": {"enabled": True}})
