"""What a tokenizer was trained on, and how well it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.tokenizer.measure import tokens_per_syllable
from vnprep.tokenizer.sample import Sample

# Half a MB of text: enough for three digits, and encoded at once.
_MEASURED_RUNS = 16


@dataclass(frozen=True)
class Trained:
    """A tokenizer that was trained.

    Attributes:
        tokenizer: the tokenizer.
        sample: the texts that it was trained on.
        excluded: records that could not be used, by reason.
    """

    tokenizer: LoadedTokenizer
    sample: Sample
    excluded: Mapping[str, int]

    @cached_property
    def measured(self) -> list[str]:
        """The texts of the sample that it is measured on, spread over the whole."""
        return self.sample.spread(_MEASURED_RUNS)

    @cached_property
    def tokens_per_syllable(self) -> float:
        """Tokens a syllable on them."""
        return round(tokens_per_syllable(self.tokenizer, self.measured), 3)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "vocab_size": self.tokenizer.vocab_size,
            "texts_read": self.sample.texts_read,
            "bytes_read": self.sample.bytes_read,
            "texts_used": self.sample.texts_used,
            "bytes_used": self.sample.bytes_used,
            "excluded": dict(sorted(self.excluded.items())),
            "tokens_per_syllable": self.tokens_per_syllable,
            "fingerprint": self.tokenizer.fingerprint,
        }
