"""What is told while work goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vnprep.shards.ledger import Ledger
from vnprep.shards.manifest import ShardRecord
from vnprep.sources.plan import Unit


@dataclass(frozen=True)
class Progress:
    """What is told while work goes on; every number counts from the start.

    Attributes:
        phase: ``plan`` while inputs are hashed, then ``encode``.
        bytes, total_bytes: of the inputs.
        ledger, tokens: so far.
    """

    phase: str
    bytes: int
    total_bytes: int
    ledger: Ledger
    tokens: int


Report = Callable[[Progress], None]


@dataclass
class Totals:
    """Adds up finished units and passes the sums on."""

    phase: str
    total_bytes: int
    report: Report | None
    bytes: int = 0
    tokens: int = 0
    ledger: Ledger = field(default_factory=Ledger)

    def add_bytes(self, count: int) -> None:
        """Count bytes that were read."""
        self.bytes += count
        self._tell()

    def add(self, unit: Unit, record: ShardRecord) -> None:
        """Count a unit that is done."""
        self.bytes += unit.bytes
        self.tokens += record.tokens
        self.ledger.add(record.ledger)
        self._tell()

    def _tell(self) -> None:
        if self.report is not None:
            state = Progress(self.phase, self.bytes, self.total_bytes, self.ledger, self.tokens)
            self.report(state)
