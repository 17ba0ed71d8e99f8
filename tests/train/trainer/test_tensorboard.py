"""The event files, read back as TensorBoard reads them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.metrics import SampleText, StepMetrics, ValidationMetrics
from trainer.tensorboard import Curves


def step_metrics(step: int, loss: float) -> StepMetrics:
    return StepMetrics(step, 0.1, loss, 9, 1.0, 3e-4, 0.5, 99.0, 0.0, None, 0.5, None, 0, [1])


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return events


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(name)]


def test_the_curves_can_be_read_back(tmp_path: Path) -> None:
    curves = Curves(tmp_path, 0)
    for step in (1, 2, 3):
        curves.step(step_metrics(step, loss=math.nan if step == 2 else 3.0 - step))
    curves.validation(ValidationMetrics(3, 2.0, 10, 0.5))
    curves.samples([SampleText(3, "Bật đèn", "Đã bật đèn", stopped=True)])
    curves.close()
    assert points(tmp_path, "train/loss") == [(1, 2.0), (3, 0.0)]
    assert points(tmp_path, "train/lr") == [(n, pytest.approx(3e-4)) for n in (1, 2, 3)]
    assert points(tmp_path, "valid/bits_per_byte") == [(3, 0.5)]
    assert points(tmp_path, "valid/perplexity") == [(3, pytest.approx(math.exp(2)))]
    events = read(tmp_path)
    assert "speed/mfu" not in events.Tags()["scalars"], "what is not known is no curve"
    (text,) = events.Tensors("samples/0/text_summary")
    assert "Đã bật đèn" in text.tensor_proto.string_val[0].decode()


def test_a_resumed_run_goes_on_in_the_same_curve(tmp_path: Path) -> None:
    """Steps 5 and 6 were done, but no checkpoint has them: they are struck out, and done again."""
    for start, end, loss in ((0, 6, 1.0), (4, 8, 2.0)):
        curves = Curves(tmp_path, start)
        for step in range(start + 1, end + 1):
            curves.step(step_metrics(step, loss=loss))
        curves.close()
    expected = [(step, 1.0) for step in range(1, 5)] + [(step, 2.0) for step in range(5, 9)]
    assert points(tmp_path, "train/loss") == expected
