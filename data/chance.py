"""Choices that never change: every draw is a SHA-256 of its name, not a random generator.

Python promises the same ``random()`` in every version, but not the same ``choice`` or ``shuffle``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def number(*key: object) -> int:
    """Return the 64-bit number that belongs to a key, the same on every machine."""
    text = "|".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def pick(items: Sequence[T], *key: object) -> T:
    """Choose one item; the key decides which."""
    return items[number(*key) % len(items)]


def shuffled(items: Iterable[T], *key: object) -> list[T]:
    """Put items into an order that looks random; their ``str`` decides it."""
    return sorted(items, key=lambda item: (number(*key, item), str(item)))
