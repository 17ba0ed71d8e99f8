"""What is told while work goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vnprep.pipeline import Advance
from vnprep.shards.ledger import Ledger
from vnprep.shards.manifest import ShardRecord
from vnprep.sources.plan import Unit


@dataclass(frozen=True)
class Progress:
    """What is told while work goes on; every number counts from the start.

    Attributes:
        phase: ``plan`` while inputs are hashed, then ``encode``.
        bytes, total_bytes: of the inputs.
        rows, tokens, rejected: so far.
    """

    phase: str
    bytes: int
    total_bytes: int
    rows: int
    tokens: int
    rejected: int


Report = Callable[[Progress], None]


@dataclass
class Totals:
    """Adds up finished units and what is known of those at work, and passes the sums on."""

    phase: str
    total_bytes: int
    report: Report | None
    bytes: int = 0
    tokens: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    _at_work: dict[int, Advance] = field(default_factory=dict)

    def add_bytes(self, count: int) -> None:
        """Count bytes that were read."""
        self.bytes += count
        self._tell()

    def advance(self, unit: Unit, so_far: Advance) -> None:
        """Note how far a unit is."""
        # Of compressed input the text is larger than what was read of the file.
        read = 0 if unit.compressed else min(so_far.bytes, unit.bytes)
        self._at_work[unit.number] = Advance(read, so_far.rows, so_far.tokens, so_far.rejected)
        self._tell()

    def add(self, unit: Unit, record: ShardRecord) -> None:
        """Count a unit that is done."""
        self._at_work.pop(unit.number, None)
        self.bytes += unit.bytes
        self.tokens += record.tokens
        self.ledger.add(record.ledger)
        self._tell()

    def _tell(self) -> None:
        if self.report is None:
            return
        begun = self._at_work.values()
        self.report(
            Progress(
                self.phase,
                self.bytes + sum(unit.bytes for unit in begun),
                self.total_bytes,
                self.ledger.kept + sum(unit.rows for unit in begun),
                self.tokens + sum(unit.tokens for unit in begun),
                self.ledger.rejected.total() + sum(unit.rejected for unit in begun),
            )
        )
