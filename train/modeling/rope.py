"""Rotary positions (RoFormer, arXiv:2104.09864), and how models stretch them for long texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

#: Cosines and sines of the rotary angles, each [batch or 1, tokens, 1, head_dim / 2].
Rotary = tuple[Tensor, Tensor]

_KINDS = ("linear", "llama3")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are changed for texts longer than those of the first training.

    Attributes:
        rope_type: ``linear``: all are divided by ``factor``. ``llama3``: waves longer than
            ``original_max_position_embeddings / low_freq_factor`` are, those shorter than
            ``… / high_freq_factor`` are not, and those between are in part (Llama 3.1's rule).
        factor: how many times longer the texts are.
        low_freq_factor, high_freq_factor: of ``llama3``.
        original_max_position_embeddings: positions of the first training; of ``llama3``.
    """

    rope_type: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def to_hf(self) -> dict[str, Any]:
        """Return the value of ``rope_scaling`` in a ``config.json``."""
        if self.rope_type == "linear":
            return {"rope_type": "linear", "factor": self.factor}
        return asdict(self)

    @classmethod
    def from_hf(cls, rope: Mapping[str, Any], positions: int) -> RopeScaling | None:
        """Read ``rope_scaling`` (transformers 4) or ``rope_parameters`` (transformers 5).

        Args:
            rope: the value; it may be empty.
            positions: ``max_position_embeddings``, for a value that leaves the original out.

        Raises:
            ValueError: a kind of scaling that is not known here.
        """
        kind = str(rope.get("rope_type", rope.get("type", "default")))
        if kind == "default":
            return None
        if kind not in _KINDS:
            raise ValueError(f"RoPE scaling {kind!r} is not supported, only {', '.join(_KINDS)}")
        factor = float(rope["factor"])
        if kind == "linear":
            return cls(kind, factor)
        return cls(
            kind,
            factor,
            float(rope["low_freq_factor"]),
            float(rope["high_freq_factor"]),
            int(rope.get("original_max_position_embeddings") or positions),
        )

    def scaled(self, frequencies: Tensor) -> Tensor:
        """Return the changed frequencies, [head_dim / 2]."""
        slow = frequencies / self.factor
        if self.rope_type == "linear":
            return slow
        waves = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        span = self.high_freq_factor - self.low_freq_factor
        kept = ((waves - self.low_freq_factor) / span).clamp(0, 1)
        return slow * (1 - kept) + frequencies * kept


def rotary(
    position_ids: Tensor,
    head_dim: int,
    theta: float,
    scaling: RopeScaling | None,
    dtype: torch.dtype,
) -> Rotary:
    """Compute the rotary angles of each position.

    The frequencies are made anew in float32 at each call: kept in a buffer, they would be rounded
    whenever the model is cast to bfloat16.

    Args:
        position_ids: [batch or 1, tokens].
        head_dim: dimensions of a head.
        theta: base of the frequencies.
        scaling: see ``RopeScaling``.
        dtype: of the result.
    """
    steps = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position_ids.device)
    frequencies = 1.0 / theta ** (steps / head_dim)
    if scaling is not None:
        frequencies = scaling.scaled(frequencies)
    angles = position_ids[:, :, None, None].float() * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(vectors: Tensor, angles: Rotary) -> Tensor:
    """Turn queries or keys, [batch, tokens, heads, head_dim], each dimension i with i + d/2."""
    cos, sin = angles
    first, second = vectors.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(vectors.dtype)
