"""Whether a tokenizer gives Vietnamese back: one from elsewhere may lose letters in silence."""

from __future__ import annotations

import json
import unicodedata

from vnprep.tokenizer.load import LoadedTokenizer

_NAMED = 8
_VOWELS = "aăâeêioôơuưy"
_TONES = ("", "\u0300", "\u0301", "\u0303", "\u0309", "\u0323")


def vietnamese_letters() -> list[str]:
    """Return all letters of Vietnamese with all tone marks, small and large, in NFC."""
    small = [unicodedata.normalize("NFC", vowel + tone) for vowel in _VOWELS for tone in _TONES]
    small += [*"bcdđghklmnpqrstvx"]
    return small + [letter.upper() for letter in small]


def warning(tokenizer: LoadedTokenizer) -> str:
    """Return a line for the user if the tokenizer loses letters; else nothing."""
    lost = lost_letters(tokenizer)
    if not lost:
        return ""
    more = " …" * (len(lost) > _NAMED)
    return (
        f"the tokenizer loses {len(lost)} of the {len(vietnamese_letters())} letters of Vietnamese "
        f"({' '.join(lost[:_NAMED])}{more}): the model will not be taught what the texts say"
    )


def lost_letters(tokenizer: LoadedTokenizer) -> list[str]:
    """Return the Vietnamese letters that do not come back from ids.

    A vocabulary of whole words cannot be asked for letters: of it, none is returned.
    """
    if json.loads(tokenizer.text)["model"].get("type") in ("WordLevel", None):
        return []
    letters = vietnamese_letters()
    encodings = tokenizer.backend.encode_batch_fast(letters, add_special_tokens=False)
    texts = tokenizer.backend.decode_batch(
        [encoding.ids for encoding in encodings], skip_special_tokens=False
    )
    return [letter for letter, text in zip(letters, texts, strict=True) if letter not in text]
