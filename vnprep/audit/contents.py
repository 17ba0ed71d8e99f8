"""Check what hashes cannot tell: that a manifest's own figures are those of its files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vnprep.errors import VnprepError
from vnprep.packing.file import pack_problems
from vnprep.shards.inputs import read_inputs
from vnprep.shards.manifest import MANIFEST_NAME, Manifest, ShardRecord
from vnprep.shards.read import ShardSet
from vnprep.tokenizer.load import parse_tokenizer

#: Reasons that are counted and not listed in the file of rejects.
_UNLISTED = {"blank-line"}


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file."""

    file: str
    what: str


def contents(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Yield figures of the manifest that are not those of the files, each with the file.

    The files themselves must be whole; columns are mapped, not loaded.
    """
    try:
        shards = ShardSet.open(folder, check="sizes")
        yield from _inputs(folder, manifest)
    except VnprepError as error:
        yield Problem(error.place or str(folder), error.cause)
        return
    for shard in manifest.shards:
        for what in _shard(folder, shard):
            yield Problem(shard.file.name, f"the manifest's {what} does not fit it")
    for name, what in pack_problems(folder, shards.lengths):
        yield Problem(name, what)
    if manifest.config.get("stage", manifest.stage) != manifest.stage:
        yield Problem(MANIFEST_NAME, "its stage is not that of its settings")
    text = shards.tokenizer_path.read_text(encoding="utf-8")
    tokenizer = parse_tokenizer(text, special=manifest.tokenizer.special)
    if tokenizer.fingerprint != manifest.tokenizer.fingerprint:
        yield Problem(shards.tokenizer_path.name, "not the tokenizer that the manifest names")
    if tokenizer.vocab_size != manifest.tokenizer.vocab_size:
        yield Problem(shards.tokenizer_path.name, "the manifest's vocab_size does not fit it")


def _inputs(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    for part in manifest.inputs:
        count = total = 0
        for record in read_inputs(folder, [part]):
            count, total = count + 1, total + record.bytes
        if (count, total) != (part.count, part.bytes):
            yield Problem(part.file.name, "the manifest's count or bytes does not fit it")


def _shard(folder: Path, shard: ShardRecord) -> Iterator[str]:
    """Yield the names of figures that a shard belies."""
    table = pa.ipc.open_file(pa.memory_map(str(folder / shard.file.name))).read_all()
    lengths = pc.list_value_length(table["input"])
    masks = (chunk.values for chunk in table["loss_mask"].chunks)
    supervised = sum(pc.sum(mask).as_py() or 0 for mask in masks)
    found = {
        "rows": table.num_rows,
        "tokens": pc.sum(lengths).as_py() or 0,
        "longest_row": pc.max(lengths).as_py() or 0,
        "supervised_tokens": supervised,
    }
    for name, value in found.items():
        if getattr(shard, name) != value:
            yield name
    if not _ledger_fits(folder, shard):
        yield "ledger"


def _ledger_fits(folder: Path, shard: ShardRecord) -> bool:
    listed: dict[str, Counter[str]] = {"dropped": Counter(), "rejected": Counter()}
    if shard.rejects is not None:
        with (folder / shard.rejects.name).open("rb") as lines:
            for line in lines:
                item = json.loads(line)
                listed[item["outcome"]][item["reason"]] += 1
    ledger = shard.ledger
    stated = {"dropped": ledger.dropped, "rejected": ledger.rejected}
    return (
        ledger.closes
        and ledger.kept == shard.rows
        and all(
            {reason: n for reason, n in counts.items() if reason not in _UNLISTED} == listed[name]
            for name, counts in stated.items()
        )
    )
