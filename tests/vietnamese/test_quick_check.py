"""The vector tests never pass a text that needs care: proven over all code points."""

from __future__ import annotations

import sys
import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vnprep.vietnamese.quick_check import spaced, spaced_starts, suspects

CHARACTERS = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]


def columnar(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)])
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def suspected_texts(data: np.ndarray, offsets: np.ndarray) -> list[int]:
    places = suspects(data, offsets)
    assert places.tolist() == sorted(set(places.tolist()))
    return np.unique(np.searchsorted(offsets, places, side="right") - 1).tolist()


def test_every_character_that_nfc_may_change_is_suspected() -> None:
    suspected = set(suspected_texts(*columnar(CHARACTERS)))
    passed = [char for number, char in enumerate(CHARACTERS) if number not in suspected]
    assert len(passed) > 1000  # the Latin letters and their company
    # Alone it is NFC, and it neither takes a place among marks nor joins what stands before it.
    joining = {
        chr(int(unicodedata.decomposition(char).split()[1], 16))
        for char in CHARACTERS
        if len(unicodedata.decomposition(char).split()) == 2
        and not unicodedata.decomposition(char).startswith("<")
    }
    for char in passed:
        assert unicodedata.normalize("NFC", char) == char and unicodedata.combining(char) == 0
        assert char not in joining and char != "\0"


def test_vietnamese_is_not_suspected() -> None:
    letters = "aăâeêioôơuưy"
    tones = "\u0300\u0301\u0303\u0309\u0323"
    composed = [unicodedata.normalize("NFC", letter + tone) for letter in letters for tone in tones]
    text = "".join(composed) + "".join(composed).upper() + "đĐ–—“”‘’…₫ 0–9«»°²"
    assert len(suspects(*columnar([text]))) == 0
    assert suspected_texts(*columnar([text, unicodedata.normalize("NFD", text), text])) == [1]


def test_all_white_space_is_suspected_at_either_end() -> None:
    spaces = [char for char in CHARACTERS if char.isspace()]
    assert len(spaces) > 20
    for texts in ([f"{char}a" for char in spaces], spaces):
        assert spaced_starts(*columnar(texts)).all()
        assert spaced(*columnar(texts)).all()
    assert spaced(*columnar([f"ừ{char}" for char in spaces])).all()
    assert not spaced_starts(*columnar([f"ừ{char}" for char in spaces])).any()
    assert spaced(*columnar(["", "a", ""])).tolist() == [True, False, True]


def test_no_letter_is_taken_for_white_space() -> None:
    others = [char for char in CHARACTERS if char.isalnum() and not char.isspace()]
    data, offsets = columnar(others)
    wrong = [others[number] for number in np.flatnonzero(spaced(data, offsets))]
    # Only ones that share the first two bytes with the Ogham space.
    assert all("\u1680" <= char <= "\u16bf" for char in wrong)


@settings(deadline=None)
@given(st.lists(st.text(max_size=5), max_size=6))
def test_texts_among_others(texts: list[str]) -> None:
    data, offsets = columnar(texts)
    suspected = set(suspected_texts(data, offsets))
    spaced_ones = spaced(data, offsets)
    for number, text in enumerate(texts):
        if number not in suspected:
            assert unicodedata.is_normalized("NFC", text) and "\0" not in text
        if not spaced_ones[number]:
            assert text and text == text.strip()
