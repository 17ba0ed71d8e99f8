"""Which texts need care, by their bytes alone: vector tests that spare the rest.

Nearly all text is NFC already and has no white space at its ends. These tests never pass a text
that needs care; they may suspect one that does not (Greek, Cyrillic, Chinese), and the exact
functions of Python then decide.

Source: the property NFC_Quick_Check of Unicode's DerivedNormalizationProps.txt, and what
``str.isspace`` calls white space; the tests compare with Python over all code points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

#: Lead byte of a character → ranges of its second byte among which there is a combining mark, a
#: character that composes with the one before it, or one that NFC replaces.
_SUSPECT_PREFIXES = {
    0x00: "00-ff",
    0xCC: "80-bf",
    0xCD: "80-8e 90-af b4-b4 be-be",
    0xCE: "87-87",
    0xD2: "83-87",
    0xD6: "91-bd bf-bf",
    0xD7: "81-82 84-85 87-87",
    0xD8: "90-9a",
    0xD9: "8b-9f b0-b0",
    0xDB: "96-9c 9f-a4 a7-a8 aa-ad",
    0xDC: "91-91 b0-bf",
    0xDD: "80-8a",
    0xDF: "ab-b3 bd-bd",
    0xE0: "a0-bf",
    0xE1: "80-b7 bd-bf",
    0xE2: "80-80 83-84 8c-8c ab-ab b3-b3 b5-b5 b7-b7",
    0xE3: "80-80 82-82",
    0xEA: "99-9b a0-a0 a3-a7 aa-ab af-af",
    0xEF: "a4-ad b8-b8",
    0xF0: "80-bf",
}


def _prefix_table() -> Mask:
    """Spread the prefixes out: the first two bytes as one number → suspect or not."""
    table = np.zeros(1 << 16, dtype=np.bool_)
    for lead, ranges in _SUSPECT_PREFIXES.items():
        for begin, end in (span.split("-") for span in ranges.split()):
            table[(lead << 8) + int(begin, 16) : (lead << 8) + int(end, 16) + 1] = True
    return table


_SUSPECT = _prefix_table()

# In the second-level cache the dozen passes over a block cost little more than one.
_BLOCK = 1 << 16


def suspects(data: Bytes, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where characters begin that NFC might change, and where NUL is.

    Args:
        data: UTF-8, valid, [bytes].
        offsets: where each text starts in ``data``, and the end of the last, [texts + 1].

    Returns:
        Places in ``data``, in rising order.
    """
    first, last = int(offsets[0]), int(offsets[-1])
    # Two bytes more, so that a character on the border is seen whole; it may be found twice.
    found = [
        _positions(data[start : min(start + _BLOCK + 2, last)]) + start
        for start in range(first, last, _BLOCK)
    ]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)


def _positions(block: Bytes) -> NDArray[np.int64]:
    """Return where a character begins that raises suspicion."""
    # First the lead bytes that Vietnamese does without, by a few passes that a compiler
    # vectorises; uint8 arithmetic wraps, so that one comparison tests a range.
    rare = (block - np.uint8(0xCC)) <= 0xE0 - 0xCC
    rare |= block >= 0xE3
    rare |= block == 0
    rare |= block == 0xE2
    # U+1000..U+1FFF but for U+1E00..U+1EFF, where the Vietnamese letters are.
    rare[:-1] |= (block[:-1] == 0xE1) & ((block[1:] - np.uint8(0xB8)) > 0xBB - 0xB8)
    places = np.flatnonzero(rare)
    # Then, of those, by the first two bytes.
    first = block[places].astype(np.uint16)
    second = block.take(places + 1, mode="clip")
    bad = _SUSPECT[(first << 8) | second]
    # Dashes and quotes share theirs with two spaces that NFC replaces.
    third = block.take(places + 2, mode="clip")
    bad &= (first != 0xE2) | (second != 0x80) | (third < 0x82)
    suspicious: NDArray[np.int64] = places[bad]
    return suspicious


def spaced(data: Bytes, offsets: NDArray[np.int64]) -> Mask:
    """Tell which texts are empty or may have white space at an end; see ``suspects``, [texts]."""
    third, second, last = (_byte(data, offsets[1:] - place) for place in (3, 2, 1))
    at_end = _ascii_space(last) | _two_byte_space(second, last)
    return spaced_starts(data, offsets) | at_end | _three_byte_space(third, second, last)


def spaced_starts(data: Bytes, offsets: NDArray[np.int64]) -> Mask:
    """Tell which texts are empty or may begin with white space; see ``suspects``, [texts]."""
    first, second, third = (_byte(data, offsets[:-1] + place) for place in range(3))
    space: Mask = np.diff(offsets) == 0
    space |= _ascii_space(first) | _two_byte_space(first, second)
    space |= _three_byte_space(first, second, third)
    return space


def _byte(data: Bytes, places: NDArray[np.int64]) -> Bytes:
    # This may be a neighbour's byte, which can raise suspicion but never allay it.
    return data.take(places, mode="clip") if len(data) else np.zeros(len(places), dtype=np.uint8)


def _ascii_space(byte: Bytes) -> Mask:
    space: Mask = (byte - np.uint8(0x09)) <= 0x0D - 0x09
    space |= (byte - np.uint8(0x1C)) <= 0x20 - 0x1C
    return space


def _two_byte_space(first: Bytes, second: Bytes) -> Mask:
    space: Mask = (second == 0x85) | (second == 0xA0)  # U+0085, U+00A0
    space &= first == 0xC2
    return space


def _three_byte_space(first: Bytes, second: Bytes, third: Bytes) -> Mask:
    general: Mask = (third <= 0x8A) | ((third & 0xFE) == 0xA8) | (third == 0xAF)
    # U+2000..U+200A, U+2028, U+2029 and U+202F
    space: Mask = (first == 0xE2) & (second == 0x80) & general
    space |= (first == 0xE2) & (second == 0x81) & (third == 0x9F)  # U+205F
    space |= (first == 0xE1) & (second == 0x9A)  # U+1680
    space |= (first == 0xE3) & (second == 0x80) & (third == 0x80)  # U+3000
    return space
