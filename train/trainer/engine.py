"""DeepSpeed: its configuration, the optimizer, the engine, and the whole weights at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.distributed import World
from trainer.dsconfig import refuse_unread, watched
from vnprep.errors import TrainingError

Config = dict[str, Any]

#: Sections that this trainer replaces, and where their settings are given instead.
_REPLACED = {
    "optimizer": "--lr, --betas and --weight-decay",
    "scheduler": "--schedule, --warmup and --min-lr-ratio",
    "fp16": 'bf16: {"bf16": {"enabled": true}}; fp16 needs loss scaling, which drops steps',
}


@dataclass(frozen=True)
class BatchShape:
    """Rows of a step: ``micro_batch`` on each rank, ``accumulation`` times."""

    micro_batch: int
    accumulation: int


@dataclass(frozen=True)
class MuonSettings:
    """Muon's numbers: its rate follows the schedule in proportion to AdamW's."""

    lr: float
    momentum: float


@dataclass(frozen=True)
class AdamWSettings:
    """AdamW's numbers; the learning rate is set anew at every step.

    With ``muon`` the matrices of the decoder layers are Muon's, and the rest AdamW's.
    """

    lr: float
    betas: tuple[float, float]
    weight_decay: float
    eps: float = 1e-8
    muon: MuonSettings | None = None


def read_config(path: Path) -> Config:
    """Read a DeepSpeed configuration.

    Raises:
        TrainingError: it is missing, no JSON object, or has a section that this trainer replaces.
    """
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise TrainingError(
            "no such DeepSpeed configuration",
            place=path,
            remedy="take one of ds_configs/, e.g. --deepspeed_config ds_configs/zero1.json",
        ) from None
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"not a JSON file ({error})", place=path, remedy="compare it with ds_configs/zero1.json"
        ) from None
    if not isinstance(config, dict):
        raise TrainingError("holds no JSON object", place=path, remedy="see ds_configs/zero1.json")
    for section, instead in _REPLACED.items():
        value = config.get(section)
        if value and not (isinstance(value, dict) and value.get("enabled") is False):
            raise TrainingError(
                f"has a section {section!r}, which this trainer sets itself",
                place=path,
                remedy=f"remove it and use {instead}",
            )
    zero = config.get("zero_optimization")
    if isinstance(zero, dict) and zero.get("compute_grad_norm") is False:
        raise TrainingError(
            "has compute_grad_norm false, without which no bad gradient would be noticed",
            place=path,
            remedy="leave it out",
        )
    if "auto" in _values(config):
        raise TrainingError(
            'has a value "auto", which means something to the Hugging Face Trainer only',
            place=path,
            remedy="write the number, or leave the setting out",
        )
    return config


def _values(config: Any) -> list[Any]:
    """Return every leaf of nested dictionaries."""
    if isinstance(config, dict):
        return [leaf for value in config.values() for leaf in _values(value)]
    return [config]


def batch_shape(
    config: Config, micro_batch: int | None, accumulation: int | None, place: Path
) -> BatchShape:
    """Take each number from the command line, else from the configuration, else 1.

    Raises:
        TrainingError: the configuration's number is none, or below 1.
    """

    def number(given: int | None, name: str) -> int:
        value = config.get(name, 1) if given is None else given
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise TrainingError(
                f"{name} is {value!r}", place=place, remedy="give a whole number from 1 on"
            )
        return value

    return BatchShape(
        number(micro_batch, "train_micro_batch_size_per_gpu"),
        number(accumulation, "gradient_accumulation_steps"),
    )


def final_config(config: Config, shape: BatchShape, grad_clip: float) -> Config:
    """Put the command line's numbers into a configuration; the original stays as it is."""
    # The product, when it is given, must agree with its factors: let DeepSpeed work it out.
    kept = {name: value for name, value in config.items() if name != "train_batch_size"}
    return kept | {
        "train_micro_batch_size_per_gpu": shape.micro_batch,
        "gradient_accumulation_steps": shape.accumulation,
        "gradient_clipping": grad_clip,
    }


def zero_stage(config: Config) -> int:
    """Return the ZeRO stage of a configuration."""
    zero = config.get("zero_optimization", {})
    return int(zero.get("stage", 0)) if isinstance(zero, dict) else 0


def precision(config: Config) -> str:
    """Return ``bf16`` or ``fp32``."""
    bf16 = config.get("bf16", {})
    return "bf16" if isinstance(bf16, dict) and bf16.get("enabled") else "fp32"


def check_config(config: Config, place: Path) -> None:
    """Let DeepSpeed judge a configuration before anything is built.

    Raises:
        TrainingError: DeepSpeed refuses it (its reason is passed on), or would not read a setting.
    """
    from deepspeed.runtime.config import DeepSpeedConfig

    noted = watched(config)
    try:
        DeepSpeedConfig(noted)
    except (ValueError, AssertionError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"DeepSpeed refuses this configuration: {reason}",
            place=place,
            remedy="compare it with ds_configs/ and its README",
        ) from None
    refuse_unread(noted, place)


def build_engine(model: nn.Module, settings: AdamWSettings, config: Config, world: World) -> Any:
    """Wrap a model in DeepSpeed's engine; all ranks call this with the same weights.

    Args:
        model: float32 weights, on the host.
        settings: of AdamW.
        config: from ``final_config``.
        world: the ranks.
    """
    import deepspeed

    from trainer.optimizers import build_optimizer

    _leave_out_shared_memory_op(deepspeed)
    cuda = world.device.type == "cuda"
    if clips_itself(config):
        config = config | {"gradient_clipping": 0.0}
    optimizer = build_optimizer(model, settings, config, cuda)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine


def _leave_out_shared_memory_op(deepspeed: Any) -> None:
    """Keep DeepSpeed from building its shared-memory all-reduce on CPU ranks.

    Tensor-parallel inference alone uses it. It takes a C++ compiler and half a minute at first,
    and each rank of each run leaves 69 MB in /dev/shm behind for good.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def clips_itself(config: Config) -> bool:
    """Whether the loop clips: DeepSpeed clips at stage 0 in fp32, but tells no gradient norm."""
    return zero_stage(config) == 0 and precision(config) == "fp32"


def whole_weights(engine: Any, world: World) -> dict[str, torch.Tensor] | None:
    """Bring the whole weights to rank 0, in host memory; all ranks call this.

    Returns:
        Names to tensors on rank 0, None elsewhere. They have the precision that was trained in;
        tied weights share their memory.
    """
    if engine.zero_optimization_stage() == 3:
        state = engine._zero3_consolidated_16bit_state_dict()  # the module's own dtype, not 16 bit
    else:
        state = engine.module.state_dict() if world.is_main else None
    if state is None:
        return None
    # One copy of weights that are tied: from a device each name would get its own.
    copies: dict[tuple[int, torch.Size], torch.Tensor] = {}
    for tensor in state.values():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in copies:
            copies[place] = tensor.detach().cpu()
    return {name: copies[tensor.data_ptr(), tensor.shape] for name, tensor in state.items()}
