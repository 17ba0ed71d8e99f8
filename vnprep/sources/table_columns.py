"""Parquet and Arrow tables by the batch: their columns are taken as they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import NO_OFFSET
from vnprep.sources.assemble import Rows, assemble
from vnprep.sources.batch import TextBatch
from vnprep.sources.plan import Piece
from vnprep.sources.records import Record, from_row
from vnprep.sources.table_sizes import row_bytes
from vnprep.sources.tables import table_batches, table_rows


def read_table_batches(piece: Piece, source: int, options: ReadOptions) -> Iterator[TextBatch]:
    """Yield the records of some groups of a table; see ``vnprep.sources.batches``."""
    number = piece.first_line
    for batch in table_batches(piece.input, options, piece.start, piece.end):
        yield _batch(batch, number, piece.input.name, source, options)
        number += batch.num_rows


def _batch(
    batch: pa.RecordBatch, first: int, name: str, source: int, options: ReadOptions
) -> TextBatch:
    lines = np.arange(first, first + batch.num_rows, dtype=np.int64)
    large = row_bytes(batch) > options.max_record_bytes
    texts = [_as_texts(column) for column in batch.columns]
    # Chat messages are one column of lists; other types and bad bytes are told row by row.
    width = 1 if options.layout == "text" else 2
    plain = np.full(batch.num_rows, len(texts) == width and None not in texts)
    columns = [text for text in texts if text is not None] if plain.all() else []
    plain &= ~large
    for column in columns:
        if column.null_count:
            plain &= column.is_valid().to_numpy(zero_copy_only=False)
    mask = pa.array(plain)
    rows = Rows(
        tuple(column if plain.all() else column.filter(mask) for column in columns)
        or tuple(pa.array([], type=pa.large_string()) for _ in range(width)),
        lines[plain],
        np.full(int(plain.sum()), NO_OFFSET, dtype=np.int64),
    )
    others = _with_care(batch, first, name, options, plain, large)
    return assemble(rows, source, name, others)


def _as_texts(column: pa.Array) -> pa.LargeStringArray | None:
    """Return a column as large_string, or None if it holds anything but good UTF-8."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    texts = column.cast(pa.large_string())
    try:
        # Arrow does not look into its strings unless it is told to.
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return None
    return texts


def _with_care(
    batch: pa.RecordBatch,
    first: int,
    name: str,
    options: ReadOptions,
    plain: NDArray[np.bool_],
    large: NDArray[np.bool_],
) -> list[Record | Excluded]:
    rows = (
        row
        for place in np.flatnonzero(~plain).tolist()
        for row in table_rows(
            batch.slice(place, 1),
            name,
            first + place,
            large[place : place + 1],
            options.max_record_bytes,
        )
    )
    return [row if isinstance(row, Excluded) else from_row(row, options) for row in rows]
