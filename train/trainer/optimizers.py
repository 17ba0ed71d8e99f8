"""The optimizers: AdamW, and Muon with AdamW for what Muon is not made for.

Muon (https://kellerjordan.github.io/posts/muon/) orthogonalises the momentum of a whole matrix, so
under ZeRO, where each rank holds a part, DeepSpeed has to do it: its own class is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.engine import AdamWSettings, Config, precision, zero_stage
from vnprep.errors import TrainingError


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters: matrices decay, vectors (the norms' scales) do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return _decaying(trained, weight_decay)


def _decaying(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, settings: AdamWSettings, config: Config, cuda: bool) -> Any:
    """Make the optimizer that DeepSpeed then wraps.

    Args:
        model: its parameters are the ones trained.
        settings: of AdamW, and of Muon if it is wanted.
        config: DeepSpeed's, which ``check_muon`` has accepted if Muon is wanted.
        cuda: whether the model will live on a GPU.
    """
    numbers: dict[str, Any] = {"lr": settings.lr, "betas": settings.betas, "eps": settings.eps}
    if settings.muon is not None:
        return _muon(model, settings, numbers, cuda)
    groups = parameter_groups(model, settings.weight_decay)
    offload = config.get("zero_optimization", {}).get("offload_optimizer") or {}
    if cuda and offload.get("device", "none") != "none":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(groups, adamw_mode=True, **numbers)
    return torch.optim.AdamW(groups, fused=cuda, **numbers)


def is_muons(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix of a decoder layer; embeddings, head and norms are not."""
    return parameter.ndim == 2 and ".layers." in name


def _muon(model: nn.Module, settings: AdamWSettings, numbers: dict[str, Any], cuda: bool) -> Any:
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    assert settings.muon is not None
    muons: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        parameter.use_muon = is_muons(name, parameter)  # type: ignore[attr-defined]
        if parameter.requires_grad:
            (muons if is_muons(name, parameter) else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"use_muon": False, **numbers, **group}
        for group in _decaying(others, settings.weight_decay)
    ]
    groups.append(
        {
            "params": muons,
            "use_muon": True,
            "lr": settings.lr,
            "momentum": settings.muon.momentum,
            "weight_decay": settings.weight_decay,
            # Rounds least: float16 products on a GPU, float32 where there is no float16.
            "ns_method": "gram",
        }
    )
    optimizer = MuonWithAuxAdam(
        groups, adam_optimizer=torch.optim.AdamW, adam_optimizer_kwargs=numbers | {"fused": cuda}
    )
    _keep_ratio(optimizer, settings.muon.lr / settings.lr)
    return optimizer


def _keep_ratio(optimizer: Any, ratio: float) -> None:
    """Let Muon's rate be ``ratio`` times the group's, which the loop sets alike for all groups.

    DeepSpeed asks for the exact class, so the method of this one object is wrapped.
    """
    step = optimizer.step

    def scaled_step(*arguments: Any, **options: Any) -> Any:
        muons = [group for group in optimizer.param_groups if group["use_muon"]]
        rates = [group["lr"] for group in muons]
        for group, rate in zip(muons, rates, strict=True):
            group["lr"] = rate * ratio
        try:
            return step(*arguments, **options)
        finally:
            for group, rate in zip(muons, rates, strict=True):
                group["lr"] = rate

    optimizer.step = scaled_step


def check_muon(config: Config, grad_clip: float, place: Path) -> None:
    """See that Muon does the right thing under a DeepSpeed configuration.

    Where DeepSpeed makes Muon's update before it clips (all but ZeRO 1 in bf16, and ZeRO 0, where
    the loop clips), clipping would scale the update, not the gradient (DeepSpeed #8439).

    Raises:
        TrainingError: it would not; the remedy names what does.
    """
    stage, zero = zero_stage(config), config.get("zero_optimization", {})
    remedy = None
    if stage == 0 and precision(config) == "bf16":
        cause, remedy = "Muon in bf16 without ZeRO is not supported", "take ds_configs/zero1.json"
    elif any((zero.get(name) or {}).get("device", "none") != "none" for name in _OFFLOADS):
        cause = "Muon with offloading is not supported"
        remedy = "take ds_configs/zero1.json, or --optimizer adamw"
    elif stage == 3 and zero.get("reduce_scatter", True):
        cause = "Muon at ZeRO 3 needs whole gradients"
        remedy = 'write "reduce_scatter": false in zero_optimization, or take ZeRO 1'
    elif grad_clip > 0 and stage > 0 and not (stage == 1 and precision(config) == "bf16"):
        cause = f"at ZeRO {stage} in {precision(config)}, clipping would scale Muon's update"
        remedy = "give --grad-clip 0, or take ZeRO 1 in bf16 (ds_configs/zero1.json)"
    if remedy is not None:
        raise TrainingError(cause, place=place, remedy=remedy)


_OFFLOADS = ("offload_optimizer", "offload_param")
