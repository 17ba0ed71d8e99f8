"""Causal self-attention with rotary positions, grouped key/value heads, packing and a cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.config import ModelConfig
from modeling.layers import Linear, RMSNorm
from modeling.layout import Causal, Documents, Layout, Masked, Varlen, varlen_attention
from modeling.rope import Rotary, rotate


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
        self.projections = list(config.projections)
        width, std = config.hidden_size, config.initializer_range
        # Queries, keys and values in one product; on disk they stand apart (see ``hf_names``).
        self.qkv_proj = Linear(width, sum(self.projections), std)
        self.o_proj = Linear(self.projections[0], width, residual_std(config))
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(
        self, hidden: Tensor, angles: Rotary, layout: Layout, cache: KVCache | None
    ) -> Tensor:
        """Attend.

        Args:
            hidden: [batch, tokens, hidden_size].
            angles: of the tokens' positions.
            layout: which positions see which.
            cache: keys and values of the tokens before, extended by this call.
        """
        projected = self._normed(self.qkv_proj(hidden))
        if isinstance(layout, Documents):
            parts = [
                self._mix(part, group.angles, Causal(), None)
                for part, group in zip(
                    layout.spread(projected.flatten(0, 1)), layout.groups, strict=True
                )
            ]
            mixed = layout.collect(parts).view(*hidden.shape[:2], -1)
        else:
            mixed = self._mix(projected, angles, layout, cache)
        out: Tensor = self.o_proj(mixed)
        return out

    def _normed(self, projected: Tensor) -> Tensor:
        """Norm each query and key head, [batch, tokens, sum(projections)].

        Before the documents are spread over groups: the ranks have different numbers of groups,
        and under ZeRO 3 each call of a module is a collective, which all must do alike.
        """
        if self.q_norm is None or self.k_norm is None:
            return projected
        queries, keys, values = torch.split(projected, self.projections, dim=-1)
        heads = (*projected.shape[:-1], -1, self.head_dim)
        queries = self.q_norm(queries.view(heads)).flatten(-2)
        keys = self.k_norm(keys.view(heads)).flatten(-2)
        return torch.cat((queries, keys, values), dim=-1)

    def _mix(
        self,
        projected: Tensor,
        angles: Rotary,
        layout: Causal | Masked | Varlen,
        cache: KVCache | None,
    ) -> Tensor:
        """[batch, tokens, sum(projections)] → [batch, tokens, heads · head_dim]."""
        batch, tokens, _ = projected.shape
        queries, keys, values = (
            part.view(batch, tokens, -1, self.head_dim)
            for part in torch.split(projected, self.projections, dim=-1)
        )
        queries, keys = rotate(queries, angles), rotate(keys, angles)
        if isinstance(layout, Varlen):
            flat = [part.flatten(0, 1) for part in (queries, keys, values)]
            return varlen_attention(flat[0], flat[1], flat[2], layout).view(batch, tokens, -1)
        queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        if self.groups > 1:
            # Written out: with a mask, enable_gqa leaves the fast CUDA kernels for the slow one.
            keys = keys.repeat_interleave(self.groups, dim=1)
            values = values.repeat_interleave(self.groups, dim=1)
        mask = layout.mask if isinstance(layout, Masked) else None
        # One new token sees the whole cache.
        causal = mask is None and tokens > 1
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=causal
        )
        return mixed.transpose(1, 2).reshape(batch, tokens, -1)


def residual_std(config: ModelConfig) -> float:
    """Standard deviation of the weights that write to the residual stream.

    Two are added in each layer; scaled so (GPT-2), their sum does not grow with depth.
    """
    return float(config.initializer_range / (2 * config.num_hidden_layers) ** 0.5)
