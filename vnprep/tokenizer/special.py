"""The four special tokens and what a tokenizer must offer for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vnprep.errors import TokenizerError

PAD, BOS, EOS, SEP = "[PAD]", "[BOS]", "[EOS]", "[SEP]"

#: In the order of their ids in every tokenizer that vnprep trains: 0, 1, 2, 3.
SPECIAL_TOKENS = (PAD, BOS, EOS, SEP)


@dataclass(frozen=True)
class SpecialIds:
    """The ids of the four special tokens; always distinct."""

    pad: int
    bos: int
    eos: int
    sep: int

    def __post_init__(self) -> None:
        ids = self.as_dict()
        if self.pad == self.eos:
            raise TokenizerError(
                f"pad and eos are the same token (id {self.pad}): "
                "a model trained so never learns to stop",
                remedy="give [PAD] an id of its own, e.g. --special pad=<another token>",
            )
        if len(set(ids.values())) < len(ids):
            raise TokenizerError(
                f"the special tokens share an id: {ids}",
                remedy="give each of pad, bos, eos and sep a token of its own with --special",
            )

    def as_dict(self) -> dict[str, int]:
        """Return ``{"pad": …, "bos": …, "eos": …, "sep": …}``."""
        return {"pad": self.pad, "bos": self.bos, "eos": self.eos, "sep": self.sep}

    def name(self, token_id: int) -> str | None:
        """Return ``[PAD]``, ``[BOS]``, ``[EOS]`` or ``[SEP]``, or None for an ordinary id."""
        ids = (self.pad, self.bos, self.eos, self.sep)
        return SPECIAL_TOKENS[ids.index(token_id)] if token_id in ids else None


def find_special_ids(
    vocabulary: Mapping[str, int], names: Mapping[str, str] | None = None
) -> SpecialIds:
    """Look the four special tokens up in a vocabulary.

    Args:
        vocabulary: token text to id, added tokens included.
        names: other texts for some of the four, e.g. ``{"bos": "<s>"}``.

    Raises:
        TokenizerError: one is missing, or two are the same.
    """
    wanted = dict(zip(("pad", "bos", "eos", "sep"), SPECIAL_TOKENS, strict=True))
    wanted |= names or {}
    missing = [f"{role} ({text})" for role, text in wanted.items() if text not in vocabulary]
    if missing:
        raise TokenizerError(
            f"the tokenizer has no token for {', '.join(missing)}",
            remedy="name the tokens it does have with --special, e.g. --special 'bos=<s>', "
            "or train one: vnprep tokenizer train",
        )
    return SpecialIds(**{role: vocabulary[text] for role, text in wanted.items()})
