"""What became of every record: read = kept + Σ dropped + Σ rejected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from vnprep.shards.schema import Origin

Outcome = Literal["dropped", "rejected"]


@dataclass(frozen=True)
class Excluded:
    """A record that is not in the shards.

    Attributes:
        origin: where it stands in the input.
        outcome: ``dropped`` by a rule that the user chose, or ``rejected`` as bad input.
        reason: a short fixed name, counted in the ledger.
        detail: what exactly is wrong with this one.
        excerpt: its beginning.
    """

    origin: Origin
    outcome: Outcome
    reason: str
    detail: str = ""
    excerpt: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the line of the rejects file."""
        return {
            "source": self.origin.source,
            "line": self.origin.line,
            "byte_offset": self.origin.byte_offset,
            "outcome": self.outcome,
            "reason": self.reason,
            "detail": self.detail,
            "excerpt": self.excerpt,
        }


@dataclass
class Ledger:
    """Counts of records. ``noted`` counts what was kept but deserves a word (a warning)."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)

    @property
    def closes(self) -> bool:
        """Whether every record read is accounted for."""
        return self.read == self.kept + self.dropped.total() + self.rejected.total()

    def exclude(self, outcome: Outcome, reason: str) -> None:
        """Count a record that is left out."""
        (self.dropped if outcome == "dropped" else self.rejected)[reason] += 1

    def add(self, other: Ledger) -> None:
        """Add another ledger's counts to this one."""
        self.read += other.read
        self.kept += other.kept
        self.dropped.update(other.dropped)
        self.rejected.update(other.rejected)
        self.noted.update(other.noted)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON with reasons in alphabetical order."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "rejected": dict(sorted(self.rejected.items())),
            "noted": dict(sorted(self.noted.items())),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Ledger:
        """Read what ``to_json`` wrote."""
        return cls(
            value["read"],
            value["kept"],
            Counter(value["dropped"]),
            Counter(value["rejected"]),
            Counter(value["noted"]),
        )
