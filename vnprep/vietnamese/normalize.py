"""Unicode normal form C, applied only where it changes something."""

from __future__ import annotations

import unicodedata


def to_nfc(text: str) -> str:
    """Return the text in NFC; text that is NFC already comes back as the same object."""
    # Checking costs a fraction of normalising, and nearly all text passes.
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def clean_turn(text: str) -> str:
    """Return a request or response as the model sees it: NFC, without white space at its ends.

    Training and inference both call this, so a stray space in a spreadsheet cell or a prompt
    never makes the two differ.
    """
    return to_nfc(text.strip())
