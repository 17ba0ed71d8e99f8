"""The options that pretraining and fine-tuning share, checked before torch is imported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from trainer.schedule import SHAPES, Warmup

F = TypeVar("F", bound=Callable[..., Any])

Stage = Literal["pretrain", "finetune"]

#: Passes over the data if neither --steps nor --epochs is given.
DEFAULT_EPOCHS: dict[Stage, int] = {"pretrain": 1, "finetune": 3}
DEFAULT_LR: dict[Stage, float] = {"pretrain": 1e-3, "finetune": 3e-4}
DEFAULT_WEIGHT_DECAY: dict[Stage, float] = {"pretrain": 0.1, "finetune": 0.01}
#: Far above what sound runs show: 1.3 in pretraining on the samples, 33 in fine-tuning, where
#: the loss is nearly 0 at the end and single examples stand out.
DEFAULT_SPIKE_FACTOR: dict[Stage, float] = {"pretrain": 20.0, "finetune": 100.0}
#: Falling part of ``--schedule wsd`` if --decay is not given.
DEFAULT_DECAY = Warmup(0.2, is_share=True)
#: Positions of a pretraining row, unless the model has fewer.
PRETRAIN_SEQ_LEN = 256


@dataclass(frozen=True)
class TrainOptions:
    """What the user asked for.

    Attributes:
        stage: what the script trains.
        data: folders of prepared data.
        mix: each folder's share of the packed rows; None if there is but one.
        out: folder of the run.
        deepspeed_config: JSON file.
        model: preset or config file, for a model from nothing; pretraining only.
        init: folder to start from: a run, a model, or one in Hugging Face's form.
        model_impl: ``own``, or ``hf`` for a model as transformers implements it.
        lora: rank of the adapters, or None to train all weights; fine-tuning only.
        lora_alpha: the adapters count ``lora_alpha / lora`` times; None is twice the rank.
        lora_targets: names of the linear layers that get adapters; None is all.
        lora_dropout: share of the adapters' inputs that is dropped.
        lora_embeddings: whether the embeddings are trained, too; None if tokens are new.
        steps: optimizer steps, or None if ``epochs`` decides.
        epochs: passes over the data, or None if ``steps`` decides.
        seq_len: positions of a packed row; None chooses.
        micro_batch: packed rows a rank and pass; None takes the DeepSpeed configuration's.
        accumulation: passes a step; None takes the DeepSpeed configuration's.
        lr: highest learning rate.
        min_lr_ratio: lowest rate as a share of ``lr``.
        warmup: steps, or share of all steps, of rising rate.
        schedule: name in ``schedule.SHAPES``.
        decay: of the schedule ``wsd``, steps or share of falling rate at the end.
        weight_decay: AdamW's, on matrices.
        betas: AdamW's.
        optimizer: ``adamw``, or ``muon`` for the matrices of the layers.
        muon_lr: Muon's highest learning rate.
        muon_momentum: Muon's.
        grad_clip: largest norm of the gradient; 0 is no limit.
        spike_factor: a step is skipped if its gradient norm is beyond so many times the median
            of the last ones; 0 is never.
        max_bad_steps: skipped steps in a row that end the run.
        seed: decides the first weights and the order of the data.
        valid: folder of validation data, or None.
        eval_every: steps between evaluations; 0 is at the start and the end alone.
        sample_prompt: what the model is asked while it trains; empty takes validation data.
        sample_prompts: file of more of them, one a line, or None.
        sample_every: steps between samples; 0 is never, None as evaluations.
        sample_tokens: longest sample.
        save_every: steps between checkpoints; 0 is at the end alone.
        keep_last: checkpoints to keep.
        keep_every: checkpoints of steps that are a multiple of this are kept, too; 0 is none.
        resume: ``auto``, ``never``, or a checkpoint's folder.
        log_every: steps between lines where stderr is no terminal.
        tensorboard: whether to write curves for TensorBoard.
        peak_tflops: a device's peak, for MFU; None takes a table's.
        compile: whether the decoder layers are compiled; None decides by device and ZeRO stage.
        compile_backend: of ``torch.compile``.
        threads: CPU threads of each rank; None shares the cores.
        dry_run: say what the run would be, and end.
        ranks: of a dry run, to plan for; None takes the launcher's.
        json: of a dry run, whether to answer in JSON.
        data_check: ``full`` hashes all data first, ``sizes`` compares sizes alone.
    """

    stage: Stage
    data: tuple[Path, ...]
    mix: tuple[float, ...] | None
    out: Path
    deepspeed_config: Path
    model: str | None
    init: Path | None
    model_impl: Literal["own", "hf"] = field(default="own", kw_only=True)
    lora: int | None
    lora_alpha: float | None
    lora_targets: tuple[str, ...] | None
    lora_dropout: float
    lora_embeddings: bool | None
    steps: int | None
    epochs: int | None
    seq_len: int | None
    micro_batch: int | None
    accumulation: int | None
    lr: float
    min_lr_ratio: float
    warmup: Warmup
    schedule: str
    decay: Warmup | None = field(default=None, kw_only=True)
    weight_decay: float
    betas: tuple[float, float]
    optimizer: Literal["adamw", "muon"] = field(default="adamw", kw_only=True)
    muon_lr: float = field(default=0.02, kw_only=True)
    muon_momentum: float = field(default=0.95, kw_only=True)
    grad_clip: float
    spike_factor: float
    max_bad_steps: int
    seed: int
    valid: Path | None
    eval_every: int
    sample_prompt: tuple[str, ...]
    sample_prompts: Path | None
    sample_every: int | None
    sample_tokens: int
    save_every: int
    keep_last: int
    keep_every: int
    resume: str
    log_every: int
    tensorboard: bool
    peak_tflops: float | None
    compile: bool | None
    compile_backend: str
    threads: int | None
    data_check: Literal["full", "sizes"]
    dry_run: bool = field(default=False, kw_only=True)
    ranks: int | None = field(default=None, kw_only=True)
    json: bool = field(default=False, kw_only=True)

    @classmethod
    def collect(cls, stage: Stage, values: dict[str, Any]) -> TrainOptions:
        """Make the options of what click parsed.

        Raises:
            click.UsageError: two of them exclude each other.
        """
        values = dict(values)
        values.pop("local_rank")
        values.setdefault("model", None)
        values.setdefault("init", None)
        _check_lora(values)
        if (values["model"] is None) == (values["init"] is None):
            raise click.UsageError(
                "give one of --model, for a model from nothing, and --init, to start from one"
            )
        if values["steps"] is not None and values["epochs"] is not None:
            raise click.UsageError("--steps and --epochs exclude each other: give one of them")
        count = len(values["data"])
        if len(values["mix"] or (1.0,)) != count:
            raise click.UsageError(
                f"--mix needs a weight for each --data, {count} here, e.g. --mix "
                + ",".join(["1"] * count)
            )
        if count == 1:
            values["mix"] = None
        if values["decay"] is not None and values["schedule"] != "wsd":
            raise click.UsageError(
                f"--decay belongs to --schedule wsd; --schedule {values['schedule']} has no part "
                "of its own that falls"
            )
        if values["decay"] is None and values["schedule"] == "wsd":
            values["decay"] = DEFAULT_DECAY
        for name in ("ranks", "json"):
            if values[name] and not values["dry_run"]:
                raise click.UsageError(f"--{name} belongs to --dry-run")
        for name, default in (("muon_lr", 0.02), ("muon_momentum", 0.95)):
            if values[name] is not None and values["optimizer"] != "muon":
                raise click.UsageError(f"--{name.replace('_', '-')} belongs to --optimizer muon")
            values[name] = default if values[name] is None else values[name]
        _check_needs(values)
        if values["steps"] is None and values["epochs"] is None:
            values["epochs"] = DEFAULT_EPOCHS[stage]
        return cls(stage=stage, **values)


def _check_needs(values: dict[str, Any]) -> None:
    """Refuse options that would do nothing without another."""
    asked = values["sample_prompt"] or values["sample_prompts"]
    for name, works, needs in (
        ("eval_every", values["valid"], "--valid"),
        ("sample_every", values["valid"] or asked, "--valid or --sample-prompt"),
        ("sample_tokens", values["valid"] or asked, "--valid or --sample-prompt"),
        ("keep_every", values["save_every"] or not values["keep_every"], "--save-every above 0"),
        ("min_lr_ratio", values["schedule"] != "constant", "a --schedule that falls"),
    ):
        if _given(name) and not works:
            raise click.UsageError(f"--{name.replace('_', '-')} does nothing without {needs}")


def _given(name: str) -> bool:
    """Whether the user named an option."""
    context = click.get_current_context(silent=True)
    source = None if context is None else context.get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


#: LoRA's options, as they are without LoRA.
_LORA: dict[str, Any] = {
    "lora": None,
    "lora_alpha": None,
    "lora_targets": None,
    "lora_dropout": 0.0,
    "lora_embeddings": None,
}


def _check_lora(values: dict[str, Any]) -> None:
    """Fill in LoRA's options where a script has none; refuse those that need ``--lora``."""
    for name, default in _LORA.items():
        values.setdefault(name, default)
        if values["lora"] is None and values[name] != default:
            raise click.UsageError(
                f"--{name.replace('_', '-')} means something with --lora only: give --lora RANK too"
            )


