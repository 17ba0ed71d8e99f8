"""The log survives crashes and resumption; the lines say what they should."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from trainer.metrics import (
    JsonLines,
    MetricsLog,
    SampleText,
    StepMetrics,
    ValidationMetrics,
    bits_per_byte,
    read_metrics,
)
from trainer.plot import plot_run, run_figure
from trainer.reporter import Reporter, format_duration, format_line


def step_metrics(step: int, loss: float = 2.5, **changes: Any) -> StepMetrics:
    values: dict[str, Any] = {
        "step": step,
        "epoch": step / 10,
        "loss": loss,
        "tokens": 1000,
        "supervised_share": 0.5,
        "lr": 3e-4,
        "grad_norm": 0.75,
        "tokens_per_s": 12_345.6,
        "data_wait": 0.001,
        "mfu": None,
        "memory_gib": 0.5,
        "skipped": None,
        "skipped_steps": 0,
        "sample_ids": [3, 1],
    }
    return StepMetrics(**(values | changes))


def write_log(path: Path, steps: int, validated: tuple[int, ...] = ()) -> None:
    log = MetricsLog(path, from_step=0)
    for step in range(steps + 1):
        if step:
            log.add(step_metrics(step, loss=3.0 - step / 10))
        if step in validated:
            log.add(ValidationMetrics(step, 2.0, 500, 0.9))
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
        "data_wait",
        "mfu",
        "memory_gib",
        "skipped",
        "skipped_steps",
        "sample_ids",
    }
    assert valid == {
        "step": 1,
        "valid_loss": 2.0,
        "valid_tokens": 500,
        "valid_perplexity": math.exp(2.0),
        "valid_bits_per_byte": 0.9,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_valid_json(tmp_path: Path, value: float) -> None:
    log = MetricsLog(tmp_path / "m.jsonl", 0)
    log.add(step_metrics(1, loss=value, grad_norm=value, skipped="loss"))
    log.close()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    (line,) = (tmp_path / "m.jsonl").read_text().splitlines()
    row = json.loads(line, parse_constant=refuse)
    assert row["loss"] == row["grad_norm"] == str(value)
    assert str(float(row["loss"])) == str(value)


def test_samples_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    log = JsonLines(path, 0)
    for step in (5, 10):
        log.write(vars(SampleText(step, "Bật đèn", "Đã bật đèn", stopped=True)))
    log.close()
    assert "Đã bật đèn" in path.read_text(encoding="utf-8")
    JsonLines(path, 7).close()
    assert [row["step"] for row in read_metrics(path)] == [5]


def test_bits_per_byte() -> None:
    assert bits_per_byte(8 * math.log(2), 4) == 2.0
    assert bits_per_byte(1.0, 0) is None


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


def test_the_progress_line_says_what_matters_when_it_does() -> None:
    metrics = step_metrics(7, mfu=0.4312, data_wait=0.13, skipped_steps=2)
    assert format_line(metrics, 300, 1000, 75) == (
        "step   7/300  loss 2.5000  lr 3.00e-04  1,000 tokens/s  MFU 43.1%  grad norm 0.75  "
        "data wait 13%  skipped 2  ETA 1:15"
    )


def test_samples_are_shown_in_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter(25, log_every=10) as reporter:
        reporter.samples(
            [SampleText(5, "Bật\nđèn", "Đã bật đèn", True), SampleText(5, "a", "b " * 999, False)]
        )
    first, second = capsys.readouterr().err.splitlines()
    assert first == "step 5  Bật đèn → Đã bật đèn"
    assert second.endswith("… …") and len(second) < 450


def test_plain_lines_come_every_so_often_and_only_from_one_rank(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for speaks in (True, False):
        with Reporter(25, log_every=10, speaks=speaks) as reporter:
            for step in range(1, 26):
                reporter.step(step_metrics(step), seconds=0.1)
            reporter.validation(ValidationMetrics(25, 0.0, 10, 1.25))
            reporter.say("done")
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        if speaks:
            assert [line.split("/")[0].split()[-1] for line in lines[:4]] == ["1", "10", "20", "25"]
            assert lines[4:] == [
                "step 25  validation loss 0.0000  perplexity 1.00  1.2500 bits per byte",
                "done",
            ]
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


def curves(axes: Any) -> dict[str, list[list[float]]]:
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_the_picture_shows_every_curve(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_log(path, 9, validated=(0, 5, 9))
    figure = run_figure(read_metrics(path), "runs/pre")
    losses, rates, norms = figure.axes
    found = curves(losses)
    assert found["validation"] == [[0, 2.0], [5, 2.0], [9, 2.0]]
    assert [x for x, _ in found["training"]] == list(range(1, 10))
    assert found["training"][0][1] == pytest.approx(2.9)
    assert [y for _, y in curves(rates)["learning rate"]] == [3e-4] * 9
    assert [y for _, y in curves(norms)["gradient norm"]] == [0.75] * 9
    assert figure.get_suptitle() == "runs/pre"
    picture = tmp_path / "loss.png"
    plot_run(path, picture, "runs/pre")
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert not list(tmp_path.glob("*.tmp"))


def test_skipped_steps_are_marked_and_not_drawn_as_losses(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl", 0)
    for step in range(1, 101):
        bad = step in (40, 41)
        values = {"loss": math.nan, "grad_norm": math.inf, "skipped": "loss"} if bad else {}
        log.add(step_metrics(step, **values))
    log.close()
    figure = run_figure(read_metrics(tmp_path / "m.jsonl"), "run")
    for axes in figure.axes:
        marks = [
            [x for x, _ in line.get_xydata().tolist()]
            for line in axes.get_lines()
            if line.get_color() == "tab:red"
        ]
        assert marks == [[40, 40], [41, 41]]
    found = curves(figure.axes[0])
    assert len(found["training"]) == 98 and "skipped steps (2)" in found
    assert [y for _, y in found["mean of 5 steps"]] == [2.5] * 98


def test_a_log_without_a_step_gives_an_empty_picture() -> None:
    assert len(run_figure([], "run").axes) == 3
