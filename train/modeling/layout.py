"""Which positions of a batch see which: packed documents never see each other.

A ``Layout`` is made once a forward pass and shared by all layers. There are four:

``Causal``     every row is one document, from its first position on.
``Masked``     a mask says who sees whom: for generation, and where nothing quicker serves.
``Varlen``     documents end to end in one row, as flash attention takes them: on CUDA in bf16.
``Documents``  documents of like length side by side, each in a row of its own: on the CPU, where
               that saves the work on what a mask would throw away.
"""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from modeling.rope import Rotary

# Looked up here once, and not where compiled code would come by.
varlen_attn: Any = None
with contextlib.suppress(ImportError):
    from torch.nn.attention.varlen import varlen_attn
_NAMES = () if varlen_attn is None else tuple(inspect.signature(varlen_attn).parameters)
#: How this torch is told of causal attention, and whether it knows grouped heads.
_CAUSAL: dict[str, Any] = (
    {"window_size": (-1, 0)} if "window_size" in _NAMES else {"is_causal": True}
)
_GROUPED = "enable_gqa" in _NAMES

#: Flash attention takes heads up to this size, in steps of 8.
_LARGEST_FLASH_HEAD = 256
#: Documents in one group are longer than this share of its longest.
_GROUP_SHARE = 0.6


@dataclass(frozen=True)
class Causal:
    """Each position sees itself and all before it in its row."""


@dataclass(frozen=True)
class Masked:
    """True where attention is allowed, [batch, 1, queries, keys]."""

    mask: Tensor


@dataclass(frozen=True)
class Varlen:
    """Documents end to end over all rows.

    Attributes:
        cu_seqlens: where each begins, and the end of the last, which may be repeated, int32.
        max_seqlen: length that none exceeds.
    """

    cu_seqlens: Tensor
    max_seqlen: int


@dataclass(frozen=True)
class Group:
    """Documents of like length, each in a row, filled up at its end.

    Attributes:
        count: documents.
        length: of the longest.
        angles: rotary angles of its places, [count, length, 1, head_dim / 2].
    """

    count: int
    length: int
    angles: Rotary


@dataclass(frozen=True)
class Documents:
    """Groups of documents, one after another.

    What fills a document up stands behind it, where causal attention never looks.

    Attributes:
        groups: in the order of their places.
        token_of_place: the token that stands at each place, [places]; where none does, token 0.
        place_of_token: the place of each token, [batch · tokens].
        filled: 1 where a token stands, else 0, [places, 1].
    """

    groups: tuple[Group, ...]
    token_of_place: Tensor
    place_of_token: Tensor
    filled: Tensor

    def spread(self, tokens: Tensor) -> list[Tensor]:
        """[batch · tokens, width] → of each group [count, length, width]."""
        places = _Spread.apply(  # type: ignore[no-untyped-call]
            tokens, self.token_of_place, self.place_of_token
        )
        sizes = [group.count * group.length for group in self.groups]
        parts = places.split(sizes)
        return [
            part.view(group.count, group.length, -1)
            for part, group in zip(parts, self.groups, strict=True)
        ]

    def collect(self, parts: list[Tensor]) -> Tensor:
        """Undo ``spread``: of each group [count, length, width] → [batch · tokens, width]."""
        places = torch.cat([part.flatten(0, 1) for part in parts])
        out: Tensor = _Collect.apply(  # type: ignore[no-untyped-call]
            places, self.token_of_place, self.place_of_token, self.filled
        )
        return out


Layout = Causal | Masked | Varlen | Documents