class _NamesType(click.ParamType[tuple[str, ...]]):
    name = "name,name,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = tuple(part.strip() for part in value.split(","))
        if not all(names):
            self.fail(f"{value!r} has an empty name; give names like q_proj,v_proj.", param, ctx)
        return names


class _WarmupType(click.ParamType[Warmup]):
    name = "steps|share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Warmup:
        if isinstance(value, Warmup):
            return value
        try:
            return Warmup.parse(value)
        except ValueError as error:
            self.fail(f"{error}; give steps (100) or a share (0.05 or 5%).", param, ctx)


class _MixType(click.ParamType[tuple[float, ...]]):
    name = "w,w,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            weights = tuple(float(part) for part in value.split(","))
        except ValueError:
            weights = ()
        if not weights or not all(0 < weight < math.inf for weight in weights):
            self.fail(f"{value!r} are no weights above 0, like 0.7,0.3.", param, ctx)
        return weights


_FOLDER = click.Path(path_type=Path)
_POSITIVE = click.IntRange(min=1)
_NATURAL = click.IntRange(min=0)
_RATE = click.FloatRange(min=0, min_open=True)


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
            type=_FOLDER,
            required=True,
            multiple=True,
            help="Folder of prepared data. Repeatable, with --mix.",
        ),
        click.option(
            "--mix",
            type=_MixType(),
            help="Of several --data: each one's share of the packed rows, e.g. 0.7,0.3.",
        ),
        click.option("--out", type=_FOLDER, required=True, help="Folder of this run."),
        click.option("--valid", type=_FOLDER, help="Folder of prepared validation data."),
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
        click.option("--steps", type=_POSITIVE, help="Optimizer steps."),
        click.option(
            "--epochs",
            type=_POSITIVE,
            help=f"Passes over the data, instead of --steps.  [default: {DEFAULT_EPOCHS[stage]}]",
        ),
        click.option(
            "--seq-len",
            type=_POSITIVE,
            help=f"Positions of a packed row.  [default: {seq_len}]",
        ),
        click.option(
            "--micro-batch",
            type=_POSITIVE,
            help="Packed rows on each rank at a time.  [default: the DeepSpeed configuration's]",
        ),
        click.option(
            "--accumulation",
            type=_POSITIVE,
            help="Micro-batches of a step.  [default: the DeepSpeed configuration's]",
        ),
    ]


