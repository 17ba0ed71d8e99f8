"""Check a data folder against its manifest: every file, every byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vnprep.errors import VnprepError
from vnprep.packfile import is_pack_file, pack_problems
from vnprep.shards.manifest import MANIFEST_NAME, FileRecord, Manifest
from vnprep.shards.read import ShardSet, file_problem
from vnprep.tokenizer.load import parse_tokenizer


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file."""

    file: str
    what: str


def verify(folder: Path, progress: Callable[[FileRecord], None] | None = None) -> list[Problem]:
    """Return all that is wrong with a data folder; nothing if it is as it was written.

    Args:
        folder: what a vnprep command wrote.
        progress: called with each file that was checked.

    Raises:
        ShardError: there is no manifest to check against.
    """
    manifest = Manifest.read(folder)
    problems: list[Problem] = []
    for record in manifest.files:
        if what := file_problem(folder, record, "full"):
            problems.append(Problem(record.name, what))
        if progress is not None:
            progress(record)
    problems += _unknown_files(folder, manifest)
    if not problems:
        problems += _contents(folder, manifest)
    return problems


def _unknown_files(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    known = {record.name for record in manifest.files} | {MANIFEST_NAME}
    for path in sorted(folder.iterdir()):
        if path.name not in known and not is_pack_file(path.name):
            yield Problem(path.name, "not in the manifest")


def _contents(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Check what hashes cannot tell: that the manifest's own figures are those of its files."""
    try:
        shards = ShardSet.open(folder, check="sizes")
    except VnprepError as error:
        yield Problem(error.place or str(folder), error.cause)
        return
    if int(shards.lengths.sum()) != manifest.tokens:
        yield Problem(MANIFEST_NAME, "its count of tokens is not that of the shards")
    if not manifest.ledger.closes or manifest.ledger.kept != manifest.rows:
        yield Problem(MANIFEST_NAME, "its ledger does not add up")
    for name, what in pack_problems(folder, shards.lengths):
        yield Problem(name, what)
    text = shards.tokenizer_path.read_text(encoding="utf-8")
    tokenizer = parse_tokenizer(text, special=manifest.tokenizer.special)
    if tokenizer.fingerprint != manifest.tokenizer.fingerprint:
        yield Problem(shards.tokenizer_path.name, "not the tokenizer that the manifest names")