def packed_layout(
    cu_seqlens: Tensor, rows: int, tokens: int, angles: Rotary, dtype: torch.dtype
) -> Layout | None:
    """Return the quickest layout for packed documents here, or None if only a mask will do.

    Args:
        cu_seqlens: where each document begins in the flattened batch, and its end, int32.
        rows, tokens: of the batch.
        angles: rotary angles of its positions.
        dtype: of the hidden states.
    """
    if cu_seqlens.is_cuda:
        halves = dtype in (torch.bfloat16, torch.float16)
        head_dim = 2 * angles[0].shape[-1]
        fits = halves and head_dim % 8 == 0 and head_dim <= _LARGEST_FLASH_HEAD
        return Varlen(cu_seqlens, tokens) if fits and has_varlen() else None
    if cu_seqlens.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    lengths = cu_seqlens.diff()
    if len(lengths) == rows and bool((lengths == tokens).all()):
        return Causal()
    by_token = (angle.expand(rows, -1, -1, -1).flatten(0, 2) for angle in angles)
    return _documents(cu_seqlens[:-1].long(), lengths.long(), rows * tokens, *by_token)


def _documents(starts: Tensor, lengths: Tensor, tokens: int, cos: Tensor, sin: Tensor) -> Documents:
    """Group documents of like length; ``cos`` and ``sin`` are [tokens, head_dim / 2]."""
    there = lengths > 0
    order = lengths[there].argsort(descending=True)
    starts, lengths = starts[there][order], lengths[there][order]
    groups, found, filled = [], [], []
    first, sizes = 0, lengths.tolist()
    while first < len(sizes):
        longest, last = sizes[first], first
        while last < len(sizes) and sizes[last] > _GROUP_SHARE * longest - 1:
            last += 1
        within = torch.arange(longest)
        real = within < lengths[first:last, None]
        token = torch.where(real, starts[first:last, None] + within, 0)
        shape = (last - first, longest, 1, -1)
        turned = (cos[token].view(shape), sin[token].view(shape))
        groups.append(Group(last - first, longest, turned))
        found.append(token.flatten())
        filled.append(real.flatten())
        first = last
    token_of_place, is_filled = torch.cat(found), torch.cat(filled)
    place_of_token = torch.empty(tokens, dtype=torch.long)
    place_of_token[token_of_place[is_filled]] = is_filled.nonzero().squeeze(1)
    return Documents(
        tuple(groups), token_of_place, place_of_token, is_filled.to(cos.dtype).unsqueeze(1)
    )


class _Spread(torch.autograd.Function):
    """Gather rows. The backward pass is a gather too, not a scatter: each token has one place."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, token_of_place: Tensor, place_of_token: Tensor) -> Tensor:
        ctx.save_for_backward(place_of_token)
        return tokens.index_select(0, token_of_place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (place_of_token,) = ctx.saved_tensors
        return grads[0].index_select(0, place_of_token), None, None


class _Collect(torch.autograd.Function):
    """Gather rows back; places without a token get no gradient."""

    @staticmethod
    def forward(
        ctx: Any, places: Tensor, token_of_place: Tensor, place_of_token: Tensor, filled: Tensor
    ) -> Tensor:
        ctx.save_for_backward(token_of_place, filled)
        return places.index_select(0, place_of_token)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        token_of_place, filled = ctx.saved_tensors
        return grads[0].index_select(0, token_of_place) * filled, None, None, None


@cache
def has_varlen() -> bool:
    """Whether this torch has flash attention over documents end to end, and this GPU runs it."""
    if varlen_attn is None or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability() >= (8, 0)


def varlen_attention(queries: Tensor, keys: Tensor, values: Tensor, layout: Varlen) -> Tensor:
    """Attend within documents, causally, by flash attention.

    Args:
        queries: [tokens, heads, head_dim], bf16.
        keys, values: [tokens, key/value heads, head_dim].
        layout: where the documents stand.
    """
    assert varlen_attn is not None, "has_varlen was asked"
    settings = dict(_CAUSAL)
    groups = queries.shape[1] // keys.shape[1]
    if groups > 1 and _GROUPED:
        settings["enable_gqa"] = True
    elif groups > 1:
        keys = keys.repeat_interleave(groups, dim=1)
        values = values.repeat_interleave(groups, dim=1)
    seqlens, longest = layout.cu_seqlens, layout.max_seqlen
    out: Tensor = varlen_attn(queries, keys, values, seqlens, seqlens, longest, longest, **settings)
    return out
