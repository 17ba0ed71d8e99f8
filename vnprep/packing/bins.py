"""Lengths → windows → bins: an index over stored examples, made again for any length in seconds.

Packing looks at lengths alone. ``windows`` cuts what is longer than the model's context,
``best_fit_decreasing`` puts the pieces into as few packed rows as it can; neither touches a token.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Pieces of rows, none longer than the context; in row order, then by start.

    Attributes:
        row: the row that a window is cut from, [windows].
        start: its first position in that row, [windows].
        length: its positions, at least 1, [windows].
    """

    row: Ids
    start: Ids
    length: Ids

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Bins:
    """Items grouped into bins: bin ``b`` holds ``order[offsets[b]:offsets[b + 1]]``.

    Attributes:
        order: every item number once, [items].
        offsets: where each bin starts in ``order``, and the end of the last, [bins + 1].
    """

    order: Ids
    offsets: Ids

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> Ids:
        """Return the items of one bin, 0 ≤ ``number`` < ``len(self)``."""
        if not 0 <= number < len(self):
            raise IndexError(f"bin {number} of {len(self)}")
        return self.order[self.offsets[number] : self.offsets[number + 1]]


def windows(lengths: ArrayLike, seq_len: int) -> Windows:
    """Cut every row into consecutive windows of ``seq_len`` positions; the last may be shorter.

    A stored row carries its own targets, the last of a window being the first token of the next
    one, so no supervised position is lost at a cut. A row without positions gives no window.

    Args:
        lengths: positions of every row, [rows].
        seq_len: positions of a window, at least 1.

    Raises:
        ValueError: ``seq_len`` is below 1, or a length is negative.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if seq_len < 1 or (sizes < 0).any():
        raise ValueError(f"seq_len {seq_len} must be positive and no length negative")
    pieces = -(-sizes // seq_len)
    row = np.repeat(np.arange(len(sizes)), pieces)
    first = np.cumsum(pieces) - pieces
    start = (np.arange(len(row)) - np.repeat(first, pieces)) * seq_len
    return Windows(row, start, np.minimum(sizes[row] - start, seq_len))


def best_fit_decreasing(lengths: ArrayLike, capacity: int) -> Bins:
    """Pack items into bins, longest first, each into the fullest bin that still has room for it.

    Equal lengths go in the order of their numbers; of equally full bins the one that has been so
    full for longest is taken; bins are numbered as they are opened. So the result is a function of
    the lengths alone. A bin lists its items longest first.

    Items of one length and bins with the same room are placed together, in one vector step: the
    cost is that of a sort and of one small step for each (length, room) pair that meets.

    Args:
        lengths: sizes of the items, 1 to ``capacity``, [items].
        capacity: size of a bin.

    Raises:
        ValueError: a length is below 1 or above ``capacity``.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and not 1 <= int(sizes.min()) <= int(sizes.max()) <= capacity:
        raise ValueError(f"lengths must lie in 1..{capacity}")
    key = (capacity - sizes).astype(np.min_scalar_type(capacity))  # small types sort by radix
    by_length = np.argsort(key, kind="stable")
    counts = np.bincount(sizes)
    open_bins = _OpenBins(capacity, len(sizes))
    for length in np.flatnonzero(counts)[::-1].tolist():
        open_bins.place(length, int(counts[length]))
    order = np.argsort(open_bins.bin_of, kind="stable")
    filled = np.bincount(open_bins.bin_of, minlength=open_bins.count)
    return Bins(by_length[order], np.concatenate(([0], np.cumsum(filled, dtype=np.int64))))


class _OpenBins:
    """Bins by the room that they have left.

    Attributes:
        bin_of: the bin of each item, in the order in which they were placed, [items].
        count: bins opened.
    """

    def __init__(self, capacity: int, items: int) -> None:
        self.bin_of = np.empty(items, dtype=np.int64)
        self.count = 0
        self._capacity = capacity
        self._placed = 0
        self._rooms: list[int] = []  # ascending; each has bins
        self._bins: dict[int, list[Ids]] = {}  # room → its bins, those with it for longest first

    def place(self, length: int, items: int) -> None:
        """Place the next ``items`` items, all of one length."""
        while items:
            at = bisect_left(self._rooms, length)
            if at == len(self._rooms):
                self._open(-(-items // (self._capacity // length)))
                continue
            room = self._rooms.pop(at)
            parts = self._bins.pop(room)
            bins = parts[0] if len(parts) == 1 else np.concatenate(parts)
            # A bin that takes one item is then the fullest that has room for the next one.
            each = room // length
            full = min(len(bins), items // each)
            self._assign(np.repeat(bins[:full], each) if each > 1 else bins[:full])
            self._keep(room - each * length, bins[:full])
            items -= full * each
            if full < len(bins) and items:  # fewer items than one bin takes
                last = bins[full : full + 1]
                self._assign(np.repeat(last, items))
                self._keep(room - items * length, last)
                full, items = full + 1, 0
            self._keep(room, bins[full:])

    def _open(self, bins: int) -> None:
        self._keep(self._capacity, np.arange(self.count, self.count + bins))
        self.count += bins

    def _assign(self, bins: Ids) -> None:
        self.bin_of[self._placed : self._placed + len(bins)] = bins
        self._placed += len(bins)

    def _keep(self, room: int, bins: Ids) -> None:
        """File bins under their room; full ones are done with."""
        if not room or not len(bins):
            return
        if room in self._bins:
            self._bins[room].append(bins)
        else:
            self._bins[room] = [bins]
            self._rooms.insert(bisect_left(self._rooms, room), room)
