"""Rows of a step on other ranks: they stay, or the numbers that would fit are told."""

from __future__ import annotations

import pytest

from trainer.elastic import divisors, fit_shape, rows_per_step
from trainer.engine import BatchShape
from vnprep.errors import TrainingError


@pytest.mark.parametrize(
    ("wanted", "rows", "ranks", "chosen"),
    [
        (BatchShape(4, 1), 8, 2, BatchShape(4, 1)),  # nothing has changed
        (BatchShape(4, 1), 8, 1, BatchShape(4, 2)),
        (BatchShape(4, 1), 8, 4, BatchShape(2, 1)),  # no room for 4
        (BatchShape(4, 3), 8, 8, BatchShape(1, 1)),
        (BatchShape(4, 1), 12, 2, BatchShape(3, 2)),  # 4 does not divide 6, 3 does
        (BatchShape(8, 4), 7, 1, BatchShape(7, 1)),
    ],
)
def test_the_rows_of_a_step_stay(
    wanted: BatchShape, rows: int, ranks: int, chosen: BatchShape
) -> None:
    assert fit_shape(wanted, rows, ranks) == chosen
    assert rows_per_step(chosen, ranks) == rows


def test_every_number_of_ranks_that_divides_the_rows_can_continue() -> None:
    for rows in range(1, 49):
        for ranks in divisors(rows):
            for micro_batch in range(1, 9):
                shape = fit_shape(BatchShape(micro_batch, 1), rows, ranks)
                assert rows_per_step(shape, ranks) == rows
                assert shape.micro_batch <= micro_batch


def test_an_explicit_accumulation_stays() -> None:
    asked = BatchShape(4, 2)
    assert fit_shape(asked, 24, 2, accumulation_given=True) == BatchShape(6, 2)
    with pytest.raises(TrainingError, match=r"5 passes.*\n  remedy: leave it out, or give 1, 2, 3"):
        fit_shape(BatchShape(4, 5), 24, 2, accumulation_given=True)


def test_two_explicit_numbers_are_taken_as_they_are() -> None:
    asked = BatchShape(4, 2)
    given = {"micro_batch_given": True, "accumulation_given": True}
    assert fit_shape(asked, 24, 2, **given) == asked


def test_ranks_that_do_not_divide_the_rows_are_an_error_with_those_that_do() -> None:
    with pytest.raises(
        TrainingError, match=r"(?s)12 packed rows, which 5 ranks.*on 1, 2, 3, 4, 6 or"
    ):
        fit_shape(BatchShape(4, 1), 12, 5)
    with pytest.raises(TrainingError, match=r"continue on 1 or 7 ranks"):
        fit_shape(BatchShape(4, 1), 7, 2)
