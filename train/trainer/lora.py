"""LoRA (arXiv:2106.09685): small matrices beside the frozen ones, by PEFT; merged at the end."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modeling.config import ModelConfig
from modeling.hf_names import hf_parts
from modeling.model import LlamaForCausalLM
from modeling.weights import write_tensors
from trainer.options import TrainOptions
from vnprep.durable import readable_json, write_text
from vnprep.errors import TrainingError

_ADAPTER = "default"
_BASE, _A, _B = ".base_layer.weight", f".lora_A.{_ADAPTER}.weight", f".lora_B.{_ADAPTER}.weight"
#: What PEFT puts before the names of the model that it wraps.
_PEFT_PREFIX = "base_model.model."
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class LoraSettings:
    """What decides the adapters.

    Attributes:
        rank: columns of A, rows of B.
        alpha: the product B·A counts ``alpha / rank`` times.
        targets: names of the linear layers that get adapters, sorted.
        dropout: share of an adapter's inputs that is dropped while training.
        embeddings: whether the embeddings, and an untied head, are trained, too.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dropout: float
    embeddings: bool

    @property
    def scale(self) -> float:
        """How often B·A counts."""
        return self.alpha / self.rank

    def as_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON."""
        return asdict(self) | {"targets": list(self.targets)}


def lora_settings(
    options: TrainOptions, config: ModelConfig, new_tokens: bool
) -> LoraSettings | None:
    """Choose what the options leave open.

    Args:
        options: what the user asked for.
        config: the model's shape.
        new_tokens: whether the model has tokens that nothing has trained yet. Their embeddings
            must be trained, or [SEP] says no more than the average token does.

    Returns:
        None if LoRA was not asked for.

    Raises:
        TrainingError: the model has no such layers.
    """
    if options.lora is None:
        return None
    with torch.device("meta"):
        names = linear_names(LlamaForCausalLM(config))
    targets = options.lora_targets or tuple(sorted(names))
    for target in targets:
        if target not in names:
            near = difflib.get_close_matches(target, names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise TrainingError(
                f"no linear layers of the decoder are called {target!r}",
                place="--lora-targets",
                remedy=f"{hint}there are {', '.join(sorted(names))}",
            )
    return LoraSettings(
        options.lora,
        2.0 * options.lora if options.lora_alpha is None else options.lora_alpha,
        tuple(sorted(set(targets))),
        options.lora_dropout,
        new_tokens if options.lora_embeddings is None else options.lora_embeddings,
    )


def linear_names(model: LlamaForCausalLM) -> set[str]:
    """Return the last names of all linear layers but the head."""
    named = model.model.named_modules()
    return {name.rpartition(".")[2] for name, module in named if isinstance(module, nn.Linear)}


def add_adapters(model: LlamaForCausalLM, settings: LoraSettings, seed: int) -> None:
    """Freeze a model and put adapters beside its layers; B is 0, so nothing changes yet."""
    from peft import inject_adapter_in_model

    model.requires_grad_(False)
    torch.manual_seed(seed)
    inject_adapter_in_model(_peft_config(settings), model.model, _ADAPTER)
    if settings.embeddings:
        model.model.embed_tokens.weight.requires_grad_(True)
        model.lm_head.weight.requires_grad_(True)


def _peft_config(settings: LoraSettings) -> Any:
    from peft import LoraConfig

    alpha: Any = settings.alpha  # any number will do, whatever PEFT's annotation says
    return LoraConfig(
        r=settings.rank,
        lora_alpha=alpha,
        target_modules=list(settings.targets),
        lora_dropout=settings.dropout,
        bias="none",
    )


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Make what is dropped in a step a function of the step, so that a resumed run drops alike."""
    torch.manual_seed(((seed + step) * _SEED_STRIDE + rank) % 2**63)


def merged(state: Mapping[str, Tensor], settings: LoraSettings) -> dict[str, Tensor]:
    """Return the weights of a model that needs no adapters: W + alpha / rank · B·A.

    Args:
        state: the trained module's weights, whole.
        settings: the adapters'.

    Returns:
        Weights by the names that they had before, in their own precision.
    """
    whole: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith((_A, _B)):
            continue
        if name.endswith(_BASE):
            layer = name.removesuffix(_BASE)
            change = state[layer + _B].float() @ state[layer + _A].float()
            tensor = (tensor.float() + settings.scale * change).to(tensor.dtype)
            name = layer + ".weight"
        whole[name] = tensor
    return whole


def save_adapter(
    folder: Path,
    state: Mapping[str, Tensor],
    settings: LoraSettings,
    config: ModelConfig,
    base: Path,
) -> None:
    """Write the adapters as PEFT does: ``adapter_model.safetensors``, ``adapter_config.json``.

    Args:
        folder: made if need be.
        state: the trained module's weights, whole.
        settings: the adapters'.
        config: the model's shape.
        base: the model that they were trained on, for the record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(_adapter_tensors(state, settings, config))
    write_tensors(
        folder / "adapter_model.safetensors",
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
    )
    content = _peft_config(settings).to_dict() | {"target_modules": _hf_targets(settings, config)}
    content = {name: sorted(v) if isinstance(v, set) else v for name, v in content.items()}
    content |= {"base_model_name_or_path": str(base), "task_type": "CAUSAL_LM"}
    content |= {"inference_mode": True}
    write_text(folder / "adapter_config.json", readable_json(content))


def _adapter_tensors(
    state: Mapping[str, Tensor], settings: LoraSettings, config: ModelConfig
) -> Iterator[tuple[str, Tensor]]:
    trained = {_EMBEDDING} if config.tie_word_embeddings else {_EMBEDDING, _HEAD}
    for name, tensor in state.items():
        if not (name.endswith((_A, _B)) or (settings.embeddings and name in trained)):
            continue
        names, sizes = hf_parts(name, config)
        # What is fused here stands apart there: one A for all parts, and each its rows of B.
        parts = torch.split(tensor, sizes) if sizes and name.endswith(_B) else [tensor] * len(names)
        for each, part in zip(names, parts, strict=True):
            yield _PEFT_PREFIX + each.replace(f".{_ADAPTER}.", "."), part


def _hf_targets(settings: LoraSettings, config: ModelConfig) -> list[str]:
    """Return the layers with adapters as Hugging Face names them."""
    names = {
        part.rstrip(".").rpartition(".")[2]
        for target in settings.targets
        for block in ("self_attn", "mlp")  # whichever has it
        for part in hf_parts(f"{block}.{target}.", config)[0]
    }
    return sorted(names - {"qkv_proj", "gate_up_proj"})
