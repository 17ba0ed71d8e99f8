"""What every form of export is: how large it will be, and what writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vnprep.shards.manifest import FileRecord, Manifest

#: Called with the positions of the rows that were written since the last call.
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Source:
    """A data folder that was checked.

    Attributes:
        folder: where it is.
        manifest: what is in it.
        identity: SHA-256 of its ``manifest.json``, which names the hash of every file.
    """

    folder: Path
    manifest: Manifest
    identity: str


class Target(Protocol):
    """A form to export to."""

    @property
    def name(self) -> str:
        """What ``--to`` calls it."""

    def bytes_needed(self, manifest: Manifest) -> int:
        """Return about how many bytes ``write`` will write."""

    def write(self, source: Source, out: Path, advance: Advance) -> list[FileRecord]:
        """Write the data files into an empty folder, each fsynced; return what they are."""

    def note(self, manifest: Manifest) -> str:
        """Return what a user must know to read this export rightly, or nothing."""
