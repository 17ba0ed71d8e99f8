"""The columns of a shard.

input, target   list<uint16 | int32>   token ids; the type fits the tokenizer's largest id
loss_mask       list<uint8>            1 where the target carries loss
source          dictionary<string>     the input that the row came from
line            int64                  1-based line (or row, or message) in that input
byte_offset     int64                  where the record starts in the (decompressed) input;
                                       null where the format has none
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.examples import Columns

#: In ``byte_offset``, where it is no Arrow array: the format has none.
NO_OFFSET = -1

#: Small pieces are joined up to this many rows a record batch: a few large batches open in a
#: millisecond, thousands of small ones do not.
ROWS_PER_BATCH = 8192


@dataclass(frozen=True)
class Origin:
    """Where a record came from."""

    source: str
    line: int
    byte_offset: int | None


def id_type(largest_id: int) -> pa.DataType:
    """Return the smallest of uint16 and int32 that holds every id."""
    return pa.uint16() if largest_id <= np.iinfo(np.uint16).max else pa.int32()


def shard_schema(largest_id: int) -> pa.Schema:
    """Return the schema of a shard for a tokenizer whose largest id is given."""
    ids = pa.list_(pa.field("item", id_type(largest_id), nullable=False))
    mask = pa.list_(pa.field("item", pa.uint8(), nullable=False))
    return pa.schema(
        [
            pa.field("input", ids, nullable=False),
            pa.field("target", ids, nullable=False),
            pa.field("loss_mask", mask, nullable=False),
            pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field("line", pa.int64(), nullable=False),
            pa.field("byte_offset", pa.int64()),
        ]
    )


@dataclass(frozen=True)
class Origins:
    """Where rows came from, columnar.

    Attributes:
        source: a number in the shard's list of sources, [rows].
        line: as in ``Origin``, [rows].
        byte_offset: likewise, or ``NO_OFFSET``, [rows].
    """

    source: NDArray[np.int64]
    line: NDArray[np.int64]
    byte_offset: NDArray[np.int64]

    @classmethod
    def of(cls, origins: Sequence[Origin], sources: Sequence[str]) -> Origins:
        """Make columns of single origins; every one's source is in ``sources``."""
        return cls(
            np.array([sources.index(origin.source) for origin in origins], dtype=np.int64),
            np.array([origin.line for origin in origins], dtype=np.int64),
            np.array(
                [
                    NO_OFFSET if origin.byte_offset is None else origin.byte_offset
                    for origin in origins
                ],
                dtype=np.int64,
            ),
        )


def to_batch(
    columns: Columns, origins: Origins, sources: Sequence[str], schema: pa.Schema
) -> pa.RecordBatch:
    """Turn columns and their origins into one record batch.

    Args:
        columns: the rows.
        origins: where each row came from.
        sources: every source of the shard, so that all its batches share one dictionary.
        schema: from ``shard_schema``.

    Raises:
        pa.ArrowInvalid: an id is larger than the schema's type holds.
    """
    offsets = pa.array(columns.offsets, type=pa.int32())

    def lists(name: str, values: np.ndarray) -> pa.Array:
        kind = schema.field(name).type
        # No copy if the type fits, and else a checked one: an id never wraps in silence.
        return pa.ListArray.from_arrays(offsets, pa.array(values, type=kind.value_type), type=kind)

    source_numbers = pa.array(origins.source, type=pa.int32())
    no_offset = origins.byte_offset == NO_OFFSET
    arrays = [
        lists("input", columns.input),
        lists("target", columns.target),
        lists("loss_mask", columns.loss_mask),
        pa.DictionaryArray.from_arrays(source_numbers, pa.array(sources, type=pa.string())),
        pa.array(origins.line, type=pa.int64()),
        pa.array(origins.byte_offset, type=pa.int64(), mask=no_offset),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
