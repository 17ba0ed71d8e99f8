"""A run from its options to its end: check, build, resume, loop."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from modeling.foreign import ForeignCausalLM, check_isolation, fresh
from modeling.foreign_config import ForeignConfig
from modeling.model import LlamaForCausalLM
from modeling.start import load_start
from trainer import checkpoint
from trainer import engine as deepspeed_engine
from trainer.checkpoint import Commit
from trainer.compiling import compile_layers, should_compile
from trainer.distributed import World
from trainer.fragments import partitions, refresh_weights
from trainer.loop import Trainer, commit_record
from trainer.lora import add_adapters
from trainer.options import TrainOptions
from trainer.preflight import Plan, prepare
from trainer.reporter import Reporter
from trainer.stop import StopRequest
from trainer.throughput import Throughput, count_parameters, flops_per_token, peak_flops
from vnprep.durable import folder_lock
from vnprep.errors import TrainingError


def train(options: TrainOptions, world: World) -> int:
    """Train; all ranks call this.

    Returns:
        0, or 128 + the signal that asked for the end; the state was saved then too.

    Raises:
        EveryRankError: an error that all ranks have met.
        OutputError: this rank could not write.
    """
    plan = world.agree(
        lambda: prepare(options, world.rank, world.size, hashes=world.local_rank == 0)
    )
    stop = StopRequest()
    with contextlib.ExitStack() as stack:
        world.agree(lambda: _claim(plan, world, stack))
        resumed, damaged = world.agree(lambda: _find_checkpoint(plan, world))
        reporter = stack.enter_context(
            Reporter(plan.steps, options.log_every, speaks=world.is_main)
        )
        for problem in damaged:
            reporter.say(f"warning: checkpoint passed over: {problem.place}: {problem.cause}")
        model = world.agree(lambda: build_model(plan))
        parameters, trained = count_parameters(model)
        compiled = False
        if isinstance(model, LlamaForCausalLM):
            compiled = should_compile(options, plan.deepspeed, world.device)
            if compiled:
                compile_layers(model, options.compile_backend)
        engine = deepspeed_engine.build_engine(model, plan.adamw, plan.deepspeed, world)
        world.agree(lambda: partitions(engine))  # what could not be saved is refused now
        reporter.say(_summary(plan, parameters, trained, world, compiled=compiled))
        for note in plan.notes:
            reporter.say(note)
        if resumed is not None:
            path, commit = resumed
            world.agree(lambda: checkpoint.load(engine, path, commit))
            refresh_weights(engine)
            reporter.say(f"continuing after step {commit.step} ({path})")
            if commit.layout != (now := commit_record(plan, world, 0).layout):
                reporter.say(f"written by {commit.layout}; now {now}")
        throughput = _throughput(plan, parameters, trained, world)
        start, state = (resumed[1].step, resumed[1].trainer_state) if resumed else (0, {})
        return Trainer(plan, engine, world, stop, reporter, throughput, start, state).run()


def _throughput(plan: Plan, parameters: int, trained: int, world: World) -> Throughput:
    precision = deepspeed_engine.precision(plan.deepspeed)
    return Throughput(
        flops_per_token(plan.model, parameters, trained, plan.loader.seq_len),
        peak_flops(world.device, precision, plan.options.peak_tflops),
    )


def build_model(plan: Plan) -> LlamaForCausalLM | ForeignCausalLM:
    """Make the model in float32 on the host: the same weights on every rank, from the seed."""
    model = _build(plan)
    if isinstance(model, ForeignCausalLM):
        check_isolation(model, plan.loader.seq_len)
    return model


def _build(plan: Plan) -> LlamaForCausalLM | ForeignCausalLM:
    options = plan.options
    if options.init is not None:
        model = load_start(options.init, plan.sets[0].tokenizer(), options.model_impl)
        if plan.lora is not None:
            assert isinstance(model, LlamaForCausalLM), "refused in preflight"
            add_adapters(model, plan.lora, plan.options.seed)
        return model
    torch.manual_seed(options.seed)
    return (
        fresh(plan.model) if isinstance(plan.model, ForeignConfig) else LlamaForCausalLM(plan.model)
    )


def _claim(plan: Plan, world: World, stack: contextlib.ExitStack) -> None:
    if world.is_main:
        plan.folder.claim(plan.settings, plan.sets[0].tokenizer())
        stack.enter_context(folder_lock(plan.folder.checkpoints))
        checkpoint.sweep(plan.folder.checkpoints)


def _find_checkpoint(
    plan: Plan, world: World
) -> tuple[tuple[Path, Commit] | None, list[TrainingError]]:
    """Find what to continue from; also name the damaged checkpoints that were passed over."""
    damaged: list[TrainingError] = []
    if plan.options.resume == "never":
        return None, damaged
    path: Path | None
    if plan.options.resume == "auto":
        path, damaged = checkpoint.newest_whole(plan.folder.checkpoints, world)
        if path is None:
            return None, damaged
        commit = Commit.read(path)
    else:
        path = Path(plan.options.resume)
        commit = checkpoint.verify(path, world)
    checkpoint.check_continues(commit, commit_record(plan, world, commit.step), path)
    return (path, commit), damaged


def _summary(plan: Plan, parameters: int, trained: int, world: World, *, compiled: bool) -> str:
    shape = plan.shape
    rows = sum(shards.manifest.rows for shards in plan.sets)
    supervised = sum(shards.manifest.supervised_tokens for shards in plan.sets)
    positions = shape.micro_batch * shape.accumulation * world.size * plan.loader.seq_len
    part = "" if trained == parameters else f", {trained / 1e6:,.2f} M of them trained"
    ranks = "1 rank" if world.size == 1 else f"{world.size} ranks"
    return (
        f"{parameters / 1e6:,.1f} M parameters{part} · {rows:,} rows, "
        f"{supervised:,} supervised tokens, packed {plan.loader.fill:.1%} full\n"
        f"{ranks} × micro-batch {shape.micro_batch} × accumulation {shape.accumulation} × "
        f"{plan.loader.seq_len} = {positions:,} positions a step · "
        f"ZeRO {deepspeed_engine.zero_stage(plan.deepspeed)}, "
        f"{deepspeed_engine.precision(plan.deepspeed)}, {world.device.type}"
        f"{', compiled' if compiled else ''} · "
        f"{plan.steps:,} steps, {plan.loader.steps_per_epoch:,} an epoch"
    )
