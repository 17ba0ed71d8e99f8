"""Packed batches in an order that is a function of (seed, step): there is no state to save.

Step ``s`` of an epoch takes the bins ``s·G … (s + 1)·G`` of that epoch's permutation, with
``G = world · micro_batch · accumulation``, laid out micro-batch by micro-batch and rank by rank.
So the same G gives the same global batch however it is split, and any step can be asked for at
once: resuming costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vnprep.errors import TrainingError
from vnprep.packing import best_fit_decreasing, windows
from vnprep.shards.read import ShardSet

#: The label of a position without loss, as torch and Hugging Face have it.
IGNORED = -100

#: The packed row that is not there: it fills up the last step of an epoch.
EMPTY = -1


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank; every array is [micro_batch, seq_len].

    Attributes:
        input_ids: token ids, ``[PAD]`` where nothing is packed.
        labels: the target where it carries loss, else −100.
        position_ids: from 0 in every packed window; 0 on padding.
        document_ids: 0, 1, 2, … for the windows of a packed row; −1 on padding.
        sample_ids: the packed rows' numbers, −1 for an empty one, [micro_batch].
    """

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    document_ids: NDArray[np.int32]
    sample_ids: tuple[int, ...]


class PackedLoader:
    """The packed rows of a data folder, as one rank of a training run sees them.

    Every supervised position comes exactly once an epoch, over all ranks. The last step of an
    epoch is filled up with empty rows; a rank may get a micro-batch that is empty altogether.

    Args:
        shards: the data.
        seq_len: positions of a packed row.
        micro_batch: packed rows of one micro-batch of one rank.
        accumulation: micro-batches of an optimizer step.
        rank: this process, 0 ≤ ``rank`` < ``world``.
        world: processes that train together.
        seed: 0 to 2⁶⁴ − 1; decides the order.
        shuffle: whether each epoch has an order of its own; if not, all have that of the bins.

    Raises:
        TrainingError: there is nothing to train on, an option is out of range, or fine-tuning
            rows are longer than ``seq_len`` (an answer is never cut here).
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
        _check_range("seq_len", seq_len, 1)
        _check_range("micro_batch", micro_batch, 1)
        _check_range("accumulation", accumulation, 1)
        _check_range("world", world, 1)
        _check_range("rank", rank, 0, world - 1)
        _check_range("seed", seed, 0, 2**64 - 1)
        _check_data(shards, seq_len)
        self.seq_len = seq_len
        self.micro_batch = micro_batch
        self.accumulation = accumulation
        self.rank = rank
        self.world = world
        self.seed = seed
        self.shuffle = shuffle
        self._shards = shards
        self._windows = windows(shards.lengths, seq_len)
        self._bins = best_fit_decreasing(self._windows.length, seq_len)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def packed_rows(self) -> int:
        """Packed rows of an epoch."""
        return len(self._bins)

    @property
    def fill(self) -> float:
        """The part of all packed positions that holds a token."""
        return int(self._windows.length.sum()) / (self.packed_rows * self.seq_len)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that show every packed row once."""
        return -(-self.packed_rows // self._global_batch)

    @property
    def _global_batch(self) -> int:
        return self.world * self.micro_batch * self.accumulation

    def step(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a global optimizer step, [accumulation].

        Args:
            step: any step from 0 on, in any order; it lies in epoch ``step // steps_per_epoch``.

        Raises:
            ValueError: the step is negative.
        """
        if step < 0:
            raise ValueError(f"step {step} is negative")
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self._global_batch
        taken = self._epoch_order(epoch)[start : start + self._global_batch]
        bins = np.full(self._global_batch, EMPTY, dtype=np.int64)
        bins[: len(taken)] = taken
        mine = bins.reshape(self.accumulation, self.world, self.micro_batch)[:, self.rank]
        return [self._batch(numbers) for numbers in mine.tolist()]

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Return an epoch's permutation of the bins; the last one asked for is kept."""
        if not self.shuffle:
            epoch = 0
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._permutation(epoch))
        return self._order[1]

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(self.packed_rows)
        # Sorting raw words, not Generator.permutation: NumPy keeps a bit generator's stream for
        # ever, a Generator's methods it may change, and a resumed run must see the same order.
        words = np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64))
        return np.argsort(words.random_raw(self.packed_rows), kind="stable")

    def _batch(self, numbers: list[int]) -> Batch:
        shape = (self.micro_batch, self.seq_len)
        pad = self._shards.manifest.tokenizer.special.pad
        batch = Batch(
            input_ids=np.full(shape, pad, dtype=np.int64),
            labels=np.full(shape, IGNORED, dtype=np.int64),
            position_ids=np.zeros(shape, dtype=np.int64),
            document_ids=np.full(shape, -1, dtype=np.int32),
            sample_ids=tuple(numbers),
        )
        for place, number in enumerate(numbers):
            if number != EMPTY:
                self._fill_row(batch, place, self._bins[number])
        return batch

    def _fill_row(self, batch: Batch, place: int, items: NDArray[np.int64]) -> None:
        """Copy the windows of one bin into one row of a batch, side by side."""
        rows, starts = self._windows.row[items], self._windows.start[items]
        lengths = self._windows.length[items]
        ends = np.cumsum(lengths)
        begins = ends - lengths
        used = int(ends[-1])
        batch.position_ids[place, :used] = np.arange(used) - np.repeat(begins, lengths)
        batch.document_ids[place, :used] = np.repeat(np.arange(len(items)), lengths)
        input_ids, labels = batch.input_ids[place], batch.labels[place]
        for row, start, length, begin in zip(
            rows.tolist(), starts.tolist(), lengths.tolist(), begins.tolist(), strict=True
        ):
            tokens, target, loss_mask = self._shards.arrays(row)
            part, to = slice(start, start + length), slice(begin, begin + length)
            input_ids[to] = tokens[part]
            np.copyto(labels[to], target[part], where=loss_mask[part] != 0)


def _check_range(name: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise TrainingError(f"{name} is {value}", remedy=f"it must be {limits}")


def _check_data(shards: ShardSet, seq_len: int) -> None:
    if not len(shards) or not shards.manifest.supervised_tokens:
        raise TrainingError(
            f"{len(shards):,} rows and no position that carries loss: nothing can be learned",
            place=shards.folder,
            remedy="prepare the data again and read its closing table",
        )
    too_long = int(np.count_nonzero(shards.lengths > seq_len))
    if shards.manifest.stage == "finetune" and too_long:
        longest = int(shards.lengths.max())
        raise TrainingError(
            f"{too_long:,} rows are longer than seq_len {seq_len:,} (the longest has {longest:,} "
            "positions), and an answer is never cut in training",
            place=shards.folder,
            remedy=f"train with a sequence length of {longest} or more, "
            f"or prepare the data again with at most {seq_len} positions a row",
        )
