"""Token ids → what a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from tokenizers import pre_tokenizers

from vnprep.tokenizer.load import LoadedTokenizer


def _byte_of_letter() -> dict[str, int]:
    """Return the letter that stands for each byte in a ByteLevel vocabulary, inverted.

    Source: the byte-to-unicode table of GPT-2: printable Latin-1 stands for itself, the other
    bytes for the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    table |= {chr(0x100 + number): byte for number, byte in enumerate(others)}
    assert set(table) == set(pre_tokenizers.ByteLevel.alphabet())
    return table


_BYTE_OF_LETTER = _byte_of_letter()

# Shown in place of characters that a reader could not see.
_VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥"})


class Pieces:
    """Shows ids of one tokenizer."""

    def __init__(self, tokenizer: LoadedTokenizer) -> None:
        self._backend = tokenizer.backend
        self._special = tokenizer.special
        self._byte_level = "ByteLevel" in repr(tokenizer.backend.decoder)

    def piece(self, token_id: int) -> str:
        """Return one token: spaces as ``·``, bytes that are no whole character as ``<E1 BB>``."""
        if (name := self._special.name(token_id)) is not None:
            return name
        token = self._backend.id_to_token(token_id)
        if token is None:
            return f"<no token {token_id}>"
        if self._byte_level and all(letter in _BYTE_OF_LETTER for letter in token):
            raw = bytes(_BYTE_OF_LETTER[letter] for letter in token)
            try:
                token = raw.decode("utf-8")
            except UnicodeDecodeError:
                return f"<{raw.hex(' ').upper()}>"
        return str(token).translate(_VISIBLE)

    def text(self, ids: Sequence[int]) -> str:
        """Return ids as the seed writes them: special tokens and texts, parted by one space."""
        return " ".join(self._parts(ids))

    def _parts(self, ids: Sequence[int]) -> Iterator[str]:
        for special, run in groupby(ids, key=lambda token: self._special.name(token) is not None):
            if special:
                yield from (self._special.name(token) or "" for token in run)
            else:
                yield self._backend.decode(list(run), skip_special_tokens=False)
