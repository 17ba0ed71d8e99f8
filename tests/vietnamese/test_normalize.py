"""Looking around one character tells what looking at the whole text tells."""

from __future__ import annotations

import unicodedata

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vnprep.vietnamese.normalize import is_clean_around, to_nfc
from vnprep.vietnamese.quick_check import suspects

# Bases, marks that compose with them or reorder, jamo, a sign that NFC replaces, long runs.
marks = st.text(st.sampled_from("aeo ở\u0301\u0302\u0323\u031b\u0345"), max_size=8)
others = st.sampled_from(["\u1100", "\u1161", "\u11a8", "\u212b", "\u0958", "б", "日" * 30, "\0"])
texts = st.lists(marks | others | st.text(max_size=3), max_size=6).map("".join)


@settings(deadline=None, max_examples=400)
@given(texts)
@example("日" * 40 + "\u0301" + "日" * 40)
@example("a" + "\u0323" * 40 + "\u0301")
def test_around_every_suspicious_place(text: str) -> None:
    raw = text.encode()
    places = suspects(np.frombuffer(raw, dtype=np.uint8), np.array([0, len(raw)]))
    clean = all(is_clean_around(memoryview(raw), place) for place in places.tolist())
    assert clean == (unicodedata.is_normalized("NFC", text) and "\0" not in text)


@settings(deadline=None)
@given(st.lists(texts, max_size=8).map("\n".join), st.booleans())
@example("a\n\u0301b\n", True)
def test_long_texts_line_by_line(text: str, long: bool) -> None:
    given_text = text + "\n" + "x" * 3_000 * long
    assert to_nfc(given_text) == unicodedata.normalize("NFC", given_text)
