"""One work unit → one shard: the only place where the stages meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from vnprep.config import PrepareConfig, Stage
from vnprep.examples import Columns, Segments, build
from vnprep.shards.ledger import Excluded, Ledger
from vnprep.shards.manifest import ShardRecord
from vnprep.shards.schema import ROWS_PER_BATCH, shard_schema, to_batch
from vnprep.shards.write import write_excluded, write_shard
from vnprep.sources.plan import Unit
from vnprep.sources.reading import read_records
from vnprep.sources.records import Record, dropped, rejected
from vnprep.tokenizer.encode import encode, holds_special
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.truncation import row_lengths, truncate

# A record batch also ends here, so that memory does not grow with the length of documents.
_BATCH_CHARACTERS = 8 << 20


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.arrow"


def rejects_name(number: int) -> str:
    """Return the name of the file that lists what a unit left out."""
    return f"shard-{number:05d}.rejects.jsonl"


def make_shard(
    unit: Unit, config: PrepareConfig, tokenizer: LoadedTokenizer, folder: Path
) -> ShardRecord:
    """Turn a unit into its shard, and a file of rejects if there are any.

    The bytes depend on the unit, the configuration and the tokenizer alone.

    Raises:
        InputError: one of the unit's inputs cannot be used at all.
    """
    tally = _Tally()
    sources = sorted({piece.input.name for piece in unit.pieces})
    schema = shard_schema(tokenizer.vocab_size - 1)
    records = chain.from_iterable(read_records(piece, config.read) for piece in unit.pieces)
    batches = (
        to_batch(columns, [record.origin for record in kept], sources, schema)
        for kept, columns in _columns(records, config, tokenizer, tally)
    )
    file = write_shard(folder / shard_name(unit.number), schema, _nonempty(batches, tally))
    rejects = None
    if tally.excluded:
        rejects = write_excluded(folder / rejects_name(unit.number), tally.excluded)
    assert tally.ledger.closes, tally.ledger
    return ShardRecord(
        file, tally.rows, tally.tokens, tally.supervised, tally.longest, rejects, tally.ledger
    )


@dataclass
class _Tally:
    """What is counted while a shard is written."""

    ledger: Ledger = field(default_factory=Ledger)
    excluded: list[Excluded] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    supervised: int = 0
    longest: int = 0

    def exclude(self, excluded: Excluded) -> None:
        self.ledger.exclude(excluded.outcome, excluded.reason)
        # Blank lines are counted; listing each would bury what matters.
        if excluded.reason != "blank-line":
            self.excluded.append(excluded)


def _nonempty(batches: Iterator[pa.RecordBatch], tally: _Tally) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows:
            tally.rows += batch.num_rows
            yield batch


def _columns(
    items: Iterator[Record | Excluded],
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    tally: _Tally,
) -> Iterator[tuple[list[Record], Columns]]:
    """Gather records into batches and build their columns, counting what is left out."""
    for records in _gather(items, tally):
        segments = _encode(records, config.stage, tokenizer)
        usable = _usable(records, segments, tokenizer, tally)
        records, segments = _select(records, segments, usable)
        lengths = row_lengths(segments)
        result = truncate(segments, config.max_len, config.truncation)
        for number in np.flatnonzero(result.too_long):
            detail = f"{lengths[number]} positions, --max-len is {config.max_len}"
            record = records[number]
            tally.exclude(dropped(record.origin, "too-long", detail, record.segments[0]))
        cut = int(result.cut.sum())
        if cut:
            tally.ledger.noted[f"cut:{config.truncation}"] += cut
        records, segments = _select(records, result.segments, ~result.too_long)
        keep_targets = config.stage == "pretrain"
        columns = build(
            segments, tokenizer.special, eos_loss=config.eos_loss, keep_targets=keep_targets
        )
        records, columns = _supervised_only(records, columns, tally)
        tally.ledger.kept += len(records)
        tally.tokens += len(columns.input)
        tally.supervised += int(columns.loss_mask.sum())
        tally.longest = max(tally.longest, int(columns.lengths.max(initial=0)))
        yield records, columns


def _gather(items: Iterator[Record | Excluded], tally: _Tally) -> Iterator[list[Record]]:
    records: list[Record] = []
    characters = 0
    for item in items:
        tally.ledger.read += 1
        if isinstance(item, Excluded):
            tally.exclude(item)
            continue
        tally.ledger.noted.update(item.notes)
        records.append(item)
        characters += sum(map(len, item.segments))
        if len(records) == ROWS_PER_BATCH or characters >= _BATCH_CHARACTERS:
            yield records
            records, characters = [], 0
    if records:
        yield records


def _encode(records: list[Record], stage: Stage, tokenizer: LoadedTokenizer) -> Segments:
    """Encode every segment alone, so that no merge crosses ``[SEP]``."""
    texts = [text for record in records for text in record.segments]
    ids, offsets = encode(tokenizer, texts)
    counts = [len(record.segments) for record in records]
    record_offsets = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    supervised = np.ones(len(texts), dtype=np.bool_)
    if stage == "finetune":
        # Request, response, request, response, … within each record.
        within = np.arange(len(texts)) - np.repeat(record_offsets[:-1], counts)
        supervised = within % 2 == 1
    return Segments(ids, offsets, record_offsets, supervised, np.ones(len(texts), dtype=np.bool_))


def _usable(
    records: list[Record], segments: Segments, tokenizer: LoadedTokenizer, tally: _Tally
) -> np.ndarray:
    """Reject records in which a text has no tokens, or holds a special token."""
    special = holds_special(segments.ids, segments.offsets, tokenizer)
    empty = np.diff(segments.offsets) == 0
    starts = segments.record_offsets[:-1]
    usable = np.ones(len(records), dtype=np.bool_)
    if not (special.any() or empty.any()):
        return usable
    for reason, flags in (("special-token-in-text", special), ("no-tokens", empty)):
        for number in np.flatnonzero(np.logical_or.reduceat(flags, starts) & usable):
            usable[number] = False
            record = records[number]
            tally.exclude(rejected(record.origin, reason, "", record.segments[0]))
    return usable


def _select(
    records: list[Record], segments: Segments, keep: np.ndarray
) -> tuple[list[Record], Segments]:
    """Keep some records."""
    if keep.all():
        return records, segments
    counts = np.diff(segments.record_offsets)
    keep_segments = np.repeat(keep, counts)
    lengths = np.diff(segments.offsets)
    keep_ids = np.repeat(keep_segments, lengths)
    chosen = Segments(
        segments.ids[keep_ids],
        np.concatenate(([0], np.cumsum(lengths[keep_segments], dtype=np.int64))),
        np.concatenate(([0], np.cumsum(counts[keep], dtype=np.int64))),
        segments.supervised[keep_segments],
        segments.ended[keep_segments],
    )
    return [record for record, kept in zip(records, keep, strict=True) if kept], chosen


def _supervised_only(
    records: list[Record], columns: Columns, tally: _Tally
) -> tuple[list[Record], Columns]:
    """Reject rows without a token that carries loss: they would teach nothing."""
    keep = columns.supervised_tokens() > 0
    if keep.all():
        return records, columns
    for number in np.flatnonzero(~keep):
        record = records[number]
        tally.exclude(rejected(record.origin, "no-supervised-token", "", record.segments[0]))
    lengths = columns.lengths
    tokens = np.repeat(keep, lengths)
    offsets = np.concatenate(([0], np.cumsum(lengths[keep], dtype=np.int64)))
    chosen = Columns(
        columns.input[tokens], columns.target[tokens], columns.loss_mask[tokens], offsets
    )
    return [record for record, kept in zip(records, keep, strict=True) if kept], chosen
