"""What a run records of itself: ``metrics.jsonl`` for programs, ``samples.jsonl`` for readers."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from vnprep.durable import canonical_json, write_text
from vnprep.errors import OutputError

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
        data_wait: part of the step's duration in which a rank waited for data, on average.
        mfu: FLOPs of the model over what the devices could do at their peak, or None where the
            peak is not known.
        memory_gib: the most memory that rank 0 has had so far: the device's on CUDA, the
            process's on CPU.
        skipped: why the step changed nothing (``loss``, ``grad_norm``, ``spike``), or None.
        skipped_steps: steps skipped so far, this one included.
        sample_ids: the samples that the step has consumed, over all ranks.
    """

    step: int
    epoch: float
    loss: float
    tokens: int
    supervised_share: float
    lr: float
    grad_norm: float | None
    tokens_per_s: float
    data_wait: float
    mfu: float | None
    memory_gib: float
    skipped: str | None
    skipped_steps: int
    sample_ids: list[int]


@dataclass(frozen=True)
class ValidationMetrics:
    """One evaluation on the whole validation set.

    Attributes:
        step: optimizer steps done before it.
        valid_loss: negative log-likelihood of a supervised token, in nats.
        valid_tokens: positions that carry loss.
        valid_bits_per_byte: bits that the model needs for a byte of the supervised text; does not
            depend on the tokenizer. None if the text has no byte.
    """

    step: int
    valid_loss: float
    valid_tokens: int
    valid_bits_per_byte: float | None = None

    @property
    def perplexity(self) -> float:
        """``exp(valid_loss)``."""
        return math.exp(min(self.valid_loss, _LARGEST_EXPONENT))


@dataclass(frozen=True)
class SampleText:
    """What the model makes of a prompt.

    Attributes:
        step: optimizer steps done before it.
        prompt: what it was given.
        text: what it wrote, without ``[EOS]``.
        stopped: whether it reached ``[EOS]``, and not merely the limit.
    """

    step: int
    prompt: str
    text: str
    stopped: bool


def bits_per_byte(nll_sum: float, text_bytes: int) -> float | None:
    """Turn the nats of a text into bits per byte; None if it has no bytes."""
    return nll_sum / math.log(2) / text_bytes if text_bytes else None


class JsonLines:
    """A file of one JSON object a line, flushed at once.

    Args:
        path: the file. Lines after ``from_step`` are dropped: they belong to steps that will be
            done again.
        from_step: steps done already.

    Attributes:
        kept: the lines that were there.
    """

    def __init__(self, path: Path, from_step: int) -> None:
        self.kept = [row for row in read_metrics(path) if row["step"] <= from_step > 0]
        write_text(path, "".join(canonical_json(row) + "\n" for row in self.kept))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Append a line. JSON knows no NaN and no infinity: they become the words for them."""
        plain = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        with self._told():
            self._file.write(canonical_json(plain) + "\n")
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


class MetricsLog(JsonLines):
    """``metrics.jsonl``: a line for each step and each evaluation."""

    @property
    def last_validation(self) -> int | None:
        """The step of the last evaluation that the file held at the beginning, or None."""
        return max((row["step"] for row in self.kept if "valid_loss" in row), default=None)

    def add(self, metrics: StepMetrics | ValidationMetrics) -> None:
        """Append a line."""
        row: dict[str, Any] = asdict(metrics)
        if isinstance(metrics, ValidationMetrics):
            row["valid_perplexity"] = metrics.perplexity
        self.write(row)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a log; a last line cut short by a crash is left out, and so is a missing file.

    A value that is no finite number is text: ``float`` reads it back.
    """
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
