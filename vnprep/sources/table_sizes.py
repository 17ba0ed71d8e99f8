"""How many bytes of text the rows of a table really hold, however they are stored.

A dictionary, or a Parquet file's encoding, keeps a text that comes again but once: what a batch
takes as it is stored tells nothing of what it takes when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.records import rejected

Ints = NDArray[np.int64]

_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)
_BEGINNING = 400  # bytes; an excerpt is cut from it


def row_bytes(batch: pa.RecordBatch) -> Ints:
    """Return the bytes of text in each row, in lists and structures too, [rows]."""
    sizes = np.zeros(batch.num_rows, dtype=np.int64)
    for column in batch.columns:
        sizes += _lengths(column)
    return sizes


def parts(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """Cut a batch into parts of at most ``most`` bytes of text, or of a single row."""
    ends = np.cumsum(row_bytes(batch))
    start = 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        end = max(int(np.searchsorted(ends, before + most, side="right")), start + 1)
        yield batch.slice(start, end - start)
        start = end


def gathered(
    batches: Iterable[pa.RecordBatch], most: int, most_rows: int
) -> Iterator[pa.RecordBatch]:
    """Join small batches up to so many bytes of text, or rows."""
    waiting: list[pa.RecordBatch] = []
    size = rows = 0
    for batch in batches:
        count = int(row_bytes(batch).sum())
        if waiting and (size + count > most or rows + batch.num_rows > most_rows):
            yield from _joined(waiting)
            waiting, size, rows = [], 0, 0
        waiting.append(batch)
        size += count
        rows += batch.num_rows
    if waiting:
        yield from _joined(waiting)


def too_large(row: pa.RecordBatch, origin: Origin, limit: int) -> Excluded:
    """Reject a batch of one row that holds more than ``limit`` bytes."""
    texts = (_beginning(column[0]) for column in row.columns)
    detail = f"the row is longer than {limit:,} bytes"
    return rejected(origin, "too-large", detail, next(filter(None, texts), ""))


def _joined(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    if len(batches) == 1:
        return batches
    joined: list[pa.RecordBatch] = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return joined


def _lengths(column: pa.Array) -> Ints:
    kind = column.type
    if pa.types.is_dictionary(kind):
        lengths = np.append(_lengths(column.dictionary), 0)  # the last one is that of null
        places = pc.fill_null(column.indices.cast(pa.int64()), len(lengths) - 1)
        return np.asarray(lengths[places.to_numpy(zero_copy_only=False)])
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _lengths(column.cast(pa.large_binary()))
    if any(is_one(kind) for is_one in _TEXTS):
        return _counts(pc.binary_length(column))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        # The values of a slice are those of the whole; its offsets tell which are its own.
        offsets = column.offsets.to_numpy()
        values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
        ends = np.concatenate(([0], np.cumsum(_lengths(values))))
        return np.asarray(np.diff(ends[offsets - offsets[0]]))
    sizes = np.zeros(len(column), dtype=np.int64)
    if pa.types.is_struct(kind):
        for field in column.flatten():
            sizes += _lengths(field)
    return sizes


def _counts(lengths: pa.Array) -> Ints:
    counts = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    return np.asarray(counts, dtype=np.int64)


def _beginning(value: pa.Scalar) -> str:
    """Return how the texts in a value begin; of a list, those in its first value with any."""
    if not value.is_valid:
        return ""
    if isinstance(value, pa.DictionaryScalar):
        return _beginning(value.value)
    if isinstance(value, pa.ListScalar):
        return next(filter(None, map(_beginning, value)), "")
    if isinstance(value, pa.StructScalar):
        return " ".join(filter(None, map(_beginning, value.values())))
    if isinstance(value, pa.BinaryScalar):
        return bytes(value.as_buffer()[:_BEGINNING]).decode("utf-8", "ignore")
    return ""
