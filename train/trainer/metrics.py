"""What a run tells: a line for people, ``metrics.jsonl`` for programs, a picture at the end."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vnprep.durable import canonical_json, replacing, write_text
from vnprep.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A perplexity beyond this is no number worth printing, and exp() would overflow.
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step, over all ranks and micro-batches.

    Attributes:
        step: steps done, this one included.
        epoch: passes over the data so far.
        loss: negative log-likelihood of a supervised token, in nats, before the update.
        tokens: positions that hold a token (padding is none).
        supervised_share: part of ``tokens`` that carries loss.
        lr: learning rate of this update.
        grad_norm: 2-norm of the gradient before clipping, or None where it is not computed.
        tokens_per_s: ``tokens`` over the step's duration.
    """

    step: int
    epoch: float
    loss: float
    tokens: int
    supervised_share: float
    lr: float
    grad_norm: float | None
    tokens_per_s: float


@dataclass(frozen=True)
class ValidationMetrics:
    """One evaluation on the whole validation set.

    Attributes:
        step: optimizer steps done before it.
        valid_loss: negative log-likelihood of a supervised token, in nats.
        valid_tokens: positions that carry loss.
    """

    step: int
    valid_loss: float
    valid_tokens: int

    @property
    def perplexity(self) -> float:
        """``exp(valid_loss)``."""
        return math.exp(min(self.valid_loss, _LARGEST_EXPONENT))


class MetricsLog:
    """``metrics.jsonl``: a line for each step and each evaluation, flushed at once.

    Args:
        path: the file. Lines after ``from_step`` are dropped: they belong to steps that will be
            done again.
        from_step: steps done already.
    """

    def __init__(self, path: Path, from_step: int) -> None:
        kept = [row for row in read_metrics(path) if row["step"] <= from_step and from_step > 0]
        write_text(path, "".join(canonical_json(row) + "\n" for row in kept))
        self._file: TextIO = path.open("a", encoding="utf-8")
        #: The step of the last evaluation that the file holds, or None.
        self.last_validation: int | None = max(
            (row["step"] for row in kept if "valid_loss" in row), default=None
        )

    def add(self, metrics: StepMetrics | ValidationMetrics) -> None:
        """Append a line."""
        row: dict[str, Any] = asdict(metrics)
        if isinstance(metrics, ValidationMetrics):
            row["valid_perplexity"] = metrics.perplexity
        with self._told():
            self._file.write(canonical_json(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Make the lines durable and close the file."""
        with self._told():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot be written ({error.strerror})",
                place=self._file.name,
                remedy="make room, then run the same command again: it continues from the newest "
                "checkpoint",
            ) from None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a log; a last line cut short by a crash is left out, and so is a missing file."""
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


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
    return (
        f"step {metrics.step:>{len(str(total))}}/{total}  loss {metrics.loss:.4f}  "
        f"lr {metrics.lr:.2e}  {tokens_per_s:,.0f} tokens/s  grad norm {norm}  "
        f"ETA {format_duration(eta)}"
    )


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
        self.say(
            f"step {metrics.step}  validation loss {metrics.valid_loss:.4f}  "
            f"perplexity {metrics.perplexity:,.2f}"
        )


def plot_losses(log: Path, picture: Path) -> None:
    """Draw the training and validation losses of a log over the steps, as a PNG."""
    figure = loss_figure(read_metrics(log))
    with replacing(picture) as file:
        figure.savefig(file, format="png")


def loss_figure(rows: list[dict[str, Any]]) -> Figure:
    """Return the curves of a log's rows; a log without evaluations gives one curve."""
    # Imported here: it takes a second, and training does not need it.
    from matplotlib.figure import Figure

    train = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    valid = [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    if train:
        axes.plot(*zip(*train, strict=True), label="training", linewidth=1)
    if valid:
        axes.plot(*zip(*valid, strict=True), label="validation", marker="o", markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per supervised token")
    axes.grid(alpha=0.3)
    if train or valid:
        axes.legend()
    return figure
