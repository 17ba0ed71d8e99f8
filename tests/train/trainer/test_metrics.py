"""The log survives crashes and resumption; the lines say what they should."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from trainer.metrics import (
    MetricsLog,
    Reporter,
    StepMetrics,
    ValidationMetrics,
    format_duration,
    format_line,
    loss_figure,
    plot_losses,
    read_metrics,
)


def step_metrics(step: int, loss: float = 2.5, grad_norm: float | None = 0.75) -> StepMetrics:
    return StepMetrics(step, step / 10, loss, 1000, 0.5, 3e-4, grad_norm, 12_345.6)


def write_log(path: Path, steps: int, validated: tuple[int, ...] = ()) -> None:
    log = MetricsLog(path, from_step=0)
    for step in range(steps + 1):
        if step:
            log.add(step_metrics(step, loss=3.0 - step / 10))
        if step in validated:
            log.add(ValidationMetrics(step, 2.0, 500))
    log.close()


def test_a_line_is_whole_json_with_every_field(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_log(path, 1, validated=(1,))
    train, valid = (json.loads(line) for line in path.read_text().splitlines())
    assert set(train) == {
        "step",
        "epoch",
        "loss",
        "tokens",
        "supervised_share",
        "lr",
        "grad_norm",
        "tokens_per_s",
    }
    assert valid == {
        "step": 1,
        "valid_loss": 2.0,
        "valid_tokens": 500,
        "valid_perplexity": math.exp(2.0),
    }


def test_a_loss_comes_back_bit_for_bit(tmp_path: Path) -> None:
    loss = 0.1 + 0.2
    log = MetricsLog(tmp_path / "m.jsonl", 0)
    log.add(step_metrics(1, loss=loss))
    log.close()
    assert read_metrics(tmp_path / "m.jsonl")[0]["loss"] == loss


def test_resuming_drops_the_steps_that_are_done_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_log(path, 9, validated=(0, 5, 9))
    log = MetricsLog(path, from_step=5)
    assert log.last_validation == 5
    log.add(step_metrics(6, loss=1.0))
    log.close()
    rows = read_metrics(path)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "valid_loss" in row] == [0, 5]
    assert rows[-1]["loss"] == 1.0


def test_starting_anew_begins_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_log(path, 3, validated=(0,))
    log = MetricsLog(path, from_step=0)
    log.close()
    assert read_metrics(path) == []
    assert log.last_validation is None


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_log(path, 3)
    path.write_bytes(path.read_bytes()[:-20])
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    # And resuming after step 2 leaves no half line in the file.
    MetricsLog(path, from_step=2).close()
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3723, "1:02:03")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_progress_line() -> None:
    line = format_line(step_metrics(7), 300, 12_345.6, 75)
    assert line == (
        "step   7/300  loss 2.5000  lr 3.00e-04  12,346 tokens/s  grad norm 0.75  ETA 1:15"
    )
    assert "grad norm -" in format_line(step_metrics(7, grad_norm=None), 300, 1, 1)


def test_plain_lines_come_every_so_often_and_only_from_one_rank(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for speaks in (True, False):
        with Reporter(25, log_every=10, speaks=speaks) as reporter:
            for step in range(1, 26):
                reporter.step(step_metrics(step), seconds=0.1)
            reporter.validation(ValidationMetrics(25, 0.0, 10))
            reporter.say("done")
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        if speaks:
            assert [line.split("/")[0].split()[-1] for line in lines[:4]] == ["1", "10", "20", "25"]
            assert lines[4:] == ["step 25  validation loss 0.0000  perplexity 1.00", "done"]
        else:
            assert lines == []


def test_the_time_left_is_the_steps_left_times_their_duration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Reporter(100, log_every=1) as reporter:
        for step in (1, 2):
            reporter.step(step_metrics(step), seconds=2.0)
    assert capsys.readouterr().err.splitlines()[1].endswith("ETA 3:16")


def test_a_perplexity_never_overflows() -> None:
    assert math.isfinite(ValidationMetrics(1, 1e6, 1).perplexity)


def test_the_picture_shows_both_curves(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_log(path, 9, validated=(0, 5, 9))
    (axes,) = loss_figure(read_metrics(path)).axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    assert curves["validation"] == [[0, 2.0], [5, 2.0], [9, 2.0]]
    assert [x for x, _ in curves["training"]] == list(range(1, 10))
    assert curves["training"][0][1] == pytest.approx(2.9)
    picture = tmp_path / "loss.png"
    plot_losses(path, picture)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert not list(tmp_path.glob("*.tmp"))
