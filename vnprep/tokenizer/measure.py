"""How well a tokenizer fits a text."""

from __future__ import annotations

from collections.abc import Sequence

from vnprep.tokenizer.encode import encode
from vnprep.tokenizer.load import LoadedTokenizer


def tokens_per_syllable(tokenizer: LoadedTokenizer, texts: Sequence[str]) -> float:
    """Return tokens for each piece between white space: in Vietnamese, a syllable."""
    syllables = sum(len(text.split()) for text in texts)
    ids, _ = encode(tokenizer, texts)
    return len(ids) / max(syllables, 1)
