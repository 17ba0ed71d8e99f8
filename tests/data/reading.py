"""Reads combinations back out of the sample's text, without the grammar that wrote it.

A combination is read as (device, room, family, number): the families are switch, level, channel
and change. An action and its inverse are one: ``bật`` and ``tắt`` are both a switch.
"""

from __future__ import annotations

import re

from data import home

Key = tuple[str, str, str, int | None]

_NAMES = sorted((*home.DEVICES, *home.MISSING), key=len, reverse=True)
DEVICE = re.compile(rf"\b({'|'.join(_NAMES)})\b")
ROOM = re.compile(rf"\b({'|'.join(home.ROOMS)})\b")
_CHANNEL = re.compile(r"kênh (\d+)")
_CHANGE = re.compile(r"(?:thêm|bớt|bớt nóng|bớt ẩm|đi) (\d+)(?: mức| độ|%)")
_LEVEL = re.compile(r"mức (\d+)|(\d+) độ|(\d+)%")


def key_of(text: str) -> Key:
    """Read one order or one state."""
    text = text.lower()
    devices, rooms = DEVICE.findall(text), ROOM.findall(text)
    assert len(devices) == 1 and len(rooms) == 1, text
    for family, pattern in (("channel", _CHANNEL), ("change", _CHANGE), ("level", _LEVEL)):
        found = pattern.search(text)
        if found:
            return devices[0], rooms[0], family, int(next(g for g in found.groups() if g))
    return devices[0], rooms[0], "switch", None


def keys_of_pair(request: str, response: str, task: str) -> set[Key]:
    """Read everything that a row speaks of."""
    if task != "question":
        return {key_of(request), key_of(response)}
    *told, asked = re.split(r"(?<=[.?]) ", request)
    clauses = [clause for sentence in told for clause in sentence.split(", còn ")]
    if re.search(r"(phải|đúng) không|có phải", asked.lower()):  # a state to agree or disagree with
        clauses.append(asked)
    return {key_of(clause) for clause in (*clauses, response)}


def keys_of_sentence(sentence: str) -> set[Key]:
    """Read what a sentence says of each device that stands in a room."""
    text, keys = sentence.lower(), set()
    for found in re.finditer(rf"{DEVICE.pattern}(?: ở| trong| ngoài| trên)? {ROOM.pattern}", text):
        device, room = found.groups()
        # A level counts where it follows at once: "… là 26 độ", not "… lúc 8 giờ".
        near = text[found.end() :].split(",")[0].split(" lúc ")[0]
        keys.add(key_of(f"{device} {room} {near}") if not DEVICE.search(near) else key_of(found[0]))
    return keys


def key_of_combination(combination: home.Combination) -> Key:
    """Put a record of the grammar into the same form."""
    c = combination
    families = {"đặt": "level", "chuyển": "channel", "tăng": "change", "giảm": "change"}
    return c.device, c.room, families.get(c.action, "switch"), c.level
