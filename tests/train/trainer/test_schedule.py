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


def test_wsd_is_exact_at_its_borders() -> None:
    schedule = Schedule(0.3, 0.1, 4, 20, kind="wsd", decay_steps=4)
    values = rates(schedule)
    assert values[:4] == pytest.approx([0.075, 0.15, 0.225, 0.3])
    assert values[3:16] == [0.3] * 13
    # 1 - sqrt of the four quarters: half of the fall lies in the first.
    assert values[16:] == pytest.approx([0.165, 0.1090812, 0.0661731, 0.03], rel=1e-5)
    assert values[-1] == 0.3 * 0.1


def test_wsd_without_decay_and_constant_keep_the_peak() -> None:
    for kind in ("wsd", "constant"):
        assert rates(Schedule(0.3, 0.1, 2, 6, kind=kind))[1:] == [0.3] * 5


def test_wsd_of_decay_alone_falls_at_every_step() -> None:
    values = rates(Schedule(1.0, 0.0, 0, 5, kind="wsd", decay_steps=5))
    assert all(a > b for a, b in itertools.pairwise(values))
    assert values[-1] == 0.0


def test_a_run_of_wsd_is_that_of_a_shorter_one_until_the_decay() -> None:
    long = Schedule(1.0, 0.0, 3, 40, kind="wsd", decay_steps=8)
    short = Schedule(1.0, 0.0, 3, 20, kind="wsd", decay_steps=4)
    assert rates(long)[:16] == rates(short)[:16]
    assert rates(long)[-8::2] != rates(short)[-4:]


def test_linear_is_half_way_in_the_middle() -> None:
    assert rates(Schedule(2.0, 0.0, 0, 5, kind="linear")) == pytest.approx([2.0, 1.5, 1.0, 0.5, 0])


def test_a_decay_that_leaves_no_room_for_the_warmup_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"--decay: 15 steps of decay after 6 of warm-up"):
        Schedule(1.0, 0.1, 6, 20, kind="wsd", decay_steps=15)
