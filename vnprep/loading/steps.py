"""Batches in an order that is a function of (seed, epoch, step): three integers are all its state.

Step ``s`` of an epoch takes the places ``s·G … (s + 1)·G`` of that epoch's order, with
``G = world · micro_batch · accumulation``, laid out micro-batch by micro-batch and rank by rank.
So the same G gives the same global batch however it is split, and any step can be asked for at
once: resuming costs nothing.

Each loader is also a map from a step to its batches, as torch's DataLoader takes one; any number
of workers then gives the same batches in the same order:

    DataLoader(loader, batch_size=None, sampler=range(first, last), num_workers=4)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vnprep.errors import TrainingError
from vnprep.loading.collate import Batch
from vnprep.loading.order import Order
from vnprep.loading.samples import EMPTY, Samples


class LoaderState(NamedTuple):
    """Where a loader stands: the next step to be given is ``step`` of ``epoch``."""

    seed: int
    epoch: int
    step: int


class StepCounts(NamedTuple):
    """What an optimizer step holds, over all ranks and micro-batches.

    Attributes:
        tokens: positions that hold a token.
        supervised: positions that carry loss.
    """

    tokens: int
    supervised: int


class Loader:
    """The samples of a data set as one rank of a training run sees them, step by step.

    Every sample comes exactly once an epoch, over all ranks. The last step of an epoch is filled
    up with empty rows; a rank may get a micro-batch that is empty altogether.

    Made by ``PackedLoader``, ``PaddedLoader`` and ``MixedLoader``.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        seq_len: int,
        micro_batch: int,
        accumulation: int,
        rank: int,
        world: int,
        seed: int,
        shuffle: bool,
    ) -> None:
        check_range("micro_batch", micro_batch, 1)
        check_range("accumulation", accumulation, 1)
        check_range("world", world, 1)
        check_range("rank", rank, 0, world - 1)
        check_range("seed", seed, 0, 2**64 - 1)
        self.seq_len = seq_len
        self.micro_batch = micro_batch
        self.accumulation = accumulation
        self.rank = rank
        self.world = world
        self.shuffle = shuffle
        self._samples = samples
        self._collator = samples.collator(seq_len)
        self._next = 0
        self._reseed(seed)

    def __len__(self) -> int:
        return self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that show every sample once."""
        return -(-len(self._samples) // self.global_batch)

    @property
    def samples(self) -> int:
        """Samples of an epoch: packed rows, or examples."""
        return len(self._samples)

    @property
    def global_batch(self) -> int:
        """Samples of an optimizer step, over all ranks."""
        return self.world * self.micro_batch * self.accumulation

    def step(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a global optimizer step, [accumulation].

        Args:
            step: any step from 0 on, in any order; it lies in epoch ``step // steps_per_epoch``.

        Raises:
            ValueError: the step is negative.
        """
        numbers = self._of_step(step).reshape(self.accumulation, self.world, self.micro_batch)
        return [self._batch(mine) for mine in numbers[:, self.rank]]

    __getitem__ = step

    def sample_ids(self, step: int) -> list[int]:
        """Return the samples of a global optimizer step, over all ranks, in their order.

        The rows that fill up the last step of an epoch are left out.

        Raises:
            ValueError: the step is negative.
        """
        numbers = self._of_step(step)
        ids: list[int] = numbers[numbers != EMPTY].tolist()
        return ids

    def counts(self, step: int) -> StepCounts:
        """Count what a global optimizer step holds, over all ranks: no rank need ask another.

        Raises:
            ValueError: the step is negative.
        """
        windows = self._samples.windows(self._of_step(step))
        tokens = int(windows.length.sum())
        if self._samples.all_supervised:
            return StepCounts(tokens, tokens)
        return StepCounts(tokens, self._collator.supervised(windows))

    def __iter__(self) -> Iterator[list[Batch]]:
        """Go on from ``state``, for ever."""
        while True:
            batches = self.step(self._next)
            self._next += 1
            yield batches

    @property
    def state(self) -> LoaderState:
        """Where iteration stands. ``load_state`` of it, in any process and world, goes on there."""
        return self.state_at(self._next)

    def state_at(self, step: int) -> LoaderState:
        """Return the state before a global step, for those who ask for steps by number."""
        return LoaderState(self.seed, *divmod(step, self.steps_per_epoch))

    def load_state(self, state: LoaderState | tuple[int, int, int]) -> int:
        """Go on where a loader of the same data and global batch stood; return the global step.

        Raises:
            TrainingError: the state is not one of such a loader.
        """
        seed, epoch, step = state
        check_range("the state's seed", seed, 0, 2**64 - 1)
        check_range("the state's epoch", epoch, 0)
        check_range("the state's step", step, 0, self.steps_per_epoch - 1)
        if seed != self.seed:
            self._reseed(seed)
        self._next = epoch * self.steps_per_epoch + step
        return self._next

    def _reseed(self, seed: int) -> None:
        self.seed = seed
        self._order = Order(len(self._samples), seed, shuffle=self.shuffle)

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned maps the files itself: the collator holds views of all data.
        return {name: value for name, value in self.__dict__.items() if name != "_collator"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._collator = self._samples.collator(self.seq_len)

    def _of_step(self, step: int) -> NDArray[np.int64]:
        if step < 0:
            raise ValueError(f"step {step} is negative")
        return self._numbers(step)

    def _numbers(self, step: int) -> NDArray[np.int64]:
        """Return the samples of a global step, [global_batch]."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self.global_batch
        places = np.arange(start, min(start + self.global_batch, len(self._samples)))
        numbers = np.full(self.global_batch, EMPTY, dtype=np.int64)
        numbers[: len(places)] = self._order.at(epoch, places)
        return numbers

    def _batch(self, numbers: NDArray[np.int64]) -> Batch:
        windows = self._samples.windows(numbers)
        return self._collator.batch(windows, self.seq_len, tuple(numbers.tolist()))


def check_range(name: str, value: int, least: int, most: int | None = None) -> None:
    """See that a number lies between limits.

    Raises:
        TrainingError: it does not.
    """
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise TrainingError(f"{name} is {value}", remedy=f"it must be {limits}")
