"""What ``--init`` names: a run or model folder of ours, or one in Hugging Face's form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from modeling.card import WEIGHTS_NAME, read_card
from modeling.config import ModelConfig
from modeling.foreign import ForeignCausalLM, fit_vocabulary, load_foreign
from modeling.foreign_config import ForeignConfig, fitted, read_foreign
from modeling.huggingface import (
    is_huggingface,
    read_weights,
    tokenizer_text,
    weights_identity,
)
from modeling.model import LlamaForCausalLM
from modeling.presets import read_config
from modeling.vocabulary import check_extends, resized_rows, resized_vocab
from modeling.weights import assemble, load_model
from vnprep.errors import TrainingError
from vnprep.tokenizer.load import LoadedTokenizer

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def start_identity(folder: Path) -> str:
    """Return a SHA-256 that no other weights share."""
    if is_huggingface(folder):
        return weights_identity(folder)
    return read_card(folder).hashes[WEIGHTS_NAME]


def new_tokens(folder: Path, tokenizer: LoadedTokenizer) -> list[int]:
    """Return the ids that a tokenizer has and the model in Hugging Face's form does not know.

    Raises:
        TrainingError: it is not the model's tokenizer with tokens added.
    """
    try:
        return check_extends(tokenizer_text(folder), tokenizer.text)
    except TrainingError as error:
        raise TrainingError(error.cause, place=error.place or folder, remedy=error.remedy) from None


def adopted_config(folder: Path, tokenizer: LoadedTokenizer, impl: str = "own") -> ModelConfig:
    """Return the shape of a model in Hugging Face's form, fitted to a tokenizer.

    Args:
        folder: the model's.
        tokenizer: its own, or that with tokens added.
        impl: ``own``, or ``hf`` for a model of transformers.
    """
    special = tokenizer.special
    if impl == "hf":
        foreign = read_foreign(folder)
        return fitted(foreign, max(foreign.vocab_size, tokenizer.vocab_size), special)
    config = read_config(folder)
    return replace(
        config,
        vocab_size=resized_vocab(config.vocab_size, tokenizer.vocab_size),
        pad_token_id=special.pad,
        bos_token_id=special.bos,
        eos_token_id=special.eos,
    )


def adopt(
    folder: Path, tokenizer: LoadedTokenizer, *, dtype: torch.dtype | None = torch.float32
) -> LlamaForCausalLM:
    """Load a model in Hugging Face's form, with rows for the tokens that are new to it.

    Args:
        folder: the model's.
        tokenizer: its own, or that with tokens added.
        dtype: of the weights in memory; None keeps the one they are stored in.

    Raises:
        TrainingError: a file is missing or damaged, the weights do not fit ``config.json``, or
            the tokenizer is another one.
    """
    config = adopted_config(folder, tokenizer)
    new = new_tokens(folder, tokenizer)
    tensors = read_weights(folder)
    if config.tie_word_embeddings:
        tensors.pop(_HEAD, None)  # some files hold the shared weight twice
    known = Tokenizer.from_str(tokenizer_text(folder)).get_vocab(with_added_tokens=True)
    for name in (_EMBEDDING, _HEAD):
        if name in tensors and tensors[name].ndim == 2:
            tensors[name] = resized_rows(
                tensors[name], new, sorted(known.values()), config.vocab_size
            )
    if dtype is None:
        dtype = next(iter(tensors.values())).dtype
    return assemble(config, tensors, folder, dtype)


def adopt_foreign(folder: Path, tokenizer: LoadedTokenizer) -> ForeignCausalLM:
    """Load a model of transformers, with rows for the tokens that are new to it."""
    config = adopted_config(folder, tokenizer, "hf")
    assert isinstance(config, ForeignConfig)
    new = new_tokens(folder, tokenizer)
    model = load_foreign(folder, config)
    known = Tokenizer.from_str(tokenizer_text(folder)).get_vocab(with_added_tokens=True)
    fit_vocabulary(model, new, sorted(known.values()))
    return model


def start_config(folder: Path, tokenizer: LoadedTokenizer, impl: str = "own") -> ModelConfig:
    """Return the shape of the model that training starts from.

    Raises:
        TrainingError: no model there, or one that this model cannot be; in Hugging Face's form,
            if ``tokenizer`` does not extend its own, too.
    """
    if not is_huggingface(folder):
        return read_card(folder).config
    new_tokens(folder, tokenizer)
    return adopted_config(folder, tokenizer, impl)


def untrained_tokens(folder: Path, tokenizer: LoadedTokenizer) -> tuple[int, ...]:
    """Return the ids of tokens that were added to the model and not trained yet."""
    if is_huggingface(folder):
        return tuple(new_tokens(folder, tokenizer))
    return read_card(folder).untrained


def load_start(
    folder: Path, tokenizer: LoadedTokenizer, impl: str = "own"
) -> LlamaForCausalLM | ForeignCausalLM:
    """Load the model that training starts from, in float32 on the host.

    Args:
        folder: a run or model folder, or one in Hugging Face's form.
        tokenizer: that of the training data.
        impl: ``own``, or ``hf`` for a model of transformers.
    """
    if is_huggingface(folder):
        return adopt_foreign(folder, tokenizer) if impl == "hf" else adopt(folder, tokenizer)
    return load_model(folder).model.float()
