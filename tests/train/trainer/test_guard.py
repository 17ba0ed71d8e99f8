"""Which steps are refused, and that a refused one changes nothing."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch

from trainer.guard import LEAST, WINDOW, Guard, stand_before


def warm(factor: float = 10.0, clip: float = 1.0, norm: float = 0.5) -> Guard:
    """Return a guard that has seen enough good steps."""
    guard = Guard(factor, clip, {})
    for _ in range(LEAST):
        assert guard.judge(2.0, norm) is None
    return guard


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_from_the_first_step_on(bad: float) -> None:
    guard = Guard(0.0, 1.0, {})
    assert guard.judge(bad, 1.0) == "loss"
    assert guard.judge(2.0, bad) == "grad_norm"
    assert guard.judge(bad, None) == "loss"
    assert (guard.skipped, guard.in_a_row) == (3, 3)
    assert guard.judge(2.0, 1.0) is None
    assert (guard.skipped, guard.in_a_row) == (3, 0)


def test_a_spike_is_beyond_the_factor_times_the_median() -> None:
    assert warm().judge(2.0, 4.99) is None
    assert warm().judge(2.0, 5.01) == "spike"
    assert warm(factor=0).judge(2.0, 1e9) is None


def test_there_is_no_spike_before_enough_good_norms() -> None:
    guard = Guard(10.0, 1.0, {})
    for _ in range(LEAST - 1):
        guard.judge(2.0, 0.5)
    assert guard.judge(2.0, 1e6) is None
    # It is not called one, but as a single norm it does not move the median either.
    assert guard.judge(2.0, 1e6) == "spike"


def test_a_norm_within_the_clip_is_no_spike() -> None:
    """At a loss of nearly 0 one hard example is a hundred times the others."""
    assert warm(norm=0.001).judge(0.01, 0.99) is None
    assert warm(norm=0.001).judge(0.01, 1.01) == "spike"
    assert warm(norm=0.001, clip=0).judge(0.01, 0.99) == "spike"


def test_a_refused_norm_is_not_learnt_from() -> None:
    guard = warm()
    for _ in range(WINDOW):
        assert guard.judge(2.0, 50.0) == "spike"
    assert guard.in_a_row == WINDOW
    assert guard.judge(2.0, 0.5) is None


def test_a_slow_change_is_no_spike() -> None:
    """Norms that fall or rise a thousandfold over a run, with noise."""
    rng = random.Random(0)
    for direction in (-1, 1):
        guard = Guard(10.0, 1e-9, {})
        for step in range(2000):
            norm = 10 ** (direction * 3 * step / 2000) * rng.lognormvariate(0, 0.4)
            assert guard.judge(2.0, norm) is None


def test_the_state_survives_json_and_judges_alike() -> None:
    rng = random.Random(1)
    norms = [rng.lognormvariate(0, 1.2) for _ in range(400)]
    whole, parted = Guard(4.0, 0.1, {}), Guard(4.0, 0.1, {})
    verdicts = [whole.judge(1.0, norm) for norm in norms]
    assert 5 < sum(verdict is not None for verdict in verdicts) < 100
    for norm, expected in zip(norms, verdicts, strict=True):
        parted = Guard(4.0, 0.1, json.loads(json.dumps(parted.state)))
        assert parted.judge(1.0, norm) == expected
    assert parted.state == whole.state


def test_a_refused_step_leaves_weights_and_moments() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    refused = False
    stand_before([optimizer], lambda: refused)

    def step(gradient: float) -> list[torch.Tensor]:
        weight.grad = torch.full((3,), gradient)
        optimizer.step()
        state = optimizer.state[weight]
        return [weight.detach().clone(), *(state[name].clone() for name in sorted(state))]

    first = step(1.0)
    refused = True
    for gradient in (1e9, math.nan):
        assert all(map(torch.equal, step(gradient), first))
    refused = False
    assert not any(map(torch.equal, step(1.0), first))
