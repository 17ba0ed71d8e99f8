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


def linear(progress: float) -> float:
    """A straight line."""
    return 1.0 - progress


def constant(_progress: float) -> float:
    """No fall at all."""
    return 1.0


def one_minus_sqrt(progress: float) -> float:
    """Steep at first, then ever flatter.

    The better end of a constant rate in arXiv:2405.18392, where a fifth of all steps comes close
    to a cosine of the whole length.
    """
    return 1.0 - math.sqrt(progress)


#: Of ``wsd`` (warmup-stable-decay, arXiv:2404.06395) it is the shape of the decay alone.
SHAPES: dict[str, Shape] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "wsd": one_minus_sqrt,
}


@dataclass(frozen=True)
class Warmup:
    """How long the rate rises, or falls at the end: a number of steps, or a share of all steps.

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
        """Return the steps that these are in a run of ``total`` steps."""
        return round(self.amount * total) if self.is_share else int(self.amount)


@dataclass(frozen=True)
class Schedule:
    """Warm-up in a straight line, then a shape down to the lowest rate.

    The first step has ``peak / warmup_steps``, step ``warmup_steps - 1`` has ``peak``, and the
    last step has exactly ``peak * min_ratio`` (``constant`` keeps ``peak``).

    Attributes:
        peak: highest learning rate.
        min_ratio: lowest rate as a share of the peak.
        warmup_steps: steps of rising rate.
        total_steps: optimizer steps of the whole run.
        kind: name in ``SHAPES``.
        decay_steps: of ``wsd``, the steps of falling rate at the end; the step before them is the
            last at the peak. Elsewhere unused: the rate falls from the warm-up on.
    """

    peak: float
    min_ratio: float
    warmup_steps: int
    total_steps: int
    kind: str = "cosine"
    decay_steps: int = 0

    def __post_init__(self) -> None:
        if self.warmup_steps > self.total_steps:
            raise TrainingError(
                f"{self.warmup_steps} steps of warm-up in a run of {self.total_steps} steps",
                place="--warmup",
                remedy="give a share such as --warmup 5%, or fewer steps",
            )
        if self.warmup_steps + self.decay_steps > self.total_steps:
            raise TrainingError(
                f"{self.decay_steps} steps of decay after {self.warmup_steps} of warm-up in a run "
                f"of {self.total_steps} steps",
                place="--decay",
                remedy="give a share such as --decay 20%, or fewer steps",
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step ``step``, counted from 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        progress = self._progress(step)
        low = self.peak * self.min_ratio
        factor = SHAPES[self.kind](progress)
        # At the borders exactly the peak and the lowest rate, whatever the rounding.
        return self.peak if factor == 1.0 else low + (self.peak - low) * factor

    def _progress(self, step: int) -> float:
        """Return how much of the fall is behind ``step``, from 0 to 1."""
        if self.kind == "wsd":
            stable_end = self.total_steps - self.decay_steps
            return min(1.0, max(0, step + 1 - stable_end) / max(1, self.decay_steps))
        decay = max(1, self.total_steps - 1 - self.warmup_steps)
        return min(1.0, (step - self.warmup_steps) / decay)
