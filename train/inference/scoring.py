"""Score answers against the expected ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.sampling import Answer
from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.sources.delimited import read_plain_tsv
from vnprep.sources.lines import read_lines
from vnprep.sources.opening import open_bytes
from vnprep.vietnamese.normalize import clean_turn

_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Pair:
    """A request, the response it should get, and the kind of request it is, if that is known."""

    request: str
    response: str
    task: str | None


@dataclass(frozen=True)
class Result:
    """A pair and what the model made of it."""

    pair: Pair
    answer: Answer

    @property
    def exact(self) -> bool:
        """Whether the answer ended and is the expected one, character by character."""
        return self.answer.stopped and self.answer.text == clean_turn(self.pair.response)


@dataclass(frozen=True)
class Score:
    """Counts over a set of results."""

    requests: int
    exact: int
    stopped: int

    @property
    def exact_percent(self) -> float:
        """Answers that are right, in percent."""
        return 100 * self.exact / self.requests

    @property
    def stopped_percent(self) -> float:
        """Answers that reached [EOS], in percent."""
        return 100 * self.stopped / self.requests

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "requests": self.requests,
            "exact": self.exact,
            "exact_percent": self.exact_percent,
            "stopped": self.stopped,
            "stopped_percent": self.stopped_percent,
        }


def score(results: Sequence[Result]) -> Score:
    """Count; there is at least one result."""
    exact, stopped = (result.exact for result in results), (r.answer.stopped for r in results)
    return Score(len(results), sum(exact), sum(stopped))


def score_by_task(results: Sequence[Result]) -> dict[str, Score]:
    """Count for each task, in alphabetical order; empty if the pairs name none."""
    tasks = sorted({result.pair.task for result in results if result.pair.task is not None})
    return {task: score([r for r in results if r.pair.task == task]) for task in tasks}


def read_pairs(path: Path) -> list[Pair]:
    """Read a TSV with the columns ``request`` and ``response`` and, if it has one, ``task``.

    Raises:
        InputError: it cannot be read, a column is missing, a row is bad, or there is none.
    """
    pairs: list[Pair] = []
    with open_bytes(path) as file:
        lines = read_lines(file, str(path), limit=_LONGEST_LINE)
        for row in read_plain_tsv(lines, str(path), ReadOptions("pairs")):
            if isinstance(row, Excluded):
                if row.outcome == "rejected":
                    # A score over fewer rows than the file has would not be the file's.
                    raise InputError(
                        row.detail or row.reason,
                        place=f"{path}, line {row.origin.line}",
                        remedy="correct the line or take it out",
                    )
                continue
            cells = row.fields
            pairs.append(Pair(cells["request"], cells["response"], cells.get("task")))
    if not pairs:
        raise InputError("no pairs in this file", place=path, remedy="give request/response rows")
    return pairs
