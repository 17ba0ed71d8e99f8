"""What a run tells people: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from trainer.metrics import SampleText, StepMetrics, ValidationMetrics

#: Below this share of a step, waiting for data is not worth a word.
_NOTED_WAIT = 0.02
_LONGEST_SAMPLE = 400


def format_duration(seconds: float) -> str:
    """Write seconds as ``1:02:03`` or ``2:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_line(metrics: StepMetrics, total: int, tokens_per_s: float, eta: float) -> str:
    """Write the progress line.

    Args:
        metrics: the newest step.
        total: steps of the run.
        tokens_per_s: smoothed over the last steps.
        eta: seconds left.
    """
    norm = "-" if metrics.grad_norm is None else f"{metrics.grad_norm:.2f}"
    parts = [
        f"step {metrics.step:>{len(str(total))}}/{total}",
        f"loss {metrics.loss:.4f}",
        f"lr {metrics.lr:.2e}",
        f"{tokens_per_s:,.0f} tokens/s",
    ]
    if metrics.mfu is not None:
        parts.append(f"MFU {metrics.mfu:.1%}")
    parts.append(f"grad norm {norm}")
    if metrics.data_wait >= _NOTED_WAIT:
        parts.append(f"data wait {metrics.data_wait:.0%}")
    if metrics.skipped_steps:
        parts.append(f"skipped {metrics.skipped_steps}")
    return "  ".join([*parts, f"ETA {format_duration(eta)}"])


class Reporter:
    """Progress on stderr: one live line on a terminal, plain lines elsewhere.

    Args:
        total: steps of the run.
        log_every: steps between plain lines.
        speaks: False on all ranks but one.
    """

    def __init__(self, total: int, log_every: int, *, speaks: bool = True) -> None:
        self._total = total
        self._log_every = log_every
        self._speaks = speaks
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._seconds_per_step = 0.0
        self._seen = 0
        self._tokens_per_s = 0.0
        self._mark = time.perf_counter()

    def __enter__(self) -> Reporter:
        if self._speaks and self._console.is_terminal:
            self._live = Live(Text(""), console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if self._speaks:
            self._console.print(Text(text))

    def resume_clock(self) -> None:
        """Start timing a step here, so that evaluation and saving do not count."""
        self._mark = time.perf_counter()

    def elapsed(self) -> float:
        """Return the seconds since the clock was started, never 0."""
        return max(time.perf_counter() - self._mark, 1e-9)

    def step(self, metrics: StepMetrics, seconds: float) -> None:
        """Show a step that took ``seconds``."""
        # A running mean at first, then an exponential one over some twenty steps.
        self._seen += 1
        weight = max(1 / self._seen, 0.05)
        self._seconds_per_step += weight * (seconds - self._seconds_per_step)
        self._tokens_per_s += weight * (metrics.tokens_per_s - self._tokens_per_s)
        if not self._speaks:
            return
        eta = self._seconds_per_step * (self._total - metrics.step)
        line = format_line(metrics, self._total, self._tokens_per_s, eta)
        if self._live is not None:
            self._live.update(Text(line))
        elif metrics.step % self._log_every == 0 or metrics.step in (1, self._total):
            print(line, file=sys.stderr, flush=True)

    def validation(self, metrics: ValidationMetrics) -> None:
        """Show an evaluation."""
        bits = metrics.valid_bits_per_byte
        self.say(
            f"step {metrics.step}  validation loss {metrics.valid_loss:.4f}  "
            f"perplexity {metrics.perplexity:,.2f}"
            + ("" if bits is None else f"  {bits:.4f} bits per byte")
        )

    def samples(self, samples: Sequence[SampleText]) -> None:
        """Show what the model writes."""
        for sample in samples:
            prompt, text = (_one_line(part) for part in (sample.prompt, sample.text))
            end = "" if sample.stopped else " …"
            self.say(f"step {sample.step}  {prompt} → {text}{end}")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_SAMPLE else line[: _LONGEST_SAMPLE - 1] + "…"
