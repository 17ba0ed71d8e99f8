"""The curves of a run for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from trainer.metrics import SampleText, StepMetrics, ValidationMetrics


class Curves:
    """Writes ``OUT/tensorboard``.

    Args:
        folder: where the event files are.
        start: optimizer steps done; what is there of later ones is struck out, since these steps
            will be done again.
    """

    def __init__(self, folder: Path, start: int) -> None:
        # Imported here: only rank 0 writes, and only if it is wanted.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start + 1, flush_secs=30)

    def step(self, metrics: StepMetrics) -> None:
        """Add a step to the curves; what is not known, or no number, leaves a gap."""
        self._add(
            metrics.step,
            {
                "train/loss": metrics.loss,
                "train/grad_norm": metrics.grad_norm,
                "train/lr": metrics.lr,
                "train/supervised_share": metrics.supervised_share,
                "train/skipped_steps": metrics.skipped_steps,
                "speed/tokens_per_s": metrics.tokens_per_s,
                "speed/data_wait": metrics.data_wait,
                "speed/mfu": metrics.mfu,
                "speed/memory_gib": metrics.memory_gib,
            },
        )

    def validation(self, metrics: ValidationMetrics) -> None:
        """Add an evaluation."""
        self._add(
            metrics.step,
            {
                "valid/loss": metrics.valid_loss,
                "valid/perplexity": metrics.perplexity,
                "valid/bits_per_byte": metrics.valid_bits_per_byte,
            },
        )
        self._writer.flush()

    def samples(self, samples: Sequence[SampleText]) -> None:
        """Add what the model writes, a text for each prompt."""
        for number, sample in enumerate(samples):
            text = f"**{sample.prompt}**\n\n{sample.text}"
            self._writer.add_text(f"samples/{number}", text, sample.step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _add(self, step: int, values: dict[str, float | None]) -> None:
        for name, value in values.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, step)
