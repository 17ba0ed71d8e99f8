"""The options of pretraining and fine-tuning, with their help; ``options`` holds the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from trainer.option_types import FOLDER, NATURAL, POSITIVE, RATE, MixType, NamesType, WarmupType
from trainer.options import (
    DEFAULT_EPOCHS,
    DEFAULT_LR,
    DEFAULT_SPIKE_FACTOR,
    DEFAULT_WEIGHT_DECAY,
    PRETRAIN_SEQ_LEN,
    Stage,
)
from trainer.schedule import SHAPES

F = TypeVar("F", bound=Callable[..., Any])


def _data_options() -> list[Callable[[F], F]]:
    return [
        click.option(
            "--model-impl",
            type=click.Choice(["own", "hf"]),
            default="own",
            show_default=True,
            help="Who implements the model: this project (Llama, Qwen3), or transformers (other "
            "architectures; slower).",
        ),
        click.option(
            "--data",
            type=FOLDER,
            required=True,
            multiple=True,
            help="Folder of prepared data. Repeatable, with --mix.",
        ),
        click.option(
            "--mix",
            type=MixType(),
            help="Of several --data: each one's share of the packed rows, e.g. 0.7,0.3.",
        ),
        click.option("--out", type=FOLDER, required=True, help="Folder of this run."),
        click.option("--valid", type=FOLDER, help="Folder of prepared validation data."),
        click.option(
            "--data-check",
            type=click.Choice(["full", "sizes"]),
            default="full",
            show_default=True,
            help="Hash all data before training, or compare sizes alone.",
        ),
    ]


def _length_options(stage: Stage) -> list[Callable[[F], F]]:
    seq_len = (
        f"{PRETRAIN_SEQ_LEN}, or the model's positions if fewer"
        if stage == "pretrain"
        else "the longest row, rounded up to a multiple of 8"
    )
    return [
        click.option("--steps", type=POSITIVE, help="Optimizer steps."),
        click.option(
            "--epochs",
            type=POSITIVE,
            help=f"Passes over the data, instead of --steps.  [default: {DEFAULT_EPOCHS[stage]}]",
        ),
        click.option(
            "--seq-len",
            type=POSITIVE,
            help=f"Positions of a packed row.  [default: {seq_len}]",
        ),
        click.option(
            "--micro-batch",
            type=POSITIVE,
            help="Packed rows on each rank at a time.  [default: the DeepSpeed configuration's]",
        ),
        click.option(
            "--accumulation",
            type=POSITIVE,
            help="Micro-batches of a step.  [default: the DeepSpeed configuration's]",
        ),
    ]


def _shown(*names: str, **settings: Any) -> Callable[[F], F]:
    """Make an option whose default is shown."""
    return click.option(*names, show_default=True, **settings)


def _schedule_options(stage: Stage) -> list[Callable[[F], F]]:
    return [
        _shown("--lr", type=RATE, default=DEFAULT_LR[stage], help="Highest learning rate."),
        _shown(
            "--min-lr-ratio",
            type=click.FloatRange(0, 1),
            default=0.1,
            help="Last learning rate as a share of --lr.",
        ),
        _shown(
            "--warmup",
            type=WarmupType(),
            default="5%",
            help="Steps of rising rate, as a number (100) or a share of all (0.05, 5%).",
        ),
        _shown(
            "--schedule",
            type=click.Choice(sorted(SHAPES)),
            default="cosine",
            help="How the rate falls after the warm-up; wsd keeps it until --decay.",
        ),
        click.option(
            "--decay",
            type=WarmupType(),
            help="Of --schedule wsd: steps of falling rate at the end, as a number or a share.  "
            "[default: 20%]",
        ),
    ]


def _optimizer_options(stage: Stage) -> list[Callable[[F], F]]:
    return [
        _shown(
            "--weight-decay",
            type=click.FloatRange(min=0),
            default=DEFAULT_WEIGHT_DECAY[stage],
            help="AdamW's decay, on matrices only.",
        ),
        _shown(
            "--betas",
            type=click.FloatRange(0, 1, max_open=True),
            nargs=2,
            default=(0.9, 0.95),
            help="AdamW's two averages.",
        ),
        _shown(
            "--optimizer",
            type=click.Choice(["adamw", "muon"]),
            default="adamw",
            help="muon: Muon for the layers' matrices, AdamW for the rest.",
        ),
        click.option("--muon-lr", type=RATE, help="Muon's highest learning rate.  [default: 0.02]"),
        click.option(
            "--muon-momentum",
            type=click.FloatRange(0, 1, max_open=True),
            help="Muon's momentum.  [default: 0.95]",
        ),
    ]


def _guard_options(stage: Stage) -> list[Callable[[F], F]]:
    return [
        _shown(
            "--grad-clip",
            type=click.FloatRange(min=0),
            default=1.0,
            help="Largest norm of the gradient; 0 is no limit.",
        ),
        _shown(
            "--spike-factor",
            type=click.FloatRange(min=0),
            default=DEFAULT_SPIKE_FACTOR[stage],
            help="Skip a step whose gradient norm is beyond --grad-clip and so many times the "
            "median of the last good ones; 0: never. A step whose loss or gradient is no number "
            "is skipped in any case.",
        ),
        _shown(
            "--max-bad-steps",
            type=POSITIVE,
            default=10,
            help="Skipped steps in a row that end the run.",
        ),
        _shown(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            default=0,
            help="Decides the first weights and the order of the data.",
        ),
    ]


def _lora_options() -> list[Callable[[F], F]]:
    return [
        click.option(
            "--lora",
            type=POSITIVE,
            metavar="RANK",
            help="Train adapters of this rank (LoRA) instead of all weights; OUT/model is the "
            "merged model, OUT/adapter the adapter alone, in PEFT's form.",
        ),
        click.option(
            "--lora-alpha",
            type=RATE,
            help="The adapters count alpha / rank times.  [default: twice the rank]",
        ),
        click.option(
            "--lora-targets",
            type=NamesType(),
            help="Names of the linear layers that get adapters.  [default: all but the head]",
        ),
        click.option(
            "--lora-dropout",
            type=click.FloatRange(0, 1, max_open=True),
            default=0.0,
            show_default=True,
            help="Share of the adapters' inputs that is dropped.",
        ),
        click.option(
            "--lora-embeddings/--no-lora-embeddings",
            default=None,
            help="Train the embeddings, too.  [default: if --init has new special tokens]",
        ),
    ]


def _seeing_options() -> list[Callable[[F], F]]:
    return [
        click.option(
            "--eval-every",
            type=NATURAL,
            default=100,
            show_default=True,
            help="Steps between evaluations on --valid; 0: at the start and the end alone.",
        ),
        click.option(
            "--sample-prompt",
            multiple=True,
            metavar="TEXT",
            help="Let the model answer (pretraining: continue) this while it trains. Repeatable.  "
            "[default: the first rows of --valid]",
        ),
        click.option(
            "--sample-prompts", type=FOLDER, metavar="FILE", help="More of these, one a line."
        ),
        click.option(
            "--sample-every",
            type=NATURAL,
            help="Steps between such samples; 0: none.  [default: --eval-every]",
        ),
        click.option(
            "--sample-tokens",
            type=POSITIVE,
            default=48,
            show_default=True,
            help="Longest sample, in tokens.",
        ),
        click.option(
            "--log-every",
            type=POSITIVE,
            default=10,
            show_default=True,
            help="Steps between progress lines where stderr is no terminal.",
        ),
        click.option(
            "--tensorboard/--no-tensorboard",
            default=True,
            show_default=True,
            help="Write OUT/tensorboard.",
        ),
        click.option(
            "--peak-tflops",
            type=RATE,
            help="Dense peak of a device in TFLOP/s, for MFU.  [default: by the GPU's name, bf16]",
        ),
    ]


def _saving_options() -> list[Callable[[F], F]]:
    return [
        click.option(
            "--save-every",
            type=NATURAL,
            default=500,
            show_default=True,
            help="Steps between checkpoints; 0: at the end alone.",
        ),
        click.option(
            "--keep-last", type=POSITIVE, default=2, show_default=True, help="Checkpoints to keep."
        ),
        click.option(
            "--keep-every",
            type=NATURAL,
            default=0,
            show_default=True,
            help="Keep those of steps that are a multiple of this, too; 0: none.",
        ),
        click.option(
            "--resume",
            default="auto",
            show_default=True,
            metavar="auto|never|PATH",
            help="Continue the newest whole checkpoint in --out if there is one; start anew "
            "(in an empty --out); or continue the checkpoint in a folder.",
        ),
    ]


def _running_options() -> list[Callable[[F], F]]:
    return [
        click.option(
            "--deepspeed_config",
            type=FOLDER,
            required=True,
            help="DeepSpeed's JSON file, e.g. one of ds_configs/.",
        ),
        click.option(
            "--compile/--no-compile",
            default=None,
            help="Compile the decoder layers (torch.compile).  [default: on CUDA, ZeRO 0 to 2]",
        ),
        click.option(
            "--compile-backend",
            default="inductor",
            show_default=True,
            metavar="NAME",
            help="What torch.compile makes code with.",
        ),
        click.option(
            "--threads",
            type=POSITIVE,
            help="CPU threads of each rank.  [default: the cores, shared among the ranks]",
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Check everything, say steps, memory and disk, and end; nothing is written.",
        ),
        click.option(
            "--ranks",
            type=POSITIVE,
            help="Of --dry-run: ranks to plan for.  [default: those here]",
        ),
        click.option("--json", is_flag=True, help="Of --dry-run: answer in JSON."),
        click.option("--local_rank", type=int, hidden=True, help="Set by the launcher."),
    ]


def training_options(stage: Stage) -> Callable[[F], F]:
    """Return a decorator that adds the options that both stages have."""
    options = [
        *_data_options(),
        *_length_options(stage),
        *_schedule_options(stage),
        *_optimizer_options(stage),
        *_guard_options(stage),
        *(_lora_options() if stage == "finetune" else []),
        *_seeing_options(),
        *_saving_options(),
        *_running_options(),
    ]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
