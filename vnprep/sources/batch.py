"""Columnar batches of records: what every reader hands on.

The fast readers fill them from whole blocks of bytes; the careful ones, which take a row at a
time, through ``gather``. ``splice`` puts the rows that needed care back where they stood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import NO_OFFSET, ROWS_PER_BATCH, Origin
from vnprep.sources.records import Record
from vnprep.texts import text_offsets

Ints = NDArray[np.int64]

#: A batch ends here, so that memory does not grow with the length of documents.
BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class TextBatch:
    """Records, one after another.

    Attributes:
        texts: the segments of all records, NFC: documents, or request, response, request, …
            (large_string, [segments]).
        record_offsets: where each record starts among the segments, [records + 1].
        source: each record's place in the unit's list of sources, [records].
        line: its 1-based line or row there, [records].
        byte_offset: its first byte there, or ``NO_OFFSET``, [records].
        excluded: records that were read and are not among these, in the order they stand.
        noted: what was unusual but harmless.
        blank_lines: lines with nothing in them; they are dropped, counted and not listed.
    """

    texts: pa.LargeStringArray
    record_offsets: Ints
    source: Ints
    line: Ints
    byte_offset: Ints
    excluded: tuple[Excluded, ...] = ()
    noted: Counter[str] = field(default_factory=Counter)
    blank_lines: int = 0

    def __len__(self) -> int:
        return len(self.line)

    @property
    def nbytes(self) -> int:
        """Bytes of all texts."""
        start, end = text_offsets(self.texts)[[0, -1]]
        return int(end - start)

    def take(self, keep: NDArray[np.bool_]) -> TextBatch:
        """Return the records of a mask, without what was excluded or noted."""
        if keep.all():
            return TextBatch(
                self.texts, self.record_offsets, self.source, self.line, self.byte_offset
            )
        counts = np.diff(self.record_offsets)
        texts = self.texts.filter(pa.array(np.repeat(keep, counts)))
        offsets = np.concatenate(([0], np.cumsum(counts[keep])))
        return TextBatch(texts, offsets, self.source[keep], self.line[keep], self.byte_offset[keep])

    def first_text(self, record: int) -> str:
        """Return the first segment of a record."""
        text: str = self.texts[int(self.record_offsets[record])].as_py()
        return text

    def origin(self, record: int, sources: Sequence[str]) -> Origin:
        """Return where a record stands."""
        offset = int(self.byte_offset[record])
        return Origin(
            sources[int(self.source[record])],
            int(self.line[record]),
            None if offset == NO_OFFSET else offset,
        )


def gather(items: Iterable[Record | Excluded], source: int) -> Iterator[TextBatch]:
    """Gather records that were read one at a time.

    Args:
        items: all of one source, in the order they stand.
        source: its place in the unit's list of sources.
    """
    records: list[Record] = []
    excluded: list[Excluded] = []
    size = 0
    for item in items:
        if isinstance(item, Excluded):
            excluded.append(item)
        else:
            records.append(item)
            size += sum(map(len, item.segments))
        if size >= BATCH_BYTES or len(records) + len(excluded) >= ROWS_PER_BATCH:
            yield of_records(records, excluded, source)
            records, excluded, size = [], [], 0
    if records or excluded:
        yield of_records(records, excluded, source)


def of_records(records: Sequence[Record], excluded: Sequence[Excluded], source: int) -> TextBatch:
    """Make a batch of records of one source."""
    texts = [text for record in records for text in record.segments]
    counts = [len(record.segments) for record in records]
    offsets = [record.origin.byte_offset for record in records]
    return TextBatch(
        pa.array(texts, type=pa.large_string()),
        np.concatenate(([0], np.cumsum(counts, dtype=np.int64))),
        np.full(len(records), source, dtype=np.int64),
        np.array([record.origin.line for record in records], dtype=np.int64),
        np.array([NO_OFFSET if at is None else at for at in offsets], dtype=np.int64),
        tuple(excluded),
        Counter(note for record in records for note in record.notes),
    )


def splice(first: TextBatch, second: TextBatch, blank_lines: int = 0) -> TextBatch:
    """Merge two batches of one source by line; ``blank_lines`` is their number in both."""
    if not len(second):
        both = first
    elif not len(first):
        both = second
    else:
        both = _in_order(concat([first, second]))
    excluded = sorted(first.excluded + second.excluded, key=lambda item: item.origin.line)
    return TextBatch(
        both.texts,
        both.record_offsets,
        both.source,
        both.line,
        both.byte_offset,
        tuple(excluded),
        first.noted + second.noted,
        blank_lines,
    )


def _in_order(batch: TextBatch) -> TextBatch:
    order = np.argsort(batch.line, kind="stable")
    counts = np.diff(batch.record_offsets)[order]
    offsets = np.concatenate(([0], np.cumsum(counts)))
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    segments = np.repeat(batch.record_offsets[:-1][order], counts) + within
    return TextBatch(
        batch.texts.take(pa.array(segments)),
        offsets,
        batch.source[order],
        batch.line[order],
        batch.byte_offset[order],
    )


def concat(batches: Sequence[TextBatch]) -> TextBatch:
    """Put batches end to end."""
    if len(batches) == 1:
        return batches[0]
    starts = np.cumsum([0, *(len(batch.texts) for batch in batches)])
    offsets = [
        batch.record_offsets[:-1] + start for batch, start in zip(batches, starts[:-1], strict=True)
    ]
    return TextBatch(
        pa.concat_arrays([batch.texts for batch in batches]),
        np.concatenate([*offsets, starts[-1:]]),
        np.concatenate([batch.source for batch in batches]),
        np.concatenate([batch.line for batch in batches]),
        np.concatenate([batch.byte_offset for batch in batches]),
        tuple(item for batch in batches for item in batch.excluded),
        sum((batch.noted for batch in batches), Counter()),
        sum(batch.blank_lines for batch in batches),
    )


def coalesce(batches: Iterable[TextBatch]) -> Iterator[TextBatch]:
    """Join small batches until they are worth a record batch."""
    waiting: list[TextBatch] = []
    rows = size = 0
    for batch in batches:
        count = len(batch) + len(batch.excluded)
        if waiting and (rows + count > ROWS_PER_BATCH or size + batch.nbytes > BATCH_BYTES):
            yield concat(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows += count
        size += batch.nbytes
    if waiting:
        yield concat(waiting)
