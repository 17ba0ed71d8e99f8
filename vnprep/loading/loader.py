"""What training reads: the rows of a data folder, packed or padded, step by step.

``steps`` beside this says what all loaders have in common; ``mixture`` mixes several folders.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vnprep.loading.collate import IGNORED, Batch
from vnprep.loading.samples import EMPTY, Samples
from vnprep.loading.steps import Loader, LoaderState, StepCounts, check_range
from vnprep.packing.file import check_rows, find_pack, pack_shards
from vnprep.packing.index import PackIndex
from vnprep.shards.read import ShardSet

__all__ = [
    "EMPTY",
    "IGNORED",
    "Batch",
    "Loader",
    "LoaderState",
    "PackedLoader",
    "PaddedLoader",
    "StepCounts",
]

#: What the rows of a padded batch are filled up to.
PadTo = Literal["longest", "seq_len"]


class PackedLoader(Loader):
    """The packed rows of a data folder, by its index for this length or packed here in memory.

    Both give the same rows: the index, made by ``vnprep pack``, saves the time.

    Args:
        shards: the data.
        seq_len: positions of a packed row.
        micro_batch: packed rows of one micro-batch of one rank.
        accumulation: micro-batches of an optimizer step.
        rank: this process, 0 ≤ ``rank`` < ``world``.
        world: processes that train together.
        seed: 0 to 2⁶⁴ − 1; decides the order.
        shuffle: whether each epoch has an order of its own; if not, all have that of the index.

    Attributes:
        indexed: whether the data folder held an index for this length.
        fill: the part of all packed positions that holds a token.

    Raises:
        TrainingError: there is nothing to train on, an option is out of range, or fine-tuning
            rows are longer than ``seq_len`` (an answer is never cut here).
        ShardError: the index is damaged.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        seq_len: int,
        micro_batch: int,
        accumulation: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        index, self.indexed = packed(shards, seq_len)
        self.fill = index.fill
        super().__init__(
            Samples([(shards, index)]),
            seq_len=seq_len,
            micro_batch=micro_batch,
            accumulation=accumulation,
            rank=rank,
            world=world,
            seed=seed,
            shuffle=shuffle,
        )

    @property
    def packed_rows(self) -> int:
        """Packed rows of an epoch."""
        return len(self._samples)


class PaddedLoader(Loader):
    """One example a row, padded: for models that know an ``attention_mask`` and no packing.

    A pretraining row longer than ``seq_len`` gives several samples; samples are numbered in the
    order of the rows.

    Args:
        shards, micro_batch, accumulation, rank, world, seed, shuffle: as for ``PackedLoader``.
        seq_len: the most positions of a row.
        pad_to: ``longest``: the rows of a micro-batch are as long as its longest sample;
            ``seq_len``: they all have that length.

    Raises:
        TrainingError: as for ``PackedLoader``.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        seq_len: int,
        micro_batch: int,
        accumulation: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        pad_to: PadTo = "longest",
    ) -> None:
        check_range("seq_len", seq_len, 1)
        check_rows(shards, seq_len)
        self.pad_to = pad_to
        super().__init__(
            Samples([(shards, PackIndex.alone(shards.lengths, seq_len))]),
            seq_len=seq_len,
            micro_batch=micro_batch,
            accumulation=accumulation,
            rank=rank,
            world=world,
            seed=seed,
            shuffle=shuffle,
        )

    def _batch(self, numbers: NDArray[np.int64]) -> Batch:
        windows = self._samples.windows(numbers)
        longest = int(windows.length.max(initial=1))
        width = longest if self.pad_to == "longest" else self.seq_len
        return self._collator.batch(windows, width, tuple(numbers.tolist()))


def packed(shards: ShardSet, seq_len: int) -> tuple[PackIndex, bool]:
    """Return the index of a data folder for a length, and whether it was there already.

    Raises:
        TrainingError, ShardError: as for ``PackedLoader``.
    """
    check_range("seq_len", seq_len, 1)
    found = find_pack(shards.folder, seq_len)
    if found is not None:
        return found[1], True
    return pack_shards(shards, seq_len), False
