"""Model sizes by name, and the configuration for a given tokenizer."""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from pathlib import Path

from modeling.config import ModelConfig
from vnprep.errors import TrainingError
from vnprep.tokenizer.special import SpecialIds

#: Matrix products are quickest when the vocabulary is a multiple of this.
VOCAB_MULTIPLE = 128


def _preset(
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    key_value_heads: int,
    positions: int,
) -> ModelConfig:
    return ModelConfig(
        vocab_size=32_000,  # in name only: load_config puts the tokenizer's in its place
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=positions,
    )


#: Parameters with a vocabulary of 16,000 (tiny, small) or 32,000; embeddings are tied.
PRESETS: dict[str, ModelConfig] = {
    "tiny": _preset(128, 384, 4, 4, 4, 1024),  # 2.9 M: minutes on two CPU cores
    "small": _preset(384, 1024, 6, 6, 2, 2048),  # 15.6 M
    "110m": _preset(768, 2048, 12, 12, 12, 2048),  # 110 M
    "350m": _preset(1024, 3072, 24, 16, 8, 4096),  # 335 M
    "1b": _preset(2048, 5632, 22, 32, 4, 4096),  # 1.03 B
}


def padded_vocab_size(vocab_size: int) -> int:
    """Round a vocabulary up to a multiple of ``VOCAB_MULTIPLE``.

    The rows added are never an input nor a target, generation never emits them, and export leaves
    them out.
    """
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def load_config(name_or_path: str | Path, vocab_size: int, special: SpecialIds) -> ModelConfig:
    """Return a preset, or the model of a ``config.json``, fitted to a tokenizer.

    Args:
        name_or_path: a name in ``PRESETS``, the ``config.json`` of a Llama or Qwen3, or its folder.
        vocab_size: largest token id + 1; it replaces the one in the file, padded.
        special: ids of the special tokens; they too replace those in the file.

    Raises:
        TrainingError: no such preset or file, or of another family.
    """
    preset = PRESETS.get(str(name_or_path))
    config = read_config(Path(name_or_path)) if preset is None else preset
    return replace(
        config,
        vocab_size=padded_vocab_size(vocab_size),
        pad_token_id=special.pad,
        bos_token_id=special.bos,
        eos_token_id=special.eos,
    )


def read_config(path: Path) -> ModelConfig:
    """Read a Llama's or Qwen3's ``config.json``, given as the file or as its folder.

    Raises:
        TrainingError: no such file, not JSON, or of another family.
    """
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        near = difflib.get_close_matches(str(path), PRESETS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise TrainingError(
            f"neither a preset nor a config.json: {path}",
            remedy=f"{hint}presets: {', '.join(PRESETS)}; or a Llama's or Qwen3's config.json",
        )
    try:
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        return ModelConfig.from_hf(content)
    except (ValueError, TypeError) as error:
        raise TrainingError(
            f"not a model configuration ({error})",
            place=file,
            remedy="give the config.json of a Llama or Qwen3, or a preset: --model tiny",
        ) from None
    except TrainingError as error:
        raise TrainingError(error.cause, place=file, remedy=error.remedy) from None
