"""What must never reach the weights: a loss or a gradient that is no number, and a spike.

A step that is refused consumes its data and its place in the schedule; nothing else changes. The
gradient norms that the detector compares with are part of every checkpoint, so a resumed run
refuses the same steps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any, Literal

Reason = Literal["loss", "grad_norm", "spike"]

#: Good norms that a new one is compared with.
WINDOW = 128
#: Good norms before anything is called a spike: the first steps of a run have large ones.
LEAST = 32


class Guard:
    """Judges each step before the optimizer sees it.

    Args:
        spike_factor: a norm beyond this many times the median of the last good ones is a spike;
            0 never calls it one.
        grad_clip: a norm within it is never a spike: where the loss is nearly 0 the median is
            tiny, and one hard example is many times larger and yet harmless.
        state: of the run that is continued, as ``state`` gives it; empty for a new run.

    Attributes:
        skipped: steps refused so far.
        in_a_row: of these, the newest ones without a good step between.
    """

    def __init__(self, spike_factor: float, grad_clip: float, state: dict[str, Any]) -> None:
        self._factor = spike_factor
        self._clip = grad_clip
        self._norms: deque[float] = deque(state.get("norms", ()), maxlen=WINDOW)
        self.skipped: int = state.get("skipped", 0)
        self.in_a_row: int = state.get("in_a_row", 0)

    @property
    def state(self) -> dict[str, Any]:
        """All that decides what comes, as plain JSON."""
        return {"norms": list(self._norms), "skipped": self.skipped, "in_a_row": self.in_a_row}

    def judge(self, loss: float, norm: float | None) -> Reason | None:
        """Say why a step must be skipped, or None if it is good; count it.

        Args:
            loss: of the step, over all ranks.
            norm: 2-norm of its gradient before clipping, or None if that is not known.
        """
        reason = self._fault(loss, norm)
        if reason is not None:
            self.skipped += 1
            self.in_a_row += 1
            return reason
        self.in_a_row = 0
        if norm is not None:
            self._norms.append(norm)
        return None

    def _fault(self, loss: float, norm: float | None) -> Reason | None:
        if not math.isfinite(loss):
            return "loss"
        if norm is None:
            return None
        if not math.isfinite(norm):
            return "grad_norm"
        if self._factor == 0 or len(self._norms) < LEAST:
            return None
        limit = self._factor * median(self._norms)
        return "spike" if norm > max(limit, self._clip) else None


def stand_before(optimizers: Iterable[Any], refuses: Callable[[], bool]) -> None:
    """Ask before every ``step`` of torch's optimizers, and do nothing if it is refused.

    Every ZeRO wrapper of DeepSpeed 0.19 works out the gradient's norm and then calls ``step`` of
    the optimizer that it wraps, once a group: so this holds at all stages, and neither weights nor
    moments change. It is set on the object, since DeepSpeed knows the optimizers that it supports
    by their exact class.

    Args:
        optimizers: that DeepSpeed wraps.
        refuses: asked at each call, several times a step.
    """
    for optimizer in optimizers:
        original = optimizer.step

        def step(closure: Any = None, *, _original: Callable[..., Any] = original) -> Any:
            return None if refuses() else _original(closure)

        optimizer.step = step
