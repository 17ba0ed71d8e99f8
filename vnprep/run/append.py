"""Which inputs an append adds: those whose content the data set does not hold yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from vnprep.errors import InputError
from vnprep.shards.manifest import FileRecord
from vnprep.sources.plan import Plan


@dataclass(frozen=True)
class Choice:
    """What an append does with its inputs.

    Attributes:
        new: names of the inputs to add.
        skipped: how many are in the data set already, whatever their names are there.
    """

    new: frozenset[str]
    skipped: int


def choose(
    there: Iterable[FileRecord], given: Iterable[FileRecord], streams: Collection[str] = ()
) -> Choice:
    """Tell inputs that are new from those that are in the data set already.

    Args:
        there: the inputs of the data set.
        given: those of the append.
        streams: names of streams among them: another text comes under the same name each time.

    Raises:
        InputError: an input of the same name but another content is in the data set.
    """
    hashes: dict[str, str] = {}
    contents: set[str] = set()  # not the values of the other: streams share a name
    for record in there:
        hashes[record.name] = record.sha256
        contents.add(record.sha256)
    new: set[str] = set()
    skipped = 0
    for record in given:
        if record.sha256 in contents:
            skipped += 1
            continue
        contents.add(record.sha256)  # given twice, it is added once
        if record.name in hashes and record.name not in streams:
            raise InputError(
                f"changed since it was added: sha256 {hashes[record.name][:12]} in the data set, "
                f"{record.sha256[:12]} now",
                place=record.name,
                remedy="give it another name if it is new text; "
                "if it replaces the old, prepare the whole data set again with --overwrite",
            )
        new.add(record.name)
    return Choice(frozenset(new), skipped)


def numbered_from(plan: Plan, first: int) -> Plan:
    """Return a plan whose units, and so its shards, are numbered from ``first``."""
    units = (replace(unit, number=unit.number + first) for unit in plan.units)
    return replace(plan, units=tuple(units))
