"""Windows and bins on small cases worked out by hand, and the fill on lengths as corpora have."""

from __future__ import annotations

import time

import numpy as np
import pytest

from vnprep.packing.bins import best_fit_decreasing, windows


def contents(lengths: list[int], capacity: int) -> list[list[int]]:
    bins = best_fit_decreasing(lengths, capacity)
    return [bins[number].tolist() for number in range(len(bins))]


def test_windows_cut_long_rows_and_keep_the_rest_of_them() -> None:
    cut = windows([5, 0, 8, 3], 4)
    assert cut.row.tolist() == [0, 0, 2, 2, 3]
    assert cut.start.tolist() == [0, 4, 0, 4, 0]
    assert cut.length.tolist() == [4, 1, 4, 4, 3]


def test_no_rows_no_windows_no_bins() -> None:
    assert len(windows([], 4)) == 0
    assert contents([], 4) == []


def test_the_fullest_bin_with_room_is_taken() -> None:
    # 7 and 5 open bins with 1 and 3 left; 3 fills the second, 1 the first, though both would hold
    # it; 4 opens a third, which takes 2.
    assert contents([5, 3, 4, 2, 1, 7], 8) == [[5, 4], [0, 1], [2, 3]]


def test_equal_lengths_go_by_number_and_equal_bins_by_age() -> None:
    assert contents([3, 3, 3, 3, 1, 1, 1], 4) == [[0, 4], [1, 5], [2, 6], [3]]
    # The first bin has had 2 left since the 8, the second only since the 3.
    assert contents([8, 5, 3, 2], 10) == [[0, 3], [1, 2]]


def test_several_items_of_one_length_share_a_bin() -> None:
    assert contents([2] * 7, 6) == [[0, 1, 2], [3, 4, 5], [6]]


def test_items_fewer_than_a_bin_takes() -> None:
    # Two bins with 6 left; three twos go into the first of them, the fourth into the second.
    assert contents([4, 4, 2, 2, 2, 2], 10) == [[0, 1, 2], [3, 4, 5]]
    assert contents([6, 6, 2, 2, 2], 10) == [[0, 2, 3], [1, 4]]


@pytest.mark.parametrize("lengths", [[0], [9], [3, -1]])
def test_a_length_that_fits_no_bin_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"1\.\.8"):
        best_fit_decreasing(lengths, 8)


def test_windows_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="seq_len 0"):
        windows([1], 0)
    with pytest.raises(ValueError, match="negative"):
        windows([-1], 4)


def test_a_bin_that_is_not_there() -> None:
    bins = best_fit_decreasing([1], 8)
    for number in (-1, 1):
        with pytest.raises(IndexError):
            bins[number]


@pytest.mark.parametrize("capacity", [512, 2048, 8192])
def test_rows_of_realistic_lengths_fill_their_bins(capacity: int) -> None:
    random = np.random.default_rng(0)
    rows = np.maximum(random.lognormal(5, 1, 200_000), 2).astype(np.int64)
    lengths = windows(rows, capacity).length
    started = time.perf_counter()
    bins = best_fit_decreasing(lengths, capacity)
    seconds = time.perf_counter() - started
    sizes = np.add.reduceat(lengths[bins.order], bins.offsets[:-1])
    assert (np.sort(bins.order) == np.arange(len(lengths))).all()
    assert sizes.max() <= capacity
    assert int(rows.sum()) / (len(bins) * capacity) >= 0.999
    assert seconds < 4  # hundreds of times what it takes; a quadratic search would take longer
