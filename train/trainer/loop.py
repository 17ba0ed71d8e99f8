"""The order of things in a run: steps, evaluations, samples, checkpoints; the same for both stages.

``step`` beside this does an optimizer step, ``recorder`` keeps what is known of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modeling.weights import save_model
from trainer import checkpoint
from trainer import engine as deepspeed_engine
from trainer.checkpoint import Commit
from trainer.distributed import EveryRankError, World
from trainer.feed import Feed, StepData
from trainer.guard import Guard
from trainer.lora import merged, save_adapter, seed_dropout
from trainer.metrics import StepMetrics
from trainer.preflight import Plan
from trainer.recorder import Recorder, too_many_skipped
from trainer.reporter import Reporter
from trainer.samples import Sampler, is_due
from trainer.step import OptimizerStep, Outcome
from trainer.stop import StopRequest
from trainer.text_bytes import supervised_bytes
from trainer.throughput import Throughput, peak_memory_gib
from trainer.validation import evaluate
from vnprep.errors import TrainingError


def commit_record(plan: Plan, world: World, step: int) -> Commit:
    """Return what a checkpoint of this run records after ``step`` steps, but for its files."""
    stage = deepspeed_engine.zero_stage(plan.deepspeed)
    precision = deepspeed_engine.precision(plan.deepspeed)
    return Commit(step, plan.settings, world.size, stage, precision)


class Trainer:
    """One run, from ``start`` steps on.

    Args:
        plan: what to do.
        engine: DeepSpeed's, in the state after ``start`` steps.
        world: the ranks.
        stop: whether to end early.
        reporter: tells the user.
        throughput: what a token costs.
        start: optimizer steps done.
        state: ``trainer_state`` of the checkpoint that is continued; empty without one.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Any,
        world: World,
        stop: StopRequest,
        reporter: Reporter,
        throughput: Throughput,
        start: int,
        state: dict[str, Any],
    ) -> None:
        options = plan.options
        self._plan = plan
        self._engine = engine
        self._world = world
        self._stop = stop
        self._reporter = reporter
        self._throughput = throughput
        self._start = start
        self._guard = Guard(options.spike_factor, options.grad_clip, state)
        own_clip = options.grad_clip if deepspeed_engine.clips_itself(plan.deepspeed) else None
        self._optimizer_step = OptimizerStep(engine, world, self._guard, own_clip)
        self._sampler: Sampler | None = None
        if plan.prompts:
            tokenizer = plan.sets[0].tokenizer()
            self._sampler = Sampler(plan.prompts, tokenizer, options.sample_tokens, world, stop)
        self._recorder = Recorder(
            plan.folder, reporter, start, writes=world.is_main, tensorboard=options.tensorboard
        )
        self._stop_agreed = False
        self._saved_step = start if start else None
        self._validated_step, self._sampled_step = self._recorder.already(world)
        self._valid_bytes: int | None = None

    def run(self) -> int:
        """Train to the end, or until asked to stop; return the exit code."""
        try:
            with Feed(
                self._plan.loader, range(self._start, self._plan.steps), self._world.device
            ) as feed:
                finished = self._steps(feed)
        finally:
            self._recorder.close()
        if not finished:
            return self._stop.exit_code
        self._finish()
        return 0

    def _steps(self, feed: Feed) -> bool:
        """Do the steps that are left; return False if the run was asked to stop."""
        options, total = self._plan.options, self._plan.steps
        # Of a checkpoint, too: a run may have been stopped while it evaluated.
        if not self._look(self._start):
            return self._stopped(self._start)
        for step in range(self._start, total):
            self._reporter.resume_clock()
            data = feed.next()
            assert data is not None, "the feed has the steps of the loop"
            self._step(step, data, feed.waited)
            done = step + 1
            if self._stop_agreed or not self._look(done):
                return self._stopped(done)
            if is_due(options.save_every, done, total):
                self._save(done)
        return True

    def _stopped(self, step: int) -> bool:
        """Save what has been done; always False, for ``_steps`` to return."""
        if step > 0 and step != self._saved_step:
            self._save(step)
        self._world.agree(self._recorder.plot)
        self._reporter.say(
            f"stopped after step {step} of {self._plan.steps}: the same command continues from here"
        )
        return False

    def _step(self, step: int, data: StepData, waited: float) -> None:
        """Do optimizer step ``step`` (counted from 0)."""
        plan = self._plan
        if data.supervised == 0:
            raise EveryRankError(
                TrainingError(
                    f"no position of step {step + 1} carries loss",
                    place=plan.sets[0].folder,
                    remedy="use more rows a step (--micro-batch, --accumulation), or look at the "
                    "data with vnprep inspect",
                )
            )
        seed_dropout(plan.options.seed, step, self._world.rank)
        lr = plan.schedule.rate(step)
        outcome = self._optimizer_step.run(data, lr, asked=self._stop.asked, waited=waited)
        self._stop_agreed = outcome.stop
        metrics = self._record(step, data, lr, outcome)
        if self._guard.in_a_row >= plan.options.max_bad_steps:
            self._give_up(metrics)

    def _record(self, step: int, data: StepData, lr: float, outcome: Outcome) -> StepMetrics:
        seconds = self._reporter.elapsed()
        speed = data.tokens / seconds
        metrics = StepMetrics(
            step=step + 1,
            epoch=round((step + 1) / self._plan.loader.steps_per_epoch, 4),
            loss=outcome.loss,
            tokens=data.tokens,
            supervised_share=round(data.supervised / data.tokens, 4),
            lr=lr,
            grad_norm=outcome.grad_norm,
            tokens_per_s=round(speed, 1),
            data_wait=round(min(1.0, outcome.waited / seconds), 4),
            mfu=self._throughput.mfu(speed, self._world.size),
            memory_gib=round(peak_memory_gib(self._world.device), 3),
            skipped=outcome.skipped,
            skipped_steps=self._guard.skipped,
            sample_ids=data.sample_ids,
        )
        self._recorder.step(metrics, seconds)
        return metrics

    def _give_up(self, metrics: StepMetrics) -> None:
        """End the run: nothing is learnt any more. The checkpoints from before stand.

        Raises:
            EveryRankError: always.
        """
        self._world.agree(self._recorder.plot)
        place = self._plan.folder.metrics
        raise EveryRankError(too_many_skipped(metrics, self._guard.in_a_row, place))

    def _look(self, step: int) -> bool:
        """Evaluate and sample where that is due; return False if asked to stop meanwhile."""
        options, total = self._plan.options, self._plan.steps
        evaluates = step == 0 or is_due(options.eval_every, step, total)
        if evaluates and not self._validate(step):
            return False
        every = options.eval_every if options.sample_every is None else options.sample_every
        # What a model of random weights writes tells nothing.
        at_start = step == 0 and options.init is not None
        return not (at_start or is_due(every, step, total)) or self._sample(step)

    def _validate(self, step: int) -> bool:
        """Evaluate, unless that was done at this step; return False if asked to stop."""
        plan, world, loader = self._plan, self._world, self._plan.valid_loader
        if loader is None or plan.valid is None or step == self._validated_step:
            return True
        valid = plan.valid
        if self._valid_bytes is None:
            count = world.agree(lambda: supervised_bytes(valid) if world.is_main else 0)
            self._valid_bytes = world.gather(count)[0]
        with Feed(loader, range(loader.steps_per_epoch), world.device) as feed:
            metrics = evaluate(self._engine, feed, world, self._stop, step, self._valid_bytes)
        if metrics is None:
            return False
        self._validated_step = step
        self._recorder.validation(metrics)
        return True

    def _sample(self, step: int) -> bool:
        """Let the model write, unless it has at this step; return False if asked to stop."""
        if self._sampler is None or step == self._sampled_step:
            return True
        samples = self._sampler.run(self._engine, step)
        if samples is None:
            return False
        self._sampled_step = step
        self._recorder.samples(samples)
        return True

    def _save(self, step: int) -> None:
        plan, world = self._plan, self._world
        checkpoint.save(
            self._engine,
            plan.folder.checkpoints,
            replace(commit_record(plan, world, step), trainer_state=self._guard.state),
            world,
            plan.options.keep_last,
            plan.options.keep_every,
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
                plan.untrained_after,
            )
            self._recorder.plot()

        world.agree(write)
        self._reporter.say(f"done: model in {plan.folder.model}, curves in {plan.folder.plot}")
