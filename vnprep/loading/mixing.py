"""Which of several streams serves item i: a function of the weights and i, without state.

The streams are the leaves of a balanced binary tree. A node that has had i items has sent
round(i · p / q) of them to its left, p / q being the left streams' share of its weight: so half an
item at most is too much or too little there, at every i. A stream's count differs from its share by
at most half the depth of the tree: ½ for two streams, 1 for three or four, 1½ for up to eight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vnprep.errors import TrainingError

Ids = NDArray[np.int64]

#: Weights count to nine places of their share, and are whole numbers from there on.
_WHOLE = 10**9


class Mixing:
    """A fixed way to take turns.

    Args:
        weights: of each stream, above 0; they need not add up to 1.

    Raises:
        TrainingError: a weight is no positive number, or is too small beside the others.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        total = float(sum(weights))
        if not weights or not np.isfinite(total) or min(weights) <= 0:
            raise TrainingError(
                f"weights {', '.join(map(str, weights)) or '(none)'}",
                place="the mixture",
                remedy="give each data set a weight above 0",
            )
        self._whole = [round(weight / total * _WHOLE) for weight in weights]
        if not all(self._whole):
            raise TrainingError(
                f"a weight of {min(weights)} is nothing beside {max(weights)}",
                place="the mixture",
                remedy=f"give weights of at least 1 in {_WHOLE:,}",
            )

    @property
    def shares(self) -> list[float]:
        """Each stream's part of all items."""
        return [whole / sum(self._whole) for whole in self._whole]

    def turns(self, first: int, count: int) -> tuple[Ids, Ids]:
        """Return which stream serves each of ``count`` items, and the item's number in that stream.

        Args:
            first: from 0 on, however large.
            count: 1 to some millions.

        Returns:
            Stream numbers and, in each stream, 0, 1, 2, … without a gap; both [count].
        """
        streams, numbers = np.empty((2, count), dtype=np.int64)
        self._split(first, np.arange(count), 0, len(self._whole), streams, numbers)
        return streams, numbers

    def _split(
        self, first: int, places: Ids, start: int, end: int, streams: Ids, numbers: Ids
    ) -> None:
        """Fill in the places that streams ``start`` … ``end − 1`` serve.

        Args:
            first: items that these streams have served before.
            places: where to write, [items].
        """
        if end - start == 1:
            streams[places] = start
            numbers[places] = np.arange(first, first + len(places))
            return
        middle = (start + end) // 2
        part, whole = sum(self._whole[start:middle]), sum(self._whole[start:end])
        # round(i · part / whole) for i from first on; Python's integers take what is large.
        before, rest = divmod(2 * first * part + whole, 2 * whole)
        sent = (rest + 2 * part * np.arange(len(places) + 1)) // (2 * whole)
        left = np.diff(sent) == 1
        self._split(before, places[left], start, middle, streams, numbers)
        self._split(first - before, places[~left], middle, end, streams, numbers)
