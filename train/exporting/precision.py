"""Weights for other programs: rounded, and without the rows that only pad the vocabulary."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from modeling.config import ModelConfig
from modeling.foreign import ForeignCausalLM
from modeling.weights import LoadedModel, storable
from vnprep.errors import TrainingError

#: What ``--dtype`` takes.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_VOCABULARY_ROWS = ("model.embed_tokens.weight", "lm_head.weight")


def exported_weights(
    loaded: LoadedModel, vocab_size: int, dtype: torch.dtype
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return the shape and the weights to write, under Hugging Face's names.

    Args:
        loaded: the model.
        vocab_size: the tokenizer's; rows beyond it are left out, so that no program can choose
            their tokens.
        dtype: of the result.

    Raises:
        TrainingError: a weight that is finite is not so in ``dtype``.
    """
    config = replace(loaded.config, vocab_size=vocab_size)
    if isinstance(loaded.model, ForeignCausalLM):
        loaded.model.hf.resize_token_embeddings(vocab_size, mean_resizing=False)
    tensors: dict[str, Tensor] = {}
    for name, tensor in storable(loaded.model.state_dict(), loaded.config).items():
        rows = tensor[:vocab_size].contiguous() if name in _VOCABULARY_ROWS else tensor
        tensors[name] = rounded(name, rows, dtype)
    return config, tensors


def rounded(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a weight; float16 ends at 65,504, and a weight beyond it would become infinite.

    Raises:
        TrainingError: it does.
    """
    narrow = tensor.to(dtype)
    if dtype == torch.float16 and not bool(torch.isfinite(narrow).all()):
        raise TrainingError(
            f"{name} holds a value that float16 cannot", remedy="export with --dtype bf16"
        )
    return narrow
