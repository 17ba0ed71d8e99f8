"""A decoder of the Llama and Qwen3 families; transformers is its test oracle."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from modeling.attention import Attention, KVCache, causal_mask, document_mask, residual_std
from modeling.config import ModelConfig
from modeling.layers import Embedding, Linear, RMSNorm
from modeling.layout import Causal, Layout, Masked, packed_layout
from modeling.loss import OutputHead
from modeling.rope import Rotary, rotary

__all__ = ["KVCache", "LlamaForCausalLM", "ModelConfig"]


class MLP(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        # Gate and up in one product; on disk they stand apart (see ``hf_names``).
        self.gate_up_proj = Linear(width, 2 * inner, config.initializer_range)
        self.down_proj = Linear(inner, width, residual_std(config))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., hidden_size] → [..., hidden_size]."""
        gate, up = self.gate_up_proj(hidden).chunk(2, dim=-1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out


class DecoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden: Tensor, angles: Rotary, layout: Layout, cache: KVCache | None
    ) -> Tensor:
        """[batch, tokens, hidden_size] → the same; see ``Attention.forward``."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), angles, layout, cache)
        out: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return out


class LlamaModel(nn.Module):
    """Embeddings, decoder layers and the last norm.

    Attributes:
        activation_checkpointing: whether layers are computed again in the backward pass, for less
            memory at about a third more time. Off unless set.
        fixed_shapes: whether layers see arguments of the same shapes at every batch, which compiled
            ones need; the CPU's quickest layout, with others for each batch, is then left out.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        self.fixed_shapes = False
        self.embed_tokens = Embedding(
            config.vocab_size, config.hidden_size, config.initializer_range
        )
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden states, [batch, tokens, hidden_size].

        The arguments are those of ``LlamaForCausalLM.forward``.
        """
        tokens, start = input_ids.shape[1], 0 if cache is None else cache.length
        if position_ids is None:
            position_ids = torch.arange(start, start + tokens, device=input_ids.device)[None]
        hidden = self.embed_tokens(input_ids)
        config = self.config
        angles = rotary(
            position_ids, config.head_dim, config.rope_theta, config.rope_scaling, hidden.dtype
        )
        if self.fixed_shapes and not hidden.is_cuda:
            cu_seqlens = None
        layout = _layout(hidden, angles, document_ids, cu_seqlens, cache)
        for layer in self.layers:
            if self.activation_checkpointing and self.training:
                hidden = checkpoint(layer, hidden, angles, layout, cache, use_reentrant=False)
            else:
                hidden = layer(hidden, angles, layout, cache)
        if cache is not None:
            cache.length += tokens
        out: Tensor = self.norm(hidden)
        return out


class LlamaForCausalLM(nn.Module):
    """The decoder with its output head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = LlamaModel(config)
        self.lm_head = OutputHead(config.hidden_size, config.vocab_size, config.initializer_range)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Let the head share the embedding's weight, if the configuration says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        cache: KVCache | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        """Predict the next token at every position.

        Args:
            input_ids: [batch, tokens].
            position_ids: [batch, tokens], from 0 in each document; None counts along the row.
            document_ids: [batch, tokens]; a token attends only to tokens of its own number, −1
                being padding. None is plain causal attention over the row. With a cache, give it
                in every call or in none.
            labels: the token after each position, [batch, tokens] (already shifted), −100 where
                there is no loss.
            cache: keys and values of the tokens before; it is extended.
            cu_seqlens: the same as ``document_ids`` in another form, for quicker attention: where
                each document begins in the flattened batch, padding being one too, and the end of
                the last; int32, [documents + 1]. Not with a cache.

        Returns:
            Without labels the logits, [batch, tokens, vocab_size]; with labels the *sum* of the
            negative log-likelihoods over the labels that are not −100, in nats, float32 scalar.
        """
        hidden = self.model(input_ids, position_ids, document_ids, cache, cu_seqlens)
        out: Tensor = self.lm_head(hidden, labels)
        return out


def _layout(
    hidden: Tensor,
    angles: Rotary,
    document_ids: Tensor | None,
    cu_seqlens: Tensor | None,
    cache: KVCache | None,
) -> Layout:
    """Choose how all layers attend."""
    rows, tokens = hidden.shape[:2]
    start = 0 if cache is None else cache.length
    if document_ids is None:
        if start == 0 or tokens == 1:
            return Causal()
        return Masked(causal_mask(tokens, start + tokens, hidden.device))
    if cache is None:
        if cu_seqlens is not None:
            layout = packed_layout(cu_seqlens, rows, tokens, angles, hidden.dtype)
            if layout is not None:
                return layout
        return Masked(document_mask(document_ids, document_ids))
    cache.documents[:, start : start + tokens] = document_ids
    return Masked(document_mask(document_ids, cache.documents[:, : start + tokens]))
