"""Unicode normal form C, applied only where it changes something."""

from __future__ import annotations

import re
import unicodedata

_LONG = 2_000

# Words are shorter; what is longer is looked at as a whole.
_REACH = 64
_FROM_ASCII = re.compile(rb"[\x00-\x7f][\x80-\xff]*\Z")
_TO_ASCII = re.compile(rb"[\x80-\xff]+")


def to_nfc(text: str) -> str:
    """Return the text in NFC; text that is NFC already comes back as the same object."""
    if len(text) < _LONG:
        return _short_to_nfc(text)
    # One doubtful character makes the check as slow as normalising. Nothing composes over a line
    # end, so a long text is looked at line by line.
    lines = text.split("\n")
    cleaned = list(map(_short_to_nfc, lines))
    if all(one is other for one, other in zip(lines, cleaned, strict=True)):
        return text
    return "\n".join(cleaned)


def _short_to_nfc(text: str) -> str:
    # Checking costs a fraction of normalising, and nearly all text passes.
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def is_clean_around(data: memoryview, place: int) -> bool:
    """Tell whether a text is NFC, and without NUL, around one character.

    A text may be parted before any ASCII character without a difference to its NFC. So it is
    enough to look from the ASCII character before the place to the next one behind it.

    Args:
        data: the text's UTF-8.
        place: where the character begins in it.
    """
    if data[place] == 0:
        return False
    start = max(place - _REACH, 0)
    before = _FROM_ASCII.search(data[start:place])
    after = _TO_ASCII.match(data[place : place + _REACH])
    assert after is not None, "a character that is not ASCII begins here"
    whole_before = before is not None or start == 0
    whole_after = after.end() < _REACH or place + _REACH >= len(data)
    if not (whole_before and whole_after):  # a script with few ASCII characters
        return unicodedata.is_normalized("NFC", str(data, "utf-8"))
    begin = start + before.start() if before is not None else 0
    return unicodedata.is_normalized("NFC", str(data[begin : place + after.end()], "utf-8"))


def clean_turn(text: str) -> str:
    """Return a request or response as the model sees it: NFC, without white space at its ends.

    Training and inference both call this, so a stray space in a spreadsheet cell or a prompt
    never makes the two differ.
    """
    return to_nfc(text.strip())
