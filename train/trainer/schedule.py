"""The learning rate as a function of the step alone: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vnprep.errors import TrainingError

#: Shape of the rate after the warm-up: progress from 0 to 1 gives a factor from 1 down to 0.
Shape = Callable[[float], float]


def cosine(progress: float) -> float:
    """Half a cosine wave: slow at both ends, steepest in the middle."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


SHAPES: dict[str, Shape] = {"cosine": cosine}


@dataclass(frozen=True)
class Warmup:
    """How long the rate rises: a number of steps, or a share of all steps.

    Attributes:
        amount: steps if ``is_share`` is False, else a share from 0 to 1.
        is_share: which of the two it is.
    """

    amount: float
    is_share: bool

    @classmethod
    def parse(cls, text: str) -> Warmup:
        """Read ``100`` as steps, ``0.05`` and ``5%`` as shares.

        Raises:
            ValueError: it is neither.
        """
        if text.endswith("%"):
            share = float(text[:-1]) / 100
        elif "." in text:
            share = float(text)
        else:
            steps = int(text)
            if steps < 0:
                raise ValueError(f"{text} is below 0")
            return cls(steps, is_share=False)
        if not 0 <= share < 1:
            raise ValueError(f"{text} is not a share between 0 and 1")
        return cls(share, is_share=True)

    def steps(self, total: int) -> int:
        """Return the steps of warm-up in a run of ``total`` steps."""
        return round(self.amount * total) if self.is_share else int(self.amount)


@dataclass(frozen=True)
class Schedule:
    """Warm-up in a straight line, then a shape down to the lowest rate.

    The first step has ``peak / warmup_steps``, step ``warmup_steps - 1`` has ``peak``, and the
    last step has exactly ``peak * min_ratio``.

    Attributes:
        peak: highest learning rate.
        min_ratio: lowest rate as a share of the peak.
        warmup_steps: steps of rising rate.
        total_steps: optimizer steps of the whole run.
        kind: name in ``SHAPES``.
    """

    peak: float
    min_ratio: float
    warmup_steps: int
    total_steps: int
    kind: str = "cosine"

    def __post_init__(self) -> None:
        if self.warmup_steps > self.total_steps:
            raise TrainingError(
                f"{self.warmup_steps} steps of warm-up in a run of {self.total_steps} steps",
                place="--warmup",
                remedy="give a share such as --warmup 5%, or fewer steps",
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step ``step``, counted from 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        decay = max(1, self.total_steps - 1 - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / decay)
        low = self.peak * self.min_ratio
        return low + (self.peak - low) * SHAPES[self.kind](progress)
