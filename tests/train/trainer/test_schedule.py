"""The learning rate: its corners, its shape, and how a warm-up is read."""

from __future__ import annotations

import itertools

import pytest

from trainer.schedule import Schedule, Warmup
from vnprep.errors import TrainingError


def rates(schedule: Schedule) -> list[float]:
    return [schedule.rate(step) for step in range(schedule.total_steps)]


def test_the_corners_are_exact() -> None:
    schedule = Schedule(1.0, 0.1, warmup_steps=4, total_steps=20)
    values = rates(schedule)
    assert values[:4] == [0.25, 0.5, 0.75, 1.0]
    assert values[4] == 1.0
    assert values[-1] == pytest.approx(0.1, abs=1e-15)


def test_it_falls_after_the_warmup_and_is_half_way_in_the_middle() -> None:
    schedule = Schedule(2.0, 0.0, warmup_steps=0, total_steps=11)
    values = rates(schedule)
    assert all(a > b for a, b in itertools.pairwise(values))
    assert values[5] == pytest.approx(1.0)
    # A cosine, not a line: slow at both ends.
    assert values[1] > 1.9


def test_a_step_beyond_the_end_keeps_the_lowest_rate() -> None:
    assert Schedule(1.0, 0.2, 0, 5).rate(50) == pytest.approx(0.2)


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0, 1])
def test_short_runs_never_divide_by_zero(total: int, warmup: int) -> None:
    values = rates(Schedule(1.0, 0.1, warmup, total))
    assert all(0 < value <= 1.0 for value in values)


@pytest.mark.parametrize(
    ("text", "total", "steps"),
    [("100", 1000, 100), ("0", 10, 0), ("5%", 1000, 50), ("0.05", 1000, 50), ("0.1", 300, 30)],
)
def test_a_warmup_is_steps_or_a_share(text: str, total: int, steps: int) -> None:
    assert Warmup.parse(text).steps(total) == steps


@pytest.mark.parametrize("text", ["-1", "1.5", "100%", "-5%", "abc", ""])
def test_a_warmup_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Warmup.parse(text)


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"--warmup: 30 steps of warm-up in a run of 20"):
        Schedule(1.0, 0.1, 30, 20)
