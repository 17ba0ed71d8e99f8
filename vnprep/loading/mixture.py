"""Several data sets in one stream of batches, by weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vnprep.errors import TrainingError
from vnprep.loading.loader import packed
from vnprep.loading.mixing import Mixing
from vnprep.loading.order import Order
from vnprep.loading.samples import Samples
from vnprep.loading.steps import Loader, check_range
from vnprep.shards.read import ShardSet

#: Between the seeds of two data sets: 2⁶⁴ / golden ratio, as SplitMix64 has it.
_SEED_STEP = 0x9E3779B97F4A7C15


class MixedLoader(Loader):
    """The packed rows of several data sets, each as often as its weight says.

    Row i of the whole run comes from a data set that follows from the weights and i alone (see
    ``mixing`` beside this); each data set goes through epochs of its own, so a small one with a
    large weight is seen more often, and no step has an empty row. ``sample_ids`` count through
    the data sets in the order given. An epoch of the mixture has as many rows as the data sets
    together.

    Args:
        sets: data folders made with one tokenizer.
        weights: of each; a share of the packed rows. They need not add up to 1.
        seq_len, micro_batch, accumulation, rank, world, seed, shuffle: as for ``PackedLoader``.

    Attributes:
        fill: the part of all positions that holds a token, over a long run.

    Raises:
        TrainingError: as for ``PackedLoader``; weights that are no weights, or not as many as data
            sets; two tokenizers.
        ShardError: a pack index is damaged.
    """

    def __init__(
        self,
        sets: Sequence[ShardSet],
        weights: Sequence[float],
        *,
        seq_len: int,
        micro_batch: int,
        accumulation: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        if not sets:
            raise TrainingError("no data set to mix", remedy="give at least one")
        check_range("the number of weights", len(weights), len(sets), len(sets))
        self._mixing = Mixing(weights)
        _check_one_tokenizer(sets)
        parts = [(shards, packed(shards, seq_len)[0]) for shards in sets]
        shares = self._mixing.shares
        self.fill = sum(share * index.fill for share, (_, index) in zip(shares, parts, strict=True))
        self._sizes = [len(index) for _, index in parts]
        super().__init__(
            Samples(parts),
            seq_len=seq_len,
            micro_batch=micro_batch,
            accumulation=accumulation,
            rank=rank,
            world=world,
            seed=seed,
            shuffle=shuffle,
        )

    def _reseed(self, seed: int) -> None:
        super()._reseed(seed)
        # Data sets of one size would all be gone through in one order if they had one seed.
        self._orders = [
            Order(size, (seed + number * _SEED_STEP) % 2**64, shuffle=self.shuffle)
            for number, size in enumerate(self._sizes)
        ]

    def _numbers(self, step: int) -> NDArray[np.int64]:
        streams, turns = self._mixing.turns(step * self.global_batch, self.global_batch)
        numbers = np.empty(self.global_batch, dtype=np.int64)
        for part, order in enumerate(self._orders):
            mine = np.flatnonzero(streams == part)
            epochs, places = np.divmod(turns[mine], order.size)
            for epoch in np.unique(epochs).tolist():
                now = epochs == epoch
                numbers[mine[now]] = self._samples.starts[part] + order.at(epoch, places[now])
        return numbers


def _check_one_tokenizer(sets: Sequence[ShardSet]) -> None:
    first, *others = sets
    one = replace(first.manifest.tokenizer, encoder="")
    for shards in others:
        # Which program applied it makes no difference: the ids are the same.
        if replace(shards.manifest.tokenizer, encoder="") != one:
            raise TrainingError(
                f"was made with another tokenizer than {first.folder}",
                place=shards.folder,
                remedy="prepare it again with --tokenizer and the other's tokenizer.json",
            )
