"""A Llama-family decoder with Hugging Face's parameter names; transformers is its test oracle."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from modeling.attention import (
    Attention,
    KVCache,
    Rotary,
    causal_mask,
    document_mask,
    residual_std,
    rotary,
)
from modeling.config import ModelConfig
from modeling.layers import Embedding, Linear, RMSNorm
from modeling.loss import OutputHead

__all__ = ["KVCache", "LlamaForCausalLM", "ModelConfig"]


class MLP(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(width, inner, config.initializer_range)
        self.up_proj = Linear(width, inner, config.initializer_range)
        self.down_proj = Linear(inner, width, residual_std(config))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., hidden_size] → [..., hidden_size]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
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
        self, hidden: Tensor, angles: Rotary, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """[batch, tokens, hidden_size] → the same; see ``Attention.forward``."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), angles, mask, cache)
        out: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return out


class LlamaModel(nn.Module):
    """Embeddings, decoder layers and the last norm.

    Attributes:
        activation_checkpointing: whether layers are computed again in the backward pass, for less
            memory at about a third more time. Off unless set.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
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
    ) -> Tensor:
        """Return the last hidden states, [batch, tokens, hidden_size].

        The arguments are those of ``LlamaForCausalLM.forward``.
        """
        tokens, start = input_ids.shape[1], 0 if cache is None else cache.length
        if position_ids is None:
            position_ids = torch.arange(start, start + tokens, device=input_ids.device)[None]
        mask = _attention_mask(tokens, document_ids, cache, input_ids.device)
        hidden = self.embed_tokens(input_ids)
        angles = rotary(position_ids, self.config, hidden.dtype)
        for layer in self.layers:
            if self.activation_checkpointing and self.training:
                hidden = checkpoint(layer, hidden, angles, mask, cache, use_reentrant=False)
            else:
                hidden = layer(hidden, angles, mask, cache)
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

        Returns:
            Without labels the logits, [batch, tokens, vocab_size]; with labels the *sum* of the
            negative log-likelihoods over the labels that are not −100, in nats, float32 scalar.
        """
        hidden = self.model(input_ids, position_ids, document_ids, cache)
        out: Tensor = self.lm_head(hidden, labels)
        return out


def _attention_mask(
    tokens: int, document_ids: Tensor | None, cache: KVCache | None, device: torch.device
) -> Tensor | None:
    """Build the mask that all layers share; None where ``is_causal`` says all (see Attention)."""
    start = 0 if cache is None else cache.length
    if document_ids is None:
        return None if start == 0 or tokens == 1 else causal_mask(tokens, start + tokens, device)
    if cache is None:
        return document_mask(document_ids, document_ids)
    cache.documents[:, start : start + tokens] = document_ids
    return document_mask(document_ids, cache.documents[:, : start + tokens])
