"""The training loop, the same for both stages."""

from __future__ import annotations

import math
from typing import Any

import torch

from modeling.weights import save_model
from trainer import checkpoint
from trainer import engine as deepspeed_engine
from trainer.checkpoint import Commit
from trainer.distributed import EveryRankError, World
from trainer.lora import merged, save_adapter, seed_dropout
from trainer.metrics import MetricsLog, Reporter, StepMetrics, plot_losses
from trainer.preflight import Plan
from trainer.stop import StopRequest
from trainer.validation import evaluate, supervised_tokens, to_device
from vnprep.errors import TrainingError
from vnprep.loading.loader import Batch


def commit_record(plan: Plan, world: World, step: int) -> Commit:
    """Return what a checkpoint of this run records after ``step`` steps, but for its files."""
    return Commit(step, plan.settings, world.size, deepspeed_engine.zero_stage(plan.deepspeed))


class Trainer:
    """One run, from ``start`` steps on.

    Args:
        plan: what to do.
        engine: DeepSpeed's, in the state after ``start`` steps.
        world: the ranks.
        stop: whether to end early.
        reporter: tells the user.
        start: optimizer steps done.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Any,
        world: World,
        stop: StopRequest,
        reporter: Reporter,
        start: int,
    ) -> None:
        self._plan = plan
        self._engine = engine
        self._world = world
        self._stop = stop
        self._reporter = reporter
        self._start = start
        self._log = MetricsLog(plan.folder.metrics, start) if world.is_main else None
        self._stop_agreed = False
        self._saved_step = start if start else None
        last = None if self._log is None else self._log.last_validation
        self._validated_step: int | None = world.gather(last)[0]

    def run(self) -> int:
        """Train to the end, or until asked to stop; return the exit code."""
        try:
            finished = self._steps()
        finally:
            if self._log is not None:
                self._log.close()
        if not finished:
            return self._stop.exit_code
        self._finish()
        return 0

    def _steps(self) -> bool:
        """Do the steps that are left; return False if the run was asked to stop."""
        options, total = self._plan.options, self._plan.steps
        if self._start == 0 and not self._validate(0):
            return self._stopped(0)
        batches = self._plan.loader.step(self._start) if self._start < total else []
        for step in range(self._start, total):
            self._reporter.resume_clock()
            batches = self._step(step, batches)
            done = step + 1
            if self._stop_agreed:
                return self._stopped(done)
            last = done == total
            due = options.eval_every > 0 and done % options.eval_every == 0
            if (due or last) and not self._validate(done):
                return self._stopped(done)
            if last or (options.save_every > 0 and done % options.save_every == 0):
                self._save(done)
        return True

    def _stopped(self, step: int) -> bool:
        """Save what has been done; always False, for ``_steps`` to return."""
        if step > 0 and step != self._saved_step:
            self._save(step)
        self._reporter.say(
            f"stopped after step {step} of {self._plan.steps}: the same command continues from here"
        )
        return False

    def _step(self, step: int, batches: list[Batch]) -> list[Batch]:
        """Do optimizer step ``step`` (counted from 0); return the next step's batches."""
        world, plan = self._world, self._plan
        tokens, supervised = world.sum_integers(
            sum(int((batch.document_ids >= 0).sum()) for batch in batches),
            sum(map(supervised_tokens, batches)),
        )
        if supervised == 0:
            raise EveryRankError(
                TrainingError(
                    f"no position of step {step + 1} carries loss",
                    place=plan.sets[0].folder,
                    remedy="use more rows a step (--micro-batch, --accumulation), or look at the "
                    "data with vnprep inspect",
                )
            )
        seed_dropout(plan.options.seed, step, world.rank)
        nll_sum = torch.zeros((), dtype=torch.float32, device=world.device)
        for batch in batches:
            nll = self._engine(**to_device(batch, world.device))
            # DeepSpeed averages over the ranks: times world. So each token of the whole step
            # weighs 1 / supervised, in whatever micro-batch and on whatever rank it stands.
            self._engine.backward(nll * (world.size / supervised), scale_wrt_gas=False)
            nll_sum += nll.detach().float()
            if batch is not batches[-1]:
                self._engine.step()  # counts the micro-batch; updates nothing yet
        # The accelerator is still at work on this step: a good time to read the next one.
        following = plan.loader.step(step + 1) if step + 1 < plan.steps else []
        nll_total, asked = world.sum_floats(float(nll_sum), float(self._stop.asked()))
        self._stop_agreed = asked > 0
        loss = nll_total / supervised
        self._check_loss(loss, step)
        lr = plan.schedule.rate(step)
        own_clip = plan.options.grad_clip if deepspeed_engine.clips_itself(plan.deepspeed) else None
        try:
            norm = deepspeed_engine.update(self._engine, lr, own_clip)
        except TrainingError as error:  # the norm is over all ranks: they all raise
            raise EveryRankError(error) from None
        self._record(step, loss, tokens, supervised, lr, norm)
        return following

    def _check_loss(self, loss: float, step: int) -> None:
        if math.isfinite(loss):
            return
        raise EveryRankError(
            TrainingError(
                f"the loss of step {step + 1} is {loss}; the weights were left as they were",
                remedy="lower --lr or lengthen --warmup, and run again: the checkpoints written "
                "before are sound",
            )
        )

    def _record(
        self, step: int, loss: float, tokens: int, supervised: int, lr: float, norm: float | None
    ) -> None:
        seconds = self._reporter.elapsed()
        metrics = StepMetrics(
            step=step + 1,
            epoch=round((step + 1) / self._plan.loader.steps_per_epoch, 4),
            loss=loss,
            tokens=tokens,
            supervised_share=round(supervised / tokens, 4),
            lr=lr,
            grad_norm=norm,
            tokens_per_s=round(tokens / seconds, 1),
        )
        if self._log is not None:
            self._log.add(metrics)
        self._reporter.step(metrics, seconds)

    def _validate(self, step: int) -> bool:
        """Evaluate, unless that was done at this step; return False if asked to stop."""
        loader = self._plan.valid_loader
        if loader is None or step == self._validated_step:
            return True
        metrics = evaluate(self._engine, loader, self._world, self._stop, step)
        if metrics is None:
            return False
        self._validated_step = step
        if self._log is not None:
            self._log.add(metrics)
        self._reporter.validation(metrics)
        return True

    def _save(self, step: int) -> None:
        plan, world = self._plan, self._world
        checkpoint.save(
            self._engine,
            plan.folder.checkpoints,
            commit_record(plan, world, step),
            world,
            plan.options.keep_last,
        )
        self._saved_step = step

    def _finish(self) -> None:
        """Write the whole weights and the picture."""
        plan, world = self._plan, self._world
        state = deepspeed_engine.whole_weights(self._engine, world)

        def write() -> None:
            if state is None:
                return
            tokenizer = plan.sets[0].manifest.tokenizer
            weights = state
            if plan.lora is not None:
                assert plan.options.init is not None, "adapters are added to a trained model"
                save_adapter(plan.folder.adapter, state, plan.lora, plan.model, plan.options.init)
                weights = merged(state, plan.lora)
            save_model(
                plan.folder.model,
                plan.model,
                weights,
                plan.sets[0].tokenizer_path,
                tokenizer.special,
                tokenizer.fingerprint,
                plan.options.stage,
            )
            plot_losses(plan.folder.metrics, plan.folder.plot)

        world.agree(write)
        self._reporter.say(f"done: model in {plan.folder.model}, curves in {plan.folder.plot}")
