"""When rejects end a run: nothing is left, or more of them than the user allows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vnprep.config import Stage
from vnprep.errors import InputError, NoRowsError, VnprepError
from vnprep.pipeline import rejects_name
from vnprep.shards.ledger import Ledger
from vnprep.shards.manifest import Manifest, ShardRecord
from vnprep.sources.plan import Unit

_EXAMPLES = 3


@dataclass(frozen=True)
class RejectLimit:
    """How many rejects are allowed: a number, or a percentage of all records read.

    It decides whether a data set is written and not what is in it, so it may be another when a
    run is resumed.
    """

    value: float
    percent: bool

    @classmethod
    def parse(cls, text: str) -> RejectLimit:
        """Read ``100`` or ``0.5%``.

        Raises:
            VnprepError: it is neither.
        """
        found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?) ?%", text.strip())
        if found is None or float(found[2] or 0) > 100:
            raise VnprepError(
                f"--max-rejects {text} is neither a number nor a percentage",
                remedy="give a number, e.g. 100, or a share of the records read, e.g. 0.5%",
            )
        return cls(float(found[1] or found[2]), percent=found[2] is not None)

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.percent else f"{self.value:.0f}"

    def exceeded(self, ledger: Ledger, share: float = 1.0) -> bool:
        """Tell whether there are too many.

        Args:
            ledger: of what was read.
            share: how much of the input that was, by its bytes. Of a percentage it is asked
                whether the rest, if all of it were good, could still make up for the rejects.
        """
        rejected = ledger.rejected.total()
        return rejected > (ledger.read / share * self.value / 100 if self.percent else self.value)


@dataclass
class Judge:
    """Ends a run that has too many rejects.

    It looks at the units in their order, whichever was done first, so that the verdict and its
    figures are the same with any number of workers.

    Attributes:
        limit: None allows any number.
        units: in order.
        work: where the files of rejects are.
    """

    limit: RejectLimit | None
    units: Sequence[Unit]
    work: Path
    ledger: Ledger = field(default_factory=Ledger)
    seen: int = 0
    bytes: int = 0

    @cached_property
    def total(self) -> int:
        """Bytes of all units."""
        return sum(unit.bytes for unit in self.units)

    def look(self, records: dict[int, ShardRecord]) -> None:
        """Judge the units that are done, up to the first that is not.

        Raises:
            InputError: there are too many rejects.
        """
        if self.limit is None:
            return
        while self.seen < len(self.units) and self.units[self.seen].number in records:
            unit = self.units[self.seen]
            self.ledger.add(records[unit.number].ledger)
            self.seen += 1
            self.bytes += unit.bytes
            last = self.seen == len(self.units)
            share = 1.0 if last else self.bytes / max(self.total, 1)
            if share and self.limit.exceeded(self.ledger, share):
                raise self._too_many("" if last else " so far")

    def _too_many(self, so_far: str) -> InputError:
        rejected, read = self.ledger.rejected.total(), self.ledger.read
        share = f"{100 * rejected / read:.2f} %: {_reasons(self.ledger)}"
        cause = (
            f"too many rejects: {rejected:,} of {read:,} records{so_far} ({share}), "
            f"--max-rejects is {self.limit}"
        )
        examples = first_rejects(self.work, self.units[: self.seen])
        return InputError(
            "\n  ".join([cause, *examples]),
            remedy="raise --max-rejects, and what is done is kept; "
            f"or mend the inputs, remove {self.work} and begin again",
        )


def refuse_finished(limit: RejectLimit | None, manifest: Manifest, out: Path) -> None:
    """Refuse a finished data set that has more rejects than the limit allows.

    Raises:
        InputError: it has.
    """
    ledger = manifest.ledger
    if limit is None or not limit.exceeded(ledger):
        return
    raise InputError(
        f"too many rejects: {ledger.rejected.total():,} of {ledger.read:,} records "
        f"({_reasons(ledger)}), --max-rejects is {limit}",
        place=out,
        remedy="the data set stands, made with another limit; mend the inputs and pass --overwrite",
    )


def _reasons(ledger: Ledger) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in ledger.rejected.most_common())


def no_rows(ledger: Ledger, work: Path, units: Iterable[Unit], stage: Stage) -> NoRowsError:
    """Say why nothing is left, with the first few rejects: their files go with the folder."""
    reasons = (ledger.dropped + ledger.rejected).most_common()
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    remedy = "give inputs that hold text"
    if "invalid-utf8" in ledger.rejected:
        remedy = (
            "the text is not UTF-8. Old Vietnamese files are mostly TCVN3 (iconv -f TCVN) or "
            "Windows-1258 (iconv -f WINDOWS-1258), each with -t UTF-8 OLD > NEW; the wrong one "
            "gives wrong letters and no error, so look at the result"
        )
    elif "missing-field" in ledger.rejected:
        remedy = (
            "name the field with --text-field"
            if stage == "pretrain"
            else "name the fields with --request-field and --response-field, or --messages-field"
        )
    elif "too-long" in ledger.dropped:
        remedy = "raise --max-len, or choose another --truncation"
    elif ledger.rejected:
        remedy = "mend the records named above"
    cause = f"no rows left: {ledger.read:,} read ({counts or 'nothing in it'})"
    return NoRowsError("\n  ".join([cause, *first_rejects(work, units)]), remedy=remedy)


def first_rejects(work: Path, units: Iterable[Unit]) -> list[str]:
    """Return the first few rejects of some units, each in a line: place, reason, detail."""
    found: list[str] = []
    for unit in units:
        path = work / rejects_name(unit.number)
        if len(found) < _EXAMPLES and path.exists():
            with path.open(encoding="utf-8") as lines:
                left = range(_EXAMPLES - len(found))
                found += [_in_words(line) for line, _ in zip(lines, left, strict=False)]
    return found


def _in_words(line: str) -> str:
    item = json.loads(line)
    detail = f" ({item['detail']})" if item["detail"] else ""
    return f"{item['source']}:{item['line']}: {item['reason']}{detail}"
