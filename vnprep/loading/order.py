"""Which sample stands at a place of an epoch: a function of (seed, epoch, place), without state.

Up to ``SORTED_UP_TO`` samples the order is that of as many random words: every order is equally
likely, and a hundred milliseconds an epoch pay for it. For more, ``scrambled`` computes a
permutation for just the places that are asked for, so any step of any epoch is there at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Words = NDArray[np.uint64]

#: The most samples whose order is sorted. Runs continue what earlier versions began: it must stay.
SORTED_UP_TO = 1 << 20

_ROUNDS = 8
_KEPT_EPOCHS = 2  # a step at a border sees two of them


class Order:
    """The orders of some samples, one an epoch.

    Args:
        size: samples, at least 1.
        seed: 0 to 2⁶⁴ − 1.
        shuffle: if not, every epoch has the samples in the order of their numbers.
    """

    def __init__(self, size: int, seed: int, *, shuffle: bool = True) -> None:
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self._sorted: dict[int, Ids] = {}

    def at(self, epoch: int, places: Ids) -> Ids:
        """Return the samples at some places of an epoch.

        Args:
            epoch: from 0 on.
            places: 0 to ``size`` − 1, each, [any].
        """
        if not self.shuffle:
            return places
        if self.size > SORTED_UP_TO:
            return scrambled(places, self.size, self.seed, epoch)
        if epoch not in self._sorted:
            while len(self._sorted) >= _KEPT_EPOCHS:
                del self._sorted[next(iter(self._sorted))]
            # Sorting raw words, not Generator.permutation: NumPy keeps a bit generator's stream
            # for ever, a Generator's methods it may change, and a resumed run must see the same.
            self._sorted[epoch] = np.argsort(_words(self.seed, epoch, self.size), kind="stable")
        return self._sorted[epoch][places]


def scrambled(places: Ids, size: int, seed: int, epoch: int) -> Ids:
    """Return the images of some places under a permutation of 0 … ``size`` − 1.

    A Feistel network permutes the numbers of the next power of two; an image that is too large is
    permuted again until it is not ("cycle walking": Black and Rogaway, Ciphers with Arbitrary
    Finite Domains, 2002), twice on average at most. Made for large sizes, where it passes the
    statistical tests that a shuffle passes; below some hundred samples a sort is the better one.

    Args:
        places: 0 to ``size`` − 1, each, [any].
        size: 1 to 2⁶².
        seed: 0 to 2⁶⁴ − 1.
        epoch: another one gives another permutation.
    """
    bits = max(2, (size - 1).bit_length())
    keys = _words(seed, epoch, _ROUNDS)
    images = _feistel(places.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(images >= size)
    while len(outside):
        again = _feistel(images[outside], bits, keys)
        images[outside] = again
        outside = outside[again >= size]
    return images.astype(np.int64)


def _words(seed: int, epoch: int, count: int) -> Words:
    """Return the first words of the Philox stream of a seed and an epoch."""
    return np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(count)


def _feistel(values: Words, bits: int, keys: Words) -> Words:
    """Permute the numbers below 2^``bits``: each half in turn is XORed with a hash of the other."""
    low_bits = np.uint64(bits // 2)
    high_bits = np.uint64(bits) - low_bits
    low = values & ((np.uint64(1) << low_bits) - np.uint64(1))
    high = values >> low_bits
    for number in range(0, len(keys), 2):
        low ^= _mixed(high, keys[number]) >> (np.uint64(64) - low_bits)
        high ^= _mixed(low, keys[number + 1]) >> (np.uint64(64) - high_bits)
    return (high << low_bits) | low


def _mixed(values: Words, key: np.uint64) -> Words:
    """Return a 64-bit hash of each value: the finaliser of SplitMix64 (Steele et al., 2014)."""
    words = values ^ key
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
