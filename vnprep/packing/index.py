"""Which windows of which stored rows make up a sample: arrays that are made from lengths alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from vnprep.packing.bins import best_fit_decreasing, windows

Ids = NDArray[np.int64]
Numbers = NDArray[np.signedinteger]


@dataclass(frozen=True)
class PackIndex:
    """Samples and the windows in them: sample ``s`` has windows ``offsets[s]:offsets[s + 1]``.

    Attributes:
        seq_len: the most positions of a sample.
        offsets: [samples + 1].
        row: the stored row that a window is cut from, [windows].
        start: its first position in that row, [windows].
        length: its positions, at least 1, [windows].
    """

    seq_len: int
    offsets: Ids
    row: Numbers
    start: NDArray[np.int32]
    length: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        """Positions over all windows."""
        return int(self.length.sum(dtype=np.int64))

    @property
    def fill(self) -> float:
        """The part of all positions of all samples that holds a token."""
        return self.tokens / max(len(self) * self.seq_len, 1)

    @classmethod
    def pack(cls, lengths: ArrayLike, seq_len: int) -> PackIndex:
        """Put rows, longer ones cut into windows, side by side into as few samples as can be.

        Args:
            lengths: positions of every row, [rows].
            seq_len: positions of a packed row, at least 1.
        """
        cut = windows(lengths, seq_len)
        bins = best_fit_decreasing(cut.length, seq_len)
        order = bins.order
        return cls._of(seq_len, bins.offsets, cut.row[order], cut.start[order], cut.length[order])

    @classmethod
    def alone(cls, lengths: ArrayLike, seq_len: int) -> PackIndex:
        """Make a sample of every row, or of every window of a longer one; as ``pack``."""
        cut = windows(lengths, seq_len)
        return cls._of(seq_len, np.arange(len(cut) + 1), cut.row, cut.start, cut.length)

    @classmethod
    def _of(cls, seq_len: int, offsets: Ids, row: Ids, start: Ids, length: Ids) -> PackIndex:
        rows = int(row.max(initial=0))
        kind = np.int32 if rows <= np.iinfo(np.int32).max else np.int64
        # An Arrow list in a shard ends before 2³¹, so no start or length needs more.
        return cls(
            seq_len, offsets, row.astype(kind), start.astype(np.int32), length.astype(np.int32)
        )

    def problem(self, lengths: Ids) -> str | None:
        """Say what is wrong with an index over rows of some lengths, or return None.

        It is right if the windows are those that ``windows`` cuts, each there once, and no sample
        is longer than ``seq_len``.
        """
        cut = windows(lengths, self.seq_len)
        if len(cut) != len(self.row) or int(self.offsets[-1]) != len(cut):
            return f"{len(self.row):,} windows, the rows give {len(cut):,}"
        order = np.lexsort((self.start, self.row))
        parts = ((self.row, cut.row), (self.start, cut.start), (self.length, cut.length))
        if not all(np.array_equal(ours[order], theirs) for ours, theirs in parts):
            return "its windows are not those of the rows"
        if (np.diff(self.offsets) < 1).any():
            return "an empty packed row"
        sizes = np.add.reduceat(self.length, self.offsets[:-1]) if len(self) else np.zeros(1)
        return f"a packed row of {sizes.max():,} positions" if sizes.max() > self.seq_len else None

    def to_batch(self) -> pa.RecordBatch:
        """Return the index as Arrow: a row a sample, a large list of (row, start, length)."""
        fields = [pa.array(values) for values in (self.row, self.start, self.length)]
        names = ("row", "start", "length")
        kinds = [
            pa.field(name, field.type, nullable=False)
            for name, field in zip(names, fields, strict=True)
        ]
        structs = pa.StructArray.from_arrays(fields, fields=kinds)
        item = pa.field("item", structs.type, nullable=False)
        lists = pa.LargeListArray.from_arrays(
            pa.array(self.offsets), structs, type=pa.large_list(item)
        )
        schema = pa.schema([pa.field("windows", lists.type, nullable=False)])
        return pa.RecordBatch.from_arrays([lists], schema=schema)

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch, seq_len: int) -> PackIndex:
        """Read what ``to_batch`` made, without a copy.

        Raises:
            KeyError, TypeError, AttributeError: it is something else.
        """
        lists = batch.column("windows")
        row, start, length = (lists.values.field(name) for name in ("row", "start", "length"))
        return cls(
            seq_len,
            lists.offsets.to_numpy(),
            row.to_numpy(),
            start.to_numpy(),
            length.to_numpy(),
        )
