"""The request/response pairs: every combination asked for in several ways, then split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data import chance, questions
from data.home import INVERSE, Combination, combinations, missing_combinations
from data.phrasing import ask, confirm, refuse, undo

HEADER = ("request", "response", "task")


@dataclass(frozen=True)
class Pair:
    """One row, with the combinations that its request and response speak of."""

    request: str
    response: str
    task: str
    spoken_of: tuple[Combination, ...]

    def __str__(self) -> str:
        return self.request

    @property
    def cells(self) -> tuple[str, str, str]:
        """The three columns of the file."""
        return self.request, self.response, self.task


def train_and_heldout() -> tuple[list[Pair], list[Pair]]:
    """Return the training pairs and the held-out pairs, each in its final order.

    No combination that a held-out pair speaks of is spoken of in training, under any wording or
    task. A request stands once and has one response.
    """
    sides: list[list[Pair]] = []
    seen: dict[str, str] = {}
    for held_out in (False, True):
        side: list[Pair] = []
        for pair in _every_pair(held_out):
            assert all(c.held_out == held_out for c in pair.spoken_of), pair
            if pair.request not in seen:
                side.append(pair)
            known = seen.setdefault(pair.request, pair.response)
            assert known == pair.response, f"two answers to {pair.request!r}"
        sides.append(chance.shuffled(side, "rows"))
    return sides[0], sides[1]


def _every_pair(held_out: bool) -> Iterator[Pair]:
    known = [c for c in combinations() if c.held_out == held_out]
    missing = [c for c in missing_combinations() if c.held_out == held_out]
    for combination in known:
        yield from _commands(combination)
        yield from _undone(combination)
    for combination in missing:
        for turn in range(2 if held_out or _coin(combination) else 1):
            yield Pair(ask(combination, turn), refuse(combination), "unknown", (combination,))
    states = questions.states(known)
    for state in states:
        yield from _questions(state, states)


def _commands(combination: Combination) -> Iterator[Pair]:
    # Levels outnumber switches by far, so a switch is asked for more often.
    turns = 3 if combination.level is None else 2
    for turn in range(2 if combination.held_out else turns):
        # Orders are learned quickly; one wording is enough for most levels.
        if turn or combination.held_out or combination.level is None or _coin(combination):
            yield Pair(ask(combination, turn), confirm(combination), "command", (combination,))


def _undone(combination: Combination) -> Iterator[Pair]:
    if combination.action not in INVERSE:
        return
    opposite = combination.inverse()
    for turn in range(2 if combination.level is None and not combination.held_out else 1):
        request = undo(combination, turn)
        yield Pair(request, confirm(opposite), "undo", (combination, opposite))


def _questions(state: Combination, states: Sequence[Combination]) -> Iterator[Pair]:
    yield _question(questions.about_one(state))
    if state.level is not None:
        return
    for turn in range(1 if state.held_out else 2):
        yield _question(questions.yes_or_no(state, turn))
    # Choosing among two facts is the hardest skill and has the most examples. The states told
    # are on or off, open or closed: among levels a model this small learns too slowly to choose.
    switches = [other for other in states if other.level is None]
    for turn in range(1 if state.held_out else 12):
        second = questions.partner(state, switches, turn)
        if second is not None:
            yield _question(questions.about_two(state, second))


def _coin(*key: object) -> bool:
    return chance.number("coin", *key) % 2 == 0


def _question(question: questions.Question) -> Pair:
    request, response, spoken_of = question
    return Pair(request, response, "question", spoken_of)
