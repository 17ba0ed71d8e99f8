"""Load a ``tokenizer.json`` and check that it can serve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vnprep.durable import canonical_json, sha256_text
from vnprep.errors import TokenizerError
from vnprep.tokenizer.special import SpecialIds, find_special_ids


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer ready for use.

    Attributes:
        backend: reads the characters ``[EOS]`` in a text as text, never as the special token;
            neither truncates nor pads.
        special: ids of the four special tokens.
        vocab_size: largest id + 1; what an embedding needs at least.
        fingerprint: SHA-256 over the tokenizer's content and its special ids, whatever the
            file's layout.
        text: the file's text, as it was read.
        unknown: id of the token for what it cannot encode, or None if it has none.
    """

    backend: Tokenizer
    special: SpecialIds
    vocab_size: int
    fingerprint: str
    text: str
    unknown: int | None = None


def load_tokenizer(path: str | Path, names: Mapping[str, str] | None = None) -> LoadedTokenizer:
    """Load a tokenizer.

    Args:
        path: a ``tokenizer.json``, or a folder that holds one.
        names: other texts for the special tokens, e.g. ``{"bos": "<s>"}``.

    Raises:
        TokenizerError: no such file, not a tokenizer, a special token is missing, or pad = eos.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        return parse_tokenizer(path.read_text(encoding="utf-8"), names)
    except FileNotFoundError:
        raise TokenizerError(
            "no such tokenizer file",
            place=path,
            remedy="train one: vnprep tokenizer train TEXT... --out tokenizer.json",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot be read ({error})", place=path) from None
    except TokenizerError as error:
        raise TokenizerError(error.cause, place=path, remedy=error.remedy) from None


def parse_tokenizer(
    text: str, names: Mapping[str, str] | None = None, special: SpecialIds | None = None
) -> LoadedTokenizer:
    """Make a tokenizer from the text of a ``tokenizer.json``; see ``load_tokenizer``.

    ``special`` gives the ids outright, as a manifest or a model's folder does.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        backend = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise TokenizerError(
            f"not a tokenizer.json ({error})",
            remedy="give the tokenizer.json of a Hugging Face fast tokenizer",
        ) from None
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    if getattr(backend.model, "dropout", None) is not None:
        backend.model.dropout = None  # merges left out at random: other ids on every run
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    special = special or find_special_ids(vocabulary, names)
    identity = {"tokenizer": content, "special": special.as_dict()}
    return LoadedTokenizer(
        backend,
        special,
        max(vocabulary.values()) + 1,
        sha256_text(canonical_json(identity)),
        text,
        _unknown_id(content, vocabulary),
    )


def _unknown_id(content: dict[str, Any], vocabulary: Mapping[str, int]) -> int | None:
    """Find the unknown token: by its text, or in Unigram models by its id."""
    model = content.get("model") or {}
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    return vocabulary.get(model.get("unk_token") or "")
