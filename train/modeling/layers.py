"""The leaf modules: linear, embedding, norm.

Each draws its weight in its own constructor, because under ``deepspeed.zero.Init`` a weight is cut
up as soon as its module exists and can no longer be filled from outside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """A projection without bias, drawn from N(0, std²)."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__(inputs, outputs, bias=False)
        nn.init.normal_(self.weight, std=std)

    def reset_parameters(self) -> None:
        """Do nothing: the weight is drawn once, by the constructor."""


class Embedding(nn.Embedding):
    """Token embeddings, drawn from N(0, std²)."""

    def __init__(self, vocab_size: int, hidden_size: int, std: float) -> None:
        super().__init__(vocab_size, hidden_size)
        nn.init.normal_(self.weight, std=std)

    def reset_parameters(self) -> None:
        """Do nothing: the weight is drawn once, by the constructor."""


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 (arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., size] → [..., size], in the input's dtype."""
        wide = hidden.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(hidden.dtype)
