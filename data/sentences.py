"""Sentences from hand-written templates.

A template is one line of ``templates/*.txt``::

    {adult} đang [quét nhà | rửa bát cùng {child}].

``[a | b]`` is a choice, and an empty choice leaves nothing; ``{name}`` is one item of a list that
``templates/lists.txt`` or the house gives.
"""

from __future__ import annotations

import re
from pathlib import Path

from data import chance, questions
from data.home import DEVICES, combinations
from data.phrasing import capital, plain

TEMPLATES = Path(__file__).parent / "templates"
TOPICS = (
    "home", "weather", "food", "travel", "school", "work",
    "family", "health", "nature", "history", "shopping", "technology",
)  # fmt: skip
TRAIN_ROWS, VALID_ROWS, DEVICE_SENTENCES = 4000, 300, 1100
SHORTEST, LONGEST = 5, 30  # syllables

_SLOT = re.compile(r"\[([^\[\]]*)\]|\{([^{}]*)\}")
_TURNS = 38
Lists = dict[str, list[str]]


def train_and_valid() -> tuple[list[str], list[str]]:
    """Return the sentences to train on and those to validate on, all different.

    A quarter speaks of the devices of the house, and never of a held-out combination.
    """
    lists = _lists_of_the_file() | _lists_of_the_house()
    chosen = _sentences("devices", lists)[:DEVICE_SENTENCES]
    share = -(-(TRAIN_ROWS + VALID_ROWS - len(chosen)) // len(TOPICS))
    for topic in TOPICS:
        chosen += _sentences(topic, lists)[:share]
    unique = chance.shuffled(dict.fromkeys(chosen), "sentences")[: TRAIN_ROWS + VALID_ROWS]
    assert len(unique) == TRAIN_ROWS + VALID_ROWS, f"the templates give only {len(unique)}"
    return unique[VALID_ROWS:], unique[:VALID_ROWS]


def expand(template: str, lists: Lists, *key: object) -> str:
    """Fill a template; the key decides every choice."""
    slots = 0

    def fill(match: re.Match[str]) -> str:
        nonlocal slots
        slots += 1
        choice, name = match.group(1), match.group(2)
        items = lists[name] if choice is None else choice.split("|")
        return _SLOT.sub(fill, chance.pick(items, *key, slots).strip())

    text = " ".join(_SLOT.sub(fill, template).split())
    return capital(re.sub(r" ([.,?!])", r"\1", text))


def _sentences(topic: str, lists: Lists) -> list[str]:
    """Return a topic's sentences, its templates taking turns."""
    templates = _lines(topic)
    found: dict[str, None] = {}
    for turn in range(_TURNS):
        for number, template in enumerate(templates):
            sentence = expand(template, lists, topic, number, turn)
            if SHORTEST <= len(sentence.split()) <= LONGEST:
                found[sentence] = None
    return list(found)


def _lines(name: str) -> list[str]:
    text = (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def _lists_of_the_file() -> Lists:
    pairs = (line.split(":", 1) for line in _lines("lists"))
    return {name: [item.strip() for item in items.split("|")] for name, items in pairs}


def _lists_of_the_house() -> Lists:
    """Build lists of orders and states, from combinations of the training side alone."""
    train = [c for c in combinations() if not c.held_out]
    switches = [c for c in train if c.level is None]
    starts = [c for c in switches if c.action in ("bật", "mở")]
    levels = [c for c in questions.states(train) if c.level is not None]
    lists: Lists = {
        "order": [plain(c) for c in train],
        "start": [plain(c) for c in starts],
        "stop": [plain(c) for c in switches if c.action in ("tắt", "đóng")],
        "state": [questions.sentence(c) for c in switches],
        "reading": [questions.sentence(c) for c in levels],
    }
    for device in DEVICES:
        lists[device] = [f"{device} {c.room}" for c in starts if c.device == device]
    return lists
