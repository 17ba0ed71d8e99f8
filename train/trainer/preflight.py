"""Everything that can be refused is refused here, before a weight is made or a file written."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from modeling.card import read_card
from modeling.config import ModelConfig
from modeling.foreign_config import ForeignConfig, fitted, read_foreign
from modeling.huggingface import is_huggingface
from modeling.presets import PRESETS, load_config
from modeling.start import start_config, start_identity, untrained_tokens
from trainer import engine
from trainer.checkpoint import Commit
from trainer.compiling import check_compile
from trainer.data import (
    check_same_tokenizer,
    data_identity,
    open_all,
    open_data,
    training_loader,
)
from trainer.elastic import change_note, fit_shape, rows_per_step
from trainer.engine import AdamWSettings, BatchShape, MuonSettings
from trainer.lora import LoraSettings, lora_settings
from trainer.optimizers import check_muon
from trainer.options import PRETRAIN_SEQ_LEN, TrainOptions
from trainer.runfolder import RunFolder
from trainer.samples import Prompt, choose_prompts
from trainer.schedule import Schedule
from vnprep.errors import TrainingError
from vnprep.loading.loader import PackedLoader
from vnprep.loading.mixture import MixedLoader
from vnprep.shards.read import ShardSet
from vnprep.tokenizer.special import SpecialIds

#: Rows are padded to a multiple of this; matrix units like it.
_LENGTH_MULTIPLE = 8


@dataclass(frozen=True)
class Plan:
    """A run that has been found possible.

    Attributes:
        options: what the user asked for.
        sets: training data; the first one's tokenizer is the model's.
        loader: this rank's batches.
        valid: validation data, or None.
        valid_loader: this rank's validation batches, or None.
        prompts: what the model is asked while it trains; may be empty.
        model: the model's shape.
        lora: of the adapters, or None if all weights are trained.
        deepspeed: DeepSpeed's configuration, complete.
        shape: rows of a step.
        adamw: the optimizer's numbers.
        schedule: the learning rate, which also knows the number of steps.
        folder: where the run keeps its files.
        settings: what decides the run's curve, as plain JSON.
        notes: what was chosen otherwise than asked for, for the user.
        untrained: ids of special tokens that nothing has trained yet, where the run starts.
    """

    options: TrainOptions
    sets: tuple[ShardSet, ...]
    loader: PackedLoader | MixedLoader
    valid: ShardSet | None
    valid_loader: PackedLoader | None
    prompts: tuple[Prompt, ...]
    model: ModelConfig
    lora: LoraSettings | None
    deepspeed: engine.Config
    shape: BatchShape
    adamw: AdamWSettings
    schedule: Schedule
    folder: RunFolder
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()
    untrained: tuple[int, ...] = ()

    @property
    def untrained_after(self) -> tuple[int, ...]:
        """Ids of special tokens that nothing has trained yet, where the run ends."""
        if self.options.stage == "pretrain":
            return (self.sets[0].manifest.tokenizer.special.sep,)  # no text has one
        frozen = self.lora is not None and not self.lora.embeddings
        return self.untrained if frozen else ()

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.schedule.total_steps


def prepare(options: TrainOptions, rank: int, world_size: int, *, hashes: bool) -> Plan:
    """Check that data, model and options fit together.

    Args:
        options: what the user asked for.
        rank: of this process.
        world_size: number of ranks.
        hashes: whether this rank hashes the data under ``--data-check full``; one rank of a
            machine is enough.

    Raises:
        VnprepError: they do not, with the cause and what to do.
    """
    raw = engine.read_config(options.deepspeed_config)
    shape = engine.batch_shape(
        raw, options.micro_batch, options.accumulation, options.deepspeed_config
    )
    asked, rows = shape, rows_to_continue(options)
    if rows is not None:
        shape = fit_shape(
            asked,
            rows,
            world_size,
            micro_batch_given=options.micro_batch is not None,
            accumulation_given=options.accumulation is not None,
        )
    config = engine.final_config(raw, shape, options.grad_clip)
    if options.optimizer == "muon":
        check_muon(config, options.deepspeed_config)
    check_compile(options, config)
    check: Literal["full", "sizes"] = options.data_check if hashes else "sizes"
    sets = open_all(options, check)
    shards = sets[0]
    valid = None if options.valid is None else open_data(options.valid, options.stage, check)
    if valid is not None:
        check_same_tokenizer(valid, shards.manifest.tokenizer.fingerprint, "the training data")
    model = model_for(options, shards)
    foreign = isinstance(model, ForeignConfig)
    prompts = (
        () if foreign else choose_prompts(options, shards, valid, model.max_position_embeddings)
    )
    untrained = () if options.init is None else untrained_tokens(options.init, shards.tokenizer())
    lora = None if foreign else lora_settings(options, model, bool(untrained))
    seq_len = sequence_length(options, sets, valid, model)
    if isinstance(model, ForeignConfig):
        check_foreign(options, model, seq_len)
    train_loader = training_loader(sets, options, seq_len, shape, rank, world_size)
    valid_loader = None
    if valid is not None:
        valid_loader = PackedLoader(
            valid,
            seq_len=seq_len,
            micro_batch=shape.micro_batch,
            rank=rank,
            world=world_size,
            shuffle=False,
        )
    schedule = _schedule(options, train_loader.steps_per_epoch)
    settings = _settings(options, sets, model, schedule) | {
        "seq_len": seq_len,
        "rows_per_step": rows_per_step(shape, world_size),
        "lora": None if lora is None else lora.as_json(),
    }
    folder = RunFolder(options.out)
    folder.check(settings, fresh=options.resume == "never")
    engine.check_config(config, options.deepspeed_config)
    return Plan(
        options,
        sets,
        train_loader,
        valid,
        valid_loader,
        prompts,
        model,
        lora,
        config,
        shape,
        AdamWSettings(options.lr, options.betas, options.weight_decay, muon=_muon(options)),
        schedule,
        folder,
        settings,
        () if rows is None or shape == asked else (change_note(asked, shape, rows, world_size),),
        untrained,
    )


def rows_to_continue(options: TrainOptions) -> int | None:
    """Return the rows of a step of the run that is to continue, or None for a new run."""
    if options.resume == "never":
        return None
    settings = RunFolder(options.out).settings()
    if settings is None and options.resume != "auto":
        with contextlib.suppress(TrainingError):  # it will be raised where all files are checked
            settings = Commit.read(Path(options.resume)).settings
    rows = None if settings is None else settings.get("rows_per_step")
    return rows if isinstance(rows, int) and rows > 0 else None


def _schedule(options: TrainOptions, steps_per_epoch: int) -> Schedule:
    steps = options.steps or (options.epochs or 1) * steps_per_epoch
    return Schedule(
        options.lr,
        options.min_lr_ratio,
        options.warmup.steps(steps),
        steps,
        options.schedule,
        0 if options.decay is None else options.decay.steps(steps),
    )


def _muon(options: TrainOptions) -> MuonSettings | None:
    if options.optimizer == "adamw":
        return None
    return MuonSettings(options.muon_lr, options.muon_momentum)


def check_vocabulary(model: ModelConfig, shards: ShardSet, place: str) -> None:
    """See that the embedding holds every token id of the data.

    Raises:
        TrainingError: it does not.
    """
    needed = shards.manifest.tokenizer.vocab_size
    if model.vocab_size < needed:
        raise TrainingError(
            f"a vocabulary of {model.vocab_size:,}, but the data has ids up to {needed - 1:,}",
            place=place,
            remedy="take the tokenizer that the model was made for, or another model",
        )


def model_for(options: TrainOptions, shards: ShardSet) -> ModelConfig:
    """Return the shape of the model: a preset's, a file's, or that of ``--init``."""
    tokenizer = shards.manifest.tokenizer
    if options.init is None:
        assert options.model is not None, "each script has one of --model and --init"
        model = fresh_config(options, tokenizer.vocab_size, tokenizer.special)
        check_vocabulary(model, shards, options.model)
        return model
    if not is_huggingface(options.init):
        card = read_card(options.init)
        check_same_tokenizer(shards, card.fingerprint, "the model of --init")
    model = start_config(options.init, shards.tokenizer(), options.model_impl)
    if options.model_impl == "hf" and not isinstance(model, ForeignConfig):
        raise TrainingError(
            "a model of this project's own",
            place=f"--init {options.init}",
            remedy="leave out --model-impl hf",
        )
    check_vocabulary(model, shards, str(options.init))
    return model


def fresh_config(options: TrainOptions, vocab_size: int, special: SpecialIds) -> ModelConfig:
    """Return the shape that ``--model`` names, fitted to a tokenizer."""
    assert options.model is not None
    if options.model_impl == "own":
        return load_config(options.model, vocab_size, special)
    if options.model in PRESETS:
        raise TrainingError(
            "a preset of this project's own model",
            place=f"--model {options.model}",
            remedy="leave out --model-impl hf, or give a config.json",
        )
    return fitted(read_foreign(Path(options.model)), vocab_size, special)


def check_foreign(options: TrainOptions, model: ForeignConfig, seq_len: int) -> None:
    """Refuse what a model of transformers does not do here.

    Raises:
        TrainingError: an option asks for it, or its attention is shorter than a row.
    """
    asked = {
        "--lora": options.lora is not None,
        "--optimizer muon": options.optimizer == "muon",
        "--sample-prompt": bool(options.sample_prompt or options.sample_prompts),
    }
    for name, given in asked.items():
        if given:
            raise TrainingError(
                "a model of transformers does not do this here",
                place=name,
                remedy="leave it out, or take a Llama or Qwen3 without --model-impl hf",
            )
    if 0 < model.window < seq_len:
        raise TrainingError(
            f"layers of this model see {model.window:,} positions, a packed row has {seq_len:,}: "
            "the mask that keeps documents apart would undo that limit",
            place="--seq-len",
            remedy=f"give --seq-len {model.window} or less",
        )


def sequence_length(
    options: TrainOptions,
    sets: tuple[ShardSet, ...],
    valid: ShardSet | None,
    model: ModelConfig,
) -> int:
    """Choose the length of packed rows, or check the one that was asked for.

    Raises:
        TrainingError: it is more than the model has positions.
    """
    positions = model.max_position_embeddings
    if options.seq_len is not None:
        if options.seq_len > positions:
            raise TrainingError(
                f"{options.seq_len:,} positions, but the model has {positions:,}",
                place="--seq-len",
                remedy=f"give --seq-len {positions} or less, or a model with more positions",
            )
        return options.seq_len
    if options.stage == "pretrain":
        return min(PRETRAIN_SEQ_LEN, positions)
    all_sets = sets if valid is None else (*sets, valid)
    longest, folder = max((data.manifest.longest_row, data.folder) for data in all_sets)
    if longest > positions:
        raise TrainingError(
            f"the longest row has {longest:,} positions, but the model has {positions:,}",
            place=folder,
            remedy="prepare the data again with a smaller --max-tokens, "
            "or start from a model with more positions",
        )
    return min(positions, -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE)


def _settings(
    options: TrainOptions, sets: tuple[ShardSet, ...], model: ModelConfig, schedule: Schedule
) -> dict[str, Any]:
    """Collect what decides the curve, beside the batch; paths and names do not."""
    return {
        "stage": options.stage,
        **data_identity(sets, options.mix),
        "init": None if options.init is None else start_identity(options.init),
        "model": asdict(model),
        "tokenizer": sets[0].manifest.tokenizer.fingerprint,
        "steps": schedule.total_steps,
        "schedule": schedule.kind,
        "lr": options.lr,
        "min_lr_ratio": options.min_lr_ratio,
        "warmup_steps": schedule.warmup_steps,
        **({"decay_steps": schedule.decay_steps} if schedule.kind == "wsd" else {}),
        "weight_decay": options.weight_decay,
        "betas": list(options.betas),
        **(
            {"muon_lr": options.muon_lr, "muon_momentum": options.muon_momentum}
            if options.optimizer == "muon"
            else {}
        ),
        "grad_clip": options.grad_clip,
        "seed": options.seed,
    }
