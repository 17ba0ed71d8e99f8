"""Where the facts of a run go: the log, the samples, TensorBoard, the user, the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.distributed import World
from trainer.metrics import JsonLines, MetricsLog, SampleText, StepMetrics, ValidationMetrics
from trainer.plot import plot_run
from trainer.reporter import Reporter
from trainer.runfolder import RunFolder
from trainer.tensorboard import Curves
from vnprep.errors import OutputError, TrainingError


class Recorder:
    """Rank 0 writes; the others only keep time.

    Args:
        folder: of the run.
        reporter: tells the user.
        start: optimizer steps done.
        writes: whether this rank writes.
        tensorboard: whether to write curves for TensorBoard, too.
    """

    def __init__(
        self, folder: RunFolder, reporter: Reporter, start: int, *, writes: bool, tensorboard: bool
    ) -> None:
        self._folder = folder
        self._reporter = reporter
        self._log = MetricsLog(folder.metrics, start) if writes else None
        self._samples = JsonLines(folder.samples, start) if writes else None
        self._curves = Curves(folder.tensorboard, start) if writes and tensorboard else None

    def already(self, world: World) -> tuple[int | None, int | None]:
        """Return at which steps there was an evaluation, and samples, last; on every rank."""
        last = None
        if self._log is not None and self._samples is not None:
            sampled = max((row["step"] for row in self._samples.kept), default=None)
            last = (self._log.last_validation, sampled)
        return world.gather(last)[0] or (None, None)

    def step(self, metrics: StepMetrics, seconds: float) -> None:
        """Record a step that took some seconds."""
        if self._log is not None:
            self._log.add(metrics)
        if self._curves is not None:
            self._curves.step(metrics)
        if metrics.skipped is not None:
            self._reporter.say(_skip_notice(metrics))
        self._reporter.step(metrics, seconds)

    def validation(self, metrics: ValidationMetrics) -> None:
        """Record an evaluation."""
        if self._log is not None:
            self._log.add(metrics)
        if self._curves is not None:
            self._curves.validation(metrics)
        self._reporter.validation(metrics)

    def samples(self, samples: Sequence[SampleText]) -> None:
        """Record what the model writes."""
        if self._samples is not None:
            for sample in samples:
                self._samples.write(vars(sample))
        if self._curves is not None:
            self._curves.samples(samples)
        self._reporter.samples(samples)

    def plot(self) -> None:
        """Draw the picture of all that was recorded.

        Raises:
            OutputError: it could not be written.
        """
        if self._log is None:
            return
        try:
            plot_run(self._folder.metrics, self._folder.plot, self._folder.path.name)
        except OSError as error:
            raise OutputError(str(error), place=self._folder.plot) from None

    def close(self) -> None:
        """Close the files."""
        for file in (self._log, self._samples, self._curves):
            if file is not None:
                file.close()


def _skip_notice(metrics: StepMetrics) -> str:
    ids = ", ".join(map(str, metrics.sample_ids[:8]))
    more = ", …" if len(metrics.sample_ids) > 8 else ""
    return (
        f"warning: step {metrics.step} skipped, since {_fault(metrics)}: weights and optimizer "
        f"are as before (samples {ids}{more})"
    )


def too_many_skipped(metrics: StepMetrics, in_a_row: int, log: Path) -> TrainingError:
    """Return the error that ends a run which learns nothing any more.

    Args:
        metrics: of the newest step.
        in_a_row: skipped steps without a good one between.
        log: where they are found.
    """
    steps = "step was" if in_a_row == 1 else "steps in a row were"
    spikes = ", or raise --spike-factor" if metrics.skipped == "spike" else ""
    return TrainingError(
        f"{in_a_row} {steps} skipped, the last because {_fault(metrics)}",
        place=log,
        remedy="look at the samples of these steps, lower --lr or lengthen --warmup"
        f"{spikes}; the checkpoints written before are sound",
    )


def _fault(metrics: StepMetrics) -> str:
    """Say why a step was skipped."""
    if metrics.skipped == "loss":
        return f"its loss is {metrics.loss}"
    if metrics.skipped == "grad_norm":
        return "its gradient is not finite"
    return f"its gradient norm of {metrics.grad_norm:.3g} is a spike"
