"""The shape of a model that transformers implements; see ``foreign``. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modeling.config import ModelConfig
from modeling.presets import padded_vocab_size
from vnprep.durable import canonical_json
from vnprep.errors import TrainingError
from vnprep.tokenizer.special import SpecialIds

#: Names of the span beyond which a position sees nothing, in configurations of transformers.
_WINDOWS = ("sliding_window", "attention_chunk_size")


@dataclass(frozen=True)
class ForeignConfig(ModelConfig):
    """Any decoder of transformers; the sizes are what its configuration tells of them.

    Attributes:
        content: its ``config.json``, as canonical JSON.
        window: positions beyond which some layer sees nothing; 0 if none is limited.
    """

    content: str = ""
    window: int = 0

    def __post_init__(self) -> None:
        assert self.content, "made by read_foreign"

    def to_hf(self) -> dict[str, Any]:
        """Return the content of its ``config.json``, with the vocabulary of this model."""
        content: dict[str, Any] = json.loads(self.content)
        ids = ("pad_token_id", "bos_token_id", "eos_token_id")
        return content | {name: getattr(self, name) for name in ("vocab_size", *ids)}


def read_foreign(path: Path) -> ForeignConfig:
    """Read the ``config.json`` of any decoder that transformers knows, or of its folder.

    Raises:
        TrainingError: no such file, or transformers cannot read it.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_bytes())
        config = _parsed(content)
        numbers = {
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "max_position_embeddings": config.max_position_embeddings,
            "vocab_size": config.vocab_size,
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError, ImportError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise TrainingError(
            "no such config.json" if missing else f"transformers cannot read it ({error})",
            place=file,
            remedy="give the config.json of a decoder for text that transformers knows",
        ) from None
    heads, width = config.num_attention_heads, config.hidden_size
    return ForeignConfig(
        **numbers,
        intermediate_size=getattr(config, "intermediate_size", None) or 4 * width,
        num_key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        tie_word_embeddings=bool(config.tie_word_embeddings),
        model_type=config.model_type,
        head_dim=getattr(config, "head_dim", None) or width // heads,
        content=canonical_json(content),
        window=_window(config),
    )


def fitted(config: ForeignConfig, vocab_size: int, special: SpecialIds) -> ForeignConfig:
    """Return the configuration with a vocabulary of at least this size, and these special ids."""
    return replace(
        config,
        vocab_size=padded_vocab_size(vocab_size),
        pad_token_id=special.pad,
        bos_token_id=special.bos,
        eos_token_id=special.eos,
    )


def _parsed(content: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    content = dict(content)
    return AutoConfig.for_model(content.pop("model_type"), **content)


def _window(config: Any) -> int:
    """Find the shortest span that limits a layer; of those that are in use."""
    kinds = set(getattr(config, "layer_types", None) or ("sliding_attention",))
    if kinds == {"full_attention"} or getattr(config, "use_sliding_window", True) is False:
        return 0
    spans = [getattr(config, name, None) for name in _WINDOWS]
    return min((int(span) for span in spans if span), default=0)
