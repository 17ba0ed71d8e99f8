"""A whole export: check the data, write all or nothing, say what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vnprep.durable import readable_json, replacing, sha256_file, write_text
from vnprep.errors import NoRowsError, ShardError
from vnprep.export.folder import whole_folder
from vnprep.export.target import Source, Target
from vnprep.shards.manifest import MANIFEST_NAME, TOKENIZER_NAME, FileRecord, Manifest
from vnprep.shards.read import ShardSet, file_problem

RECORD_NAME = "export.json"
FORMAT, FORMAT_VERSION = "vnprep-export", 1

#: Called with the phase (``checking`` or ``writing``), how much of it is done, and its whole.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        source: what it was made from.
        files: all files of the folder but ``export.json``, which lists them.
    """

    source: Source
    files: tuple[FileRecord, ...]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(record.bytes for record in self.files)


def export(folder: Path, target: Target, out: Path, report: Report) -> Exported:
    """Write a data folder in another program's form; row ``i`` stays row ``i``.

    Args:
        folder: what a preparing command wrote; every byte is checked against its manifest first.
        target: the form.
        out: the folder to make.
        report: told how far the work is.

    Raises:
        ShardError: the data is damaged.
        NoRowsError: there are no rows.
        OutputError: ``out`` holds something, or the disk is too full.
    """
    source = _checked(folder, report)
    manifest = source.manifest
    tokenizer = manifest.tokenizer_file
    needed = target.bytes_needed(manifest) + tokenizer.bytes
    written = 0

    def advance(positions: int) -> None:
        nonlocal written
        written += positions
        report("writing", written, manifest.tokens)

    with whole_folder(out, needed) as data:
        with replacing(data / TOKENIZER_NAME) as file:
            file.write((folder / tokenizer.name).read_bytes())
        copy = FileRecord(TOKENIZER_NAME, tokenizer.bytes, tokenizer.sha256)
        exported = Exported(source, (*target.write(source, data, advance), copy))
        write_text(data / RECORD_NAME, readable_json(_record(exported, target)))
    return exported


def _checked(folder: Path, report: Report) -> Source:
    """Check what ``ShardSet.open`` checks, but with one shard mapped at a time."""
    manifest = Manifest.read(folder)
    total = sum(record.bytes for record in manifest.files)
    checked = 0
    for record in manifest.files:
        if problem := file_problem(folder, record, "full"):
            raise ShardError(
                problem,
                place=folder / record.name,
                remedy="vnprep verify lists all damage; prepare the data again",
            )
        checked += record.bytes
        report("checking", checked, total)
    for shard in manifest.shards:
        ShardSet(folder, replace(manifest, shards=(shard,)))
    if not manifest.rows:
        raise NoRowsError("no rows to export", place=folder)
    return Source(folder, manifest, sha256_file(folder / MANIFEST_NAME))


def _record(exported: Exported, target: Target) -> dict[str, Any]:
    manifest = exported.source.manifest
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "to": target.name,
        "note": target.note(manifest),
        "manifest_sha256": exported.source.identity,
        "stage": manifest.stage,
        "rows": manifest.rows,
        "tokens": manifest.tokens,
        "supervised_tokens": manifest.supervised_tokens,
        "tokenizer": {
            "fingerprint": manifest.tokenizer.fingerprint,
            "vocab_size": manifest.tokenizer.vocab_size,
            "special_ids": manifest.tokenizer.special.as_dict(),
        },
        "files": [asdict(record) for record in exported.files],
    }
