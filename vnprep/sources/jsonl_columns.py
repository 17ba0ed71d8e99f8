"""JSON Lines by the block: pyarrow parses many lines at once, straight into columns.

A line is taken this way only when it is certain to be one object: it begins with ``{`` and ends
with ``}``, no line of the block has two objects or a part of one, and each wanted field is a
string. All other lines are read with care, one at a time; so are all lines of a block that
pyarrow refuses, in which the bad ones are then found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.json as pajson

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.sources.assemble import Rows, assemble
from vnprep.sources.batch import TextBatch, of_records
from vnprep.sources.chunks import Chunk
from vnprep.sources.fields import wanted_fields
from vnprep.sources.jsonl import read_jsonl
from vnprep.sources.lines import Line
from vnprep.sources.records import Record, TableRow, from_row

_OPEN, _CLOSE = ord("{"), ord("}")


def read_jsonl_batches(
    chunks: Iterable[Chunk | Excluded], source: int, options: ReadOptions
) -> Iterator[TextBatch]:
    """Yield the records of chunks of lines; ``source`` is their place in the unit's list."""
    for chunk in chunks:
        if isinstance(chunk, Excluded):
            yield of_records([], [chunk], source)
        else:
            yield _batch(chunk, source, options)


def _batch(chunk: Chunk, source: int, options: ReadOptions) -> TextBatch:
    blank = chunk.ends == chunk.starts
    last = np.maximum(chunk.ends - 1, 0)
    objects = ~blank & (chunk.bytes.take(chunk.starts, mode="clip") == _OPEN)
    objects &= chunk.bytes[last] == _CLOSE
    names = wanted_fields(options)
    columns = None
    if chunk.is_utf8:
        columns = parse(_lines(chunk, objects), int(objects.sum()), names)
    if columns is None:
        careful = ~blank
        texts = tuple(pa.array([], type=pa.large_string()) for _ in names)
    else:
        complete = np.ones(len(columns[0]), dtype=np.bool_)
        for column in columns:
            if column.null_count:
                complete &= column.is_valid().to_numpy(zero_copy_only=False)
        careful = ~blank
        careful[np.flatnonzero(objects)[complete]] = False
        texts = tuple(
            column if complete.all() else column.filter(pa.array(complete)) for column in columns
        )
    plain = ~blank & ~careful
    rows = Rows(texts, chunk.numbers[plain], chunk.byte_offsets[plain])
    others = [read_with_care(chunk.line(int(line)), options) for line in np.flatnonzero(careful)]
    return assemble(rows, source, chunk.source, others, int(blank.sum()))


def _lines(chunk: Chunk, keep: np.ndarray) -> bytes | memoryview:
    """Return the lines of a mask; without a copy if that is all of them."""
    if keep.all():
        return memoryview(chunk.data)[int(chunk.starts[0]) :]
    spans = zip(chunk.starts[keep].tolist(), chunk.ends[keep].tolist(), strict=True)
    return b"\n".join(chunk.data[start:end] for start, end in spans)


def parse(data: bytes | memoryview, lines: int, names: Sequence[str]) -> list[pa.Array] | None:
    """Parse lines that each begin with ``{`` and end with ``}``.

    No object can span such lines: between ``}`` and ``{`` JSON wants a comma. So when there are
    as many objects as lines, every line is one.

    Returns:
        A large_string column for each name, with null where a line lacks it; or None when a line
        is not JSON, or holds another type or the same field twice.
    """
    if not lines:
        return [pa.array([], type=pa.large_string()) for _ in names]
    if len(set(names)) < len(names):
        return None
    schema = pa.schema([(name, pa.large_string()) for name in names])
    try:
        table = pajson.read_json(
            pa.BufferReader(data),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pajson.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != lines:
        return None
    columns = [table.column(name) for name in names]
    if any(column.num_chunks != 1 for column in columns):
        columns = [column.combine_chunks() for column in columns]
    return [
        column.chunk(0) if isinstance(column, pa.ChunkedArray) else column for column in columns
    ]


def read_with_care(line: Line | Excluded, options: ReadOptions) -> Record | Excluded:
    """Read one line by all the rules."""
    names = wanted_fields(options)
    row = next(read_jsonl([line], names))
    if isinstance(row, Excluded):
        # Too deep for Python alone, in a field that nobody asked for?
        if (
            row.reason != "bad-json"
            or row.detail != "nested too deep"
            or isinstance(line, Excluded)
        ):
            return row
        columns = parse(line.text.encode(), 1, names)
        if columns is None or any(column.null_count for column in columns):
            return row
        fields = {name: column[0].as_py() for name, column in zip(names, columns, strict=True)}
        row = TableRow(fields, line.origin, text=line.text)
    return from_row(row, options)
