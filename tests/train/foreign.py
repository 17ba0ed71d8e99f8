"""Models and tokenizers as others publish them, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = ["Bật quạt phòng ngủ lên mức 2", "Tắt đèn bếp", "Đèn bếp bật chưa?"] * 4
#: As of many base models: an end, no padding of its own, nothing between request and response.
END = "<|endoftext|>"


def foreign_tokenizer(*special: str) -> str:
    """Return a byte-level ``tokenizer.json`` with these special tokens behind the others."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return str(tokenizer.to_str(pretty=True))


def hf_config(kind: str = "Llama", **changes: Any) -> Any:
    """Return a small configuration of transformers; weights large enough to tell tokens apart."""
    import transformers

    values: dict[str, Any] = {
        "vocab_size": 310,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return getattr(transformers, f"{kind}Config")(**(values | changes))


def write_hf(
    folder: Path,
    config: Any,
    *,
    tokenizer: str | None = None,
    shard: str = "5GB",
    stated: dict[str, object] | None = None,
) -> Any:
    """Write a random model and its tokenizer as transformers does; return the model."""
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    text = foreign_tokenizer(END) if tokenizer is None else tokenizer
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    names = {"eos_token": END, "pad_token": END} if stated is None else stated
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    return model


def write_tokenizer(path: Path, base: str, *tokens: str) -> str:
    """Add special tokens as transformers' users do, write the file and return its text."""
    tokenizer = Tokenizer.from_str(base)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])
    text = str(tokenizer.to_str())
    path.write_text(text, encoding="utf-8")
    return text
