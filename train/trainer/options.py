"""What the user asked for, as pretraining and fine-tuning share it; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.option_checks import check
from trainer.schedule import Warmup

Stage = Literal["pretrain", "finetune"]

#: Passes over the data if neither --steps nor --epochs is given.
DEFAULT_EPOCHS: dict[Stage, int] = {"pretrain": 1, "finetune": 3}
DEFAULT_LR: dict[Stage, float] = {"pretrain": 1e-3, "finetune": 3e-4}
DEFAULT_WEIGHT_DECAY: dict[Stage, float] = {"pretrain": 0.1, "finetune": 0.01}
#: Far above what sound runs show: 1.3 in pretraining on the samples, 33 in fine-tuning, where
#: the loss is nearly 0 at the end and single examples stand out.
DEFAULT_SPIKE_FACTOR: dict[Stage, float] = {"pretrain": 20.0, "finetune": 100.0}
DEFAULT_MUON: dict[str, float] = {"muon_lr": 0.02, "muon_momentum": 0.95}
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
    muon_lr: float = field(default=DEFAULT_MUON["muon_lr"], kw_only=True)
    muon_momentum: float = field(default=DEFAULT_MUON["muon_momentum"], kw_only=True)
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
            click.UsageError: two of them exclude each other (see ``option_checks``).
        """
        values = dict(values)
        values.pop("local_rank")
        values.setdefault("model", None)
        values.setdefault("init", None)
        check(values)
        values["mix"] = values["mix"] if len(values["data"]) > 1 else None
        if values["decay"] is None and values["schedule"] == "wsd":
            values["decay"] = DEFAULT_DECAY
        for name, default in DEFAULT_MUON.items():
            values[name] = default if values[name] is None else values[name]
        if values["steps"] is None and values["epochs"] is None:
            values["epochs"] = DEFAULT_EPOCHS[stage]
        return cls(stage=stage, **values)
