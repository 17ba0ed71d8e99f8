"""The order of samples: a permutation, the same for ever, at once, and well shuffled."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnprep.loading.order import SORTED_UP_TO, Order, scrambled

LARGE = SORTED_UP_TO + 1


@given(st.integers(1, 3_000), st.integers(0, 2**64 - 1), st.integers(0, 2**63))
def test_every_number_once(size: int, seed: int, epoch: int) -> None:
    assert sorted(scrambled(np.arange(size), size, seed, epoch)) == list(range(size))
    assert sorted(Order(size, seed).at(epoch, np.arange(size))) == list(range(size))


def test_every_number_once_where_the_sort_ends() -> None:
    for size in (SORTED_UP_TO, LARGE):
        images = Order(size, 3).at(1, np.arange(size))
        assert (np.bincount(images, minlength=size) == 1).all()


def test_places_may_be_asked_for_in_any_number_and_order() -> None:
    for size in (1_000, LARGE):
        order = Order(size, 9)
        whole = order.at(4, np.arange(size))
        places = np.random.default_rng(0).integers(0, size, 200)
        for epoch in (5, 6, 7, 4):  # the sorted orders of some other epochs come in between
            part = order.at(epoch, places)
        assert (part == whole[places]).all()


def test_the_orders_are_pinned() -> None:
    """A run that was begun with one version is resumed with the next: the orders must stay."""
    assert Order(8, 7).at(0, np.arange(8)).tolist() == [4, 1, 6, 3, 2, 7, 5, 0]
    images = scrambled(np.arange(4), 10**9, 7, 0)
    assert images.tolist() == [421447301, 810367404, 363710990, 62557665]


def test_hundreds_of_millions_of_samples_are_no_more_work_than_one_step() -> None:
    order = Order(300_000_000, 1)
    places = np.arange(10**8, 10**8 + 512)
    order.at(0, places)
    started = time.perf_counter()
    images = order.at(10**9, places)
    assert time.perf_counter() - started < 0.1  # a hundred times what it takes; a sort takes 60 s
    assert len(set(images.tolist())) == 512 and images.min() >= 0 and images.max() < 300_000_000


def test_without_shuffling_places_are_samples() -> None:
    assert Order(LARGE, 1, shuffle=False).at(3, np.array([5, LARGE - 1])).tolist() == [5, LARGE - 1]


def chi_square(counts: np.ndarray) -> float:
    """Return how many standard deviations χ² lies above its mean, by Wilson and Hilferty."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    statistic = float(((counts - expected) ** 2).sum() / expected)
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5


@pytest.mark.parametrize("size", [1_000, 1_024, 1_025, 65_537])
def test_the_scramble_passes_the_tests_of_a_shuffle(size: int) -> None:
    """Each statistic is that of a uniform order within five standard deviations."""
    orders = np.array([scrambled(np.arange(size), size, 11, epoch) for epoch in range(200)])
    parts = 16
    # Where the samples of one part of the data go: an even spread, at every place.
    place_part = np.arange(size) * parts // size
    spread = np.zeros((parts, parts))
    np.add.at(spread, (np.tile(place_part, len(orders)), (orders * parts // size).ravel()), 1)
    assert abs(chi_square(spread)) < 5
    # First places over the epochs, neighbours' differences, ascents and fixed points.
    assert abs(chi_square(np.bincount(orders[:, 0] * parts // size, minlength=parts))) < 5
    distances = np.diff(orders, axis=1) % size
    bins = np.bincount((distances * parts // size).ravel(), minlength=parts)
    assert abs(chi_square(bins)) < 5
    ascents = (np.diff(orders, axis=1) > 0).sum(axis=1)
    assert abs(ascents.mean() - (size - 1) / 2) < 5 * (size / 12 / len(orders)) ** 0.5
    fixed = (orders == np.arange(size)).sum()
    assert abs(fixed - len(orders)) < 5 * len(orders) ** 0.5


def test_epochs_and_seeds_next_to_each_other_have_nothing_in_common() -> None:
    size = 10_000
    places = np.arange(size)
    base = scrambled(places, size, 5, 0)
    for seed, epoch in ((5, 1), (6, 0), (6, 1), (5 + 2**32, 0), (5, 2**32)):
        other = scrambled(places, size, seed, epoch)
        assert (other == base).sum() < 10  # one on average
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / size**0.5