def _optimizer_options(stage: Stage) -> list[Callable[[F], F]]:
    def shown(*names: str, **settings: Any) -> Callable[[F], F]:
        return click.option(*names, show_default=True, **settings)

    return [
        shown("--lr", type=_RATE, default=DEFAULT_LR[stage], help="Highest learning rate."),
        shown(
            "--min-lr-ratio",
            type=click.FloatRange(0, 1),
            default=0.1,
            help="Last learning rate as a share of --lr.",
        ),
        shown(
            "--warmup",
            type=_WarmupType(),
            default="5%",
            help="Steps of rising rate, as a number (100) or a share of all (0.05, 5%).",
        ),
        shown(
            "--schedule",
            type=click.Choice(sorted(SHAPES)),
            default="cosine",
            help="How the rate falls after the warm-up; wsd keeps it until --decay.",
        ),
        click.option(
            "--decay",
            type=_WarmupType(),
            help="Of --schedule wsd: steps of falling rate at the end, as a number or a share.  "
            "[default: 20%]",
        ),
        shown(
            "--weight-decay",
            type=click.FloatRange(min=0),
            default=DEFAULT_WEIGHT_DECAY[stage],
            help="AdamW's decay, on matrices only.",
        ),
        shown(
            "--betas",
            type=click.FloatRange(0, 1, max_open=True),
            nargs=2,
            default=(0.9, 0.95),
            help="AdamW's two averages.",
        ),
        shown(
            "--optimizer",
            type=click.Choice(["adamw", "muon"]),
            default="adamw",
            help="muon: Muon for the layers' matrices, AdamW for the rest.",
        ),
        click.option(
            "--muon-lr", type=_RATE, help="Muon's highest learning rate.  [default: 0.02]"
        ),
        click.option(
            "--muon-momentum",
            type=click.FloatRange(0, 1, max_open=True),
            help="Muon's momentum.  [default: 0.95]",
        ),
        shown(
            "--grad-clip",
            type=click.FloatRange(min=0),
            default=1.0,
            help="Largest norm of the gradient; 0 is no limit.",
        ),
        shown(
            "--spike-factor",
            type=click.FloatRange(min=0),
            default=DEFAULT_SPIKE_FACTOR[stage],
            help="Skip a step whose gradient norm is beyond --grad-clip and so many times the "
            "median of the last good ones; 0: never. A step whose loss or gradient is no number "
            "is skipped in any case.",
        ),
        shown(
            "--max-bad-steps",
            type=_POSITIVE,
            default=10,
            help="Skipped steps in a row that end the run.",
        ),
        shown(
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
            type=_POSITIVE,
            metavar="RANK",
            help="Train adapters of this rank (LoRA) instead of all weights; OUT/model is the "
            "merged model, OUT/adapter the adapter alone, in PEFT's form.",
        ),
        click.option(
            "--lora-alpha",
            type=_RATE,
            help="The adapters count alpha / rank times.  [default: twice the rank]",
        ),
        click.option(
            "--lora-targets",
            type=_NamesType(),
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


def _running_options() -> list[Callable[[F], F]]:
    return [
        click.option(
            "--deepspeed_config",
            type=_FOLDER,
            required=True,
            help="DeepSpeed's JSON file, e.g. one of ds_configs/.",
        ),
        click.option(
            "--eval-every",
            type=_NATURAL,
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
            "--sample-prompts", type=_FOLDER, metavar="FILE", help="More of these, one a line."
        ),
        click.option(
            "--sample-every",
            type=_NATURAL,
            help="Steps between such samples; 0: none.  [default: --eval-every]",
        ),
        click.option(
            "--sample-tokens",
            type=_POSITIVE,
            default=48,
            show_default=True,
            help="Longest sample, in tokens.",
        ),
        click.option(
            "--save-every",
            type=_NATURAL,
            default=500,
            show_default=True,
            help="Steps between checkpoints; 0: at the end alone.",
        ),
        click.option(
            "--keep-last", type=_POSITIVE, default=2, show_default=True, help="Checkpoints to keep."
        ),
        click.option(
            "--keep-every",
            type=_NATURAL,
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
        click.option(
            "--log-every",
            type=_POSITIVE,
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
            type=_RATE,
            help="Dense peak of a device in TFLOP/s, for MFU.  [default: by the GPU's name, bf16]",
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
            type=_POSITIVE,
            help="CPU threads of each rank.  [default: the cores, shared among the ranks]",
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Check everything, say steps, memory and disk, and end; nothing is written.",
        ),
        click.option(
            "--ranks",
            type=_POSITIVE,
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
        *_optimizer_options(stage),
        *(_lora_options() if stage == "finetune" else []),
        *_running_options(),
    ]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
