"""Between this model's parameters and those that Hugging Face names.

Here queries, keys and values are one matrix, and so are gate and up: fewer, larger products. Files
hold them apart, as transformers, vLLM and llama.cpp read them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modeling.config import ModelConfig

_FUSED = {
    "self_attn.qkv_proj.": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    "mlp.gate_up_proj.": ("mlp.gate_proj.", "mlp.up_proj."),
}


def to_hf(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Split what is fused; the parts are views.

    Args:
        state: under this model's names.
        config: gives the parts' sizes.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names, sizes = hf_parts(name, config)
        parts = torch.split(tensor, sizes) if sizes else (tensor,)
        split.update(zip(names, parts, strict=True))
    return split


def hf_parts(name: str, config: ModelConfig) -> tuple[list[str], list[int]]:
    """Return Hugging Face's names for what a parameter here holds, and the rows of each.

    Rows are told of fused parameters alone; else it is the one name, and no rows.
    """
    for whole, parts in _FUSED.items():
        if whole in name:
            return [name.replace(whole, part) for part in parts], _sizes(whole, config)
    return [name], []


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo ``to_hf``. Parts of which one is missing stay as they are, for others to complain."""
    fused = dict(state)
    for whole, parts in _FUSED.items():
        for name in [name for name in state if parts[0] in name]:
            names = [name.replace(parts[0], part) for part in parts]
            if all(each in state for each in names):
                fused[name.replace(parts[0], whole)] = torch.cat([fused.pop(n) for n in names])
    return fused


def _sizes(fused: str, config: ModelConfig) -> list[int]:
    if fused.startswith("self_attn."):
        return list(config.projections)
    return [config.intermediate_size] * 2
