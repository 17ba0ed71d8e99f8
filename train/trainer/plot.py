"""The picture of a run: losses, learning rate and gradient norm over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.metrics import read_metrics
from vnprep.durable import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[int, float]]

#: A curve of more points than this is drawn pale, with its average over it.
_NOISY = 60
#: Steps that the average takes together, as a share of all.
_SMOOTHED = 0.02


def plot_run(log: Path, picture: Path, title: str) -> None:
    """Draw a log as a PNG; the file is whole or not there."""
    figure = run_figure(read_metrics(log), title)
    with replacing(picture) as file:
        figure.savefig(file, format="png", dpi=120)


def run_figure(rows: list[dict[str, Any]], title: str) -> Figure:
    """Return the curves of a log's rows: three panels over one axis of steps.

    Steps that were skipped are marked in all of them; their own loss and norm are left out.
    """
    # Imported here: it takes a second, and training does not need it.
    from matplotlib.figure import Figure

    steps = [row for row in rows if "loss" in row]
    skipped = [row["step"] for row in steps if row.get("skipped")]
    good = [row for row in steps if not row.get("skipped")]
    figure = Figure(figsize=(9, 8), layout="constrained")
    figure.suptitle(title)
    losses, rates, norms = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    _draw(losses, "training", _points(good, "loss"), "tab:blue")
    valid = _points(rows, "valid_loss")
    if valid:
        losses.plot(
            *zip(*valid, strict=True), label="validation", color="tab:orange", marker="o", ms=4
        )
    losses.set_ylabel("loss\n(nats per supervised token)")
    _draw(rates, "learning rate", _points(steps, "lr"), "tab:green")
    rates.set_ylabel("learning rate")
    norm_points = [(step, norm) for step, norm in _points(good, "grad_norm") if norm > 0]
    _draw(norms, "gradient norm", norm_points, "tab:purple")
    if norm_points:
        norms.set_yscale("log")
    norms.set_ylabel("gradient norm\n(before clipping)")
    norms.set_xlabel("optimizer step")
    for axes in (losses, rates, norms):
        for number, step in enumerate(skipped):
            label = None if number else f"skipped steps ({len(skipped)})"
            axes.axvline(step, color="tab:red", alpha=0.5, linewidth=1, label=label)
        axes.grid(alpha=0.3)
    if losses.get_legend_handles_labels()[0]:
        losses.legend()
    return figure


def _points(rows: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """Return (step, value) where the value is a finite number."""
    found = [(row["step"], float(row[name])) for row in rows if row.get(name) is not None]
    return [(step, value) for step, value in found if math.isfinite(value)]


def _draw(axes: Axes, label: str, points: Points, color: str) -> None:
    if not points:
        return
    steps, values = zip(*points, strict=True)
    if len(points) <= _NOISY or label == "learning rate":
        axes.plot(steps, values, label=label, color=color, linewidth=1.2)
        return
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8, label=label)
    span = max(5, round(_SMOOTHED * len(values)))
    axes.plot(
        steps, _average(values, span), color=color, linewidth=1.5, label=f"mean of {span} steps"
    )


def _average(values: Sequence[float], span: int) -> list[float]:
    """Return the mean of each value and its neighbours, ``span`` together; fewer at the ends."""
    half, means = span // 2, []
    for place in range(len(values)):
        window = values[max(0, place - half) : place + half + 1]
        means.append(math.fsum(window) / len(window))
    return means
