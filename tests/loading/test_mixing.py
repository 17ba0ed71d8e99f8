"""Who serves item i: near the weights at every i, and the same from wherever one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnprep.errors import TrainingError
from vnprep.loading.mixing import Mixing

weights = st.lists(st.floats(0.001, 100), min_size=1, max_size=9)


@given(weights)
def test_counts_stay_near_the_weights_at_every_prefix(given_weights: list[float]) -> None:
    streams, _ = Mixing(given_weights).turns(0, 2_000)
    depth = math.ceil(math.log2(len(given_weights)))
    for stream, weight in enumerate(given_weights):
        share = weight / sum(given_weights)
        served = np.cumsum(streams == stream)
        assert np.abs(served - share * np.arange(1, 2_001)).max() <= depth / 2 + 1e-4


@given(weights)
def test_each_stream_counts_without_a_gap(given_weights: list[float]) -> None:
    streams, numbers = Mixing(given_weights).turns(0, 500)
    for stream in range(len(given_weights)):
        mine = numbers[streams == stream]
        assert mine.tolist() == list(range(len(mine)))


@given(weights, st.integers(0, 900), st.integers(1, 100))
def test_any_part_can_be_asked_for(given_weights: list[float], first: int, count: int) -> None:
    mixing = Mixing(given_weights)
    whole, part = np.array(mixing.turns(0, 1_000)), np.array(mixing.turns(first, count))
    assert (part == whole[:, first : first + count]).all()


def test_seven_to_three() -> None:
    streams, numbers = Mixing([0.7, 0.3]).turns(0, 10)
    assert streams.tolist() == [0, 1, 0, 0, 0, 1, 0, 0, 1, 0]
    assert numbers.tolist() == [0, 0, 1, 2, 3, 1, 4, 5, 2, 6]


def test_seven_of_any_ten() -> None:
    streams, _ = Mixing([0.7, 0.3]).turns(0, 1_000)
    assert set(np.convolve(streams == 0, np.ones(10, dtype=int), "valid").tolist()) == {7}


def test_far_out_the_counts_are_exact() -> None:
    first = 10**18
    streams, numbers = Mixing([7, 3]).turns(first, 10)
    assert (streams == 0).sum() == 7
    assert numbers[streams == 0].tolist() == list(range(7 * 10**17, 7 * 10**17 + 7))
    assert numbers[streams == 1].tolist() == list(range(3 * 10**17, 3 * 10**17 + 3))


@pytest.mark.parametrize("bad", [[], [0.0, 1.0], [-1.0, 2.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_what_is_no_weight_is_refused(bad: list[float]) -> None:
    with pytest.raises(TrainingError, match="a weight above 0"):
        Mixing(bad)


def test_a_weight_that_is_nothing_beside_the_others_is_refused() -> None:
    with pytest.raises(TrainingError, match="nothing beside"):
        Mixing([1e-12, 1.0])
