"""Causal self-attention with rotary positions, grouped key/value heads, packing and a cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.config import ModelConfig
from modeling.layers import Linear

#: Cosines and sines of the rotary angles, each [batch or 1, 1, tokens, head_dim / 2].
Rotary = tuple[Tensor, Tensor]


def rotary(position_ids: Tensor, config: ModelConfig, dtype: torch.dtype) -> Rotary:
    """Compute the rotary angles of each position (RoFormer, arXiv:2104.09864).

    The frequencies are made anew in float32 at each call: kept in a buffer, they would be rounded
    whenever the model is cast to bfloat16.

    Args:
        position_ids: [batch or 1, tokens].
        config: gives ``head_dim`` and ``rope_theta``.
        dtype: of the result.
    """
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=position_ids.device)
    frequencies = 1.0 / config.rope_theta ** (steps / config.head_dim)
    angles = position_ids[:, None, :, None].float() * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(vectors: Tensor, angles: Rotary) -> Tensor:
    """Turn queries or keys, [batch, heads, tokens, head_dim], each dimension i with i + d/2."""
    cos, sin = angles
    first, second = vectors.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(vectors.dtype)


def document_mask(query_documents: Tensor, key_documents: Tensor) -> Tensor:
    """Let each query see the keys of its own document, up to itself.

    Padding (−1) is a document like another: it sees padding only, so no row of the mask is empty
    and no softmax becomes NaN.

    Args:
        query_documents: [batch, queries], the last of the keys.
        key_documents: [batch, keys].

    Returns:
        True where attention is allowed, [batch, 1, queries, keys].
    """
    queries, keys = query_documents.shape[1], key_documents.shape[1]
    same = query_documents[:, :, None] == key_documents[:, None, :]
    return (same & causal_mask(queries, keys, same.device)).unsqueeze(1)


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """Let each of the last ``queries`` of ``keys`` positions see itself and all before it."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class KVCache:
    """Keys and values of the tokens seen so far, for generation.

    Attributes:
        length: tokens held in each row.
        documents: the ``document_ids`` of the tokens held, [rows, capacity].
    """

    def __init__(self, config: ModelConfig, rows: int, capacity: int, like: Tensor) -> None:
        """Make room for ``capacity`` tokens in each of ``rows``, on the device of ``like``."""
        shape = (rows, config.num_key_value_heads, capacity, config.head_dim)
        layers = range(config.num_hidden_layers)
        self._keys = [like.new_empty(shape) for _ in layers]
        self._values = [like.new_empty(shape) for _ in layers]
        self.documents = torch.zeros(rows, capacity, dtype=torch.int32, device=like.device)
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the new tokens' keys and values to a layer and return all of them.

        ``length`` grows when the model has gone through every layer, not here.
        """
        end = self.length + keys.shape[2]
        self._keys[layer][:, :, self.length : end] = keys
        self._values[layer][:, :, self.length : end] = values
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only, by their numbers."""
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]
        self.documents = self.documents[rows]


class Attention(nn.Module):
    """Grouped-query self-attention."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.groups = config.num_attention_heads // config.num_key_value_heads
        width, std = config.hidden_size, config.initializer_range
        key_value_width = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(width, width, std)
        self.k_proj = Linear(width, key_value_width, std)
        self.v_proj = Linear(width, key_value_width, std)
        self.o_proj = Linear(width, width, residual_std(config))

    def forward(
        self, hidden: Tensor, angles: Rotary, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """Attend.

        Args:
            hidden: [batch, tokens, hidden_size].
            angles: of the tokens' positions.
            mask: True where attention is allowed, [batch, 1, tokens, keys]; None for plain causal
                attention from the first token, or for one new token that sees the whole cache.
            cache: keys and values of the tokens before, extended by this call.
        """
        batch, tokens, width = hidden.shape
        queries = rotate(self._heads(self.q_proj(hidden)), angles)
        keys = rotate(self._heads(self.k_proj(hidden)), angles)
        values = self._heads(self.v_proj(hidden))
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        if self.groups > 1:
            # Written out: with a mask, enable_gqa leaves the fast CUDA kernels for the slow one.
            keys = keys.repeat_interleave(self.groups, dim=1)
            values = values.repeat_interleave(self.groups, dim=1)
        causal = mask is None and tokens > 1
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=causal
        )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out

    def _heads(self, projected: Tensor) -> Tensor:
        """[batch, tokens, heads · head_dim] → [batch, heads, tokens, head_dim]."""
        batch, tokens, _ = projected.shape
        return projected.view(batch, tokens, -1, self.head_dim).transpose(1, 2)


def residual_std(config: ModelConfig) -> float:
    """Standard deviation of the weights that write to the residual stream.

    Two are added in each layer; scaled so (GPT-2), their sum does not grow with depth.
    """
    return float(config.initializer_range / (2 * config.num_hidden_layers) ** 0.5)
