"""The next steps' batches, made by a thread of their own while the accelerator is at work."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trainer.validation import to_device
from vnprep.loading.loader import Loader

if TYPE_CHECKING:
    from types import TracebackType

#: Steps that are made ready before they are asked for.
AHEAD = 2
#: How often the thread looks whether it is still wanted.
_PATIENCE_S = 0.1


@dataclass(frozen=True)
class StepData:
    """What one rank needs for an optimizer step.

    Attributes:
        batches: the model's keyword arguments, one for each micro-batch, on the device.
        sample_ids: the samples of the step, over all ranks.
        tokens: positions that hold a token, over all ranks.
        supervised: positions that carry loss, over all ranks.
    """

    batches: list[dict[str, torch.Tensor]]
    sample_ids: list[int]
    tokens: int
    supervised: int


class Feed:
    """Steps of a loader in order, made ready ahead of their use.

    What comes does not depend on the thread: the loader's batches are a function of the step.

    Args:
        loader: this rank's.
        steps: which, in this order.
        device: where the batches go.

    Attributes:
        waited: seconds that ``next`` has waited for the newest step.
    """

    def __init__(self, loader: Loader, steps: Iterable[int], device: torch.device) -> None:
        self._loader = loader
        self._device = device
        self._ready: queue.Queue[StepData | BaseException | None] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self.waited = 0.0
        self._thread = threading.Thread(target=self._work, args=(steps,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def next(self) -> StepData | None:
        """Return the next step's data, or None after the last step.

        Raises:
            Exception: what reading it has raised in the thread.
        """
        start = time.perf_counter()
        item = self._ready.get()
        self.waited = time.perf_counter() - start
        if item is None or isinstance(item, BaseException):
            self._ready.put(item)  # whoever asks again is told again
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _work(self, steps: Iterable[int]) -> None:
        try:
            for step in steps:
                if not self._put(self._make(step)):
                    return
            self._put(None)
        except BaseException as error:  # it belongs to the thread that asks for the data
            self._put(error)

    def _make(self, step: int) -> StepData:
        tokens, supervised = self._loader.counts(step)
        return StepData(
            [to_device(batch, self._device) for batch in self._loader.step(step)],
            self._loader.sample_ids(step),
            tokens,
            supervised,
        )

    def _put(self, item: StepData | BaseException | None) -> bool:
        """Hand an item over; return False if it is not wanted any more."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=_PATIENCE_S)
                return True
        return False
