"""Parquet and Arrow tables: batches of rows, by groups.

A Parquet file has row groups, an Arrow file has record batches: both are called groups here. An
Arrow stream is one group. A row's ``line`` is its 1-based number; it has no byte offset.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.fields import check_names, column_names, wanted_fields
from vnprep.sources.inputs import Input
from vnprep.sources.records import TableRow, rejected
from vnprep.sources.table_sizes import gathered, parts, row_bytes, too_large

_ROWS = 8192
_BYTES = 4 << 20
# How many rows to read at once before their length is known.
_FEW_ROWS = 128
# Encodings of Parquet that take as many bytes as the texts.
_AS_LONG = frozenset({"PLAIN", "RLE", "BIT_PACKED"})
_NAMES = {"parquet": "Parquet", "arrow": "Arrow"}
_MAGIC = b"ARROW1"
_CONTINUATION = b"\xff" * 4


@dataclass(frozen=True)
class Group:
    """How large a group is: its rows, and the bytes of its columns in memory."""

    rows: int
    bytes: int


def read_table(
    item: Input, options: ReadOptions, start: int = 0, end: int | None = None, first_row: int = 1
) -> Iterator[TableRow | Excluded]:
    """Yield the rows of some groups of a table.

    Args:
        item: the file.
        options: which columns are wanted, and how long a row may be.
        start, end: numbers of groups; no end means all.
        first_row: the number of the first row of group ``start``.

    Raises:
        InputError: it is damaged, or a wanted column is not in it.
    """
    number = first_row
    for batch in table_batches(item, options, start, end):
        limit = options.max_record_bytes
        yield from table_rows(batch, item.name, number, row_bytes(batch) > limit, limit)
        number += batch.num_rows


def table_batches(
    item: Input, options: ReadOptions, start: int = 0, end: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield batches with the wanted columns alone, named in NFC; see ``read_table``."""
    with _opened(item) as table:
        cells = [str(name) for name in table.schema.names]
        names = column_names(cells)
        check_names(names, item.name, options)
        wanted = wanted_fields(options, names)
        columns = [cells[names.index(name)] for name in wanted]
        for batch in table.batches(start, table.groups if end is None else end, columns):
            # Columns come in the file's order.
            chosen = [batch.column(batch.schema.names.index(name)) for name in columns]
            yield pa.RecordBatch.from_arrays(chosen, names=list(wanted))


def table_names(item: Input) -> list[str]:
    """Return the names of a table's columns, in NFC."""
    with _opened(item) as table:
        return column_names(table.schema.names)


def first_rows(item: Input, most: int) -> tuple[pa.RecordBatch | None, float]:
    """Return some rows from the beginning of a table, and what part of it they are."""
    with _opened(item) as table:
        groups = [table.group(number) for number in range(table.groups)]
        head = next(table.batches(0, table.groups, table.schema.names), None)
        if head is None:
            return None, 0.0
        head = head.slice(0, most)
        if groups:
            return head, head.num_rows / sum(group.rows for group in groups)
        return head, min(head.nbytes / item.path.stat().st_size, 1.0)  # a stream does not say


def table_groups(item: Input) -> list[Group]:
    """Return the size of every group, in order; an Arrow stream has none to tell apart."""
    with _opened(item) as table:
        return [table.group(number) for number in range(table.groups)]


class _Parquet:
    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        self.schema = file.schema_arrow
        self.groups: int = file.num_row_groups

    def group(self, number: int) -> Group:
        about = self._file.metadata.row_group(number)
        return Group(about.num_rows, about.total_byte_size)

    def batches(self, start: int, end: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for number in range(start, end):
            group = self.group(number)
            rows = _rows_a_batch(group.rows, group.bytes)
            if self._is_packed(number):
                rows = min(rows, _FEW_ROWS)
            batches = self._file.iter_batches(rows, row_groups=[number], columns=list(columns))
            for batch in gathered(batches, _BYTES, _ROWS):
                yield from parts(batch, _BYTES)

    def _is_packed(self, number: int) -> bool:
        """Tell whether texts of a group may take more bytes when they are read."""
        about = self._file.metadata.row_group(number)
        chunks = map(about.column, range(about.num_columns))
        return any(
            chunk.physical_type == "BYTE_ARRAY" and not _AS_LONG.issuperset(chunk.encodings)
            for chunk in chunks
        )


class _ArrowFile:
    def __init__(self, reader: pa.ipc.RecordBatchFileReader) -> None:
        self._reader = reader
        self.schema = reader.schema
        self.groups: int = reader.num_record_batches

    def group(self, number: int) -> Group:
        batch = self._reader.get_batch(number)
        return Group(batch.num_rows, batch.nbytes)

    def batches(self, start: int, end: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for number in range(start, end):
            yield from _slices(self._reader.get_batch(number).select(list(columns)))


class _ArrowStream:
    groups = 0

    def __init__(self, reader: pa.ipc.RecordBatchStreamReader) -> None:
        self._reader = reader
        self.schema = reader.schema

    def group(self, number: int) -> Group:
        raise AssertionError(f"a stream has no group {number}")

    def batches(self, _start: int, _end: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._reader:
            yield from _slices(batch.select(list(columns)))


_Table = _Parquet | _ArrowFile | _ArrowStream


@contextlib.contextmanager
def _opened(item: Input) -> Iterator[_Table]:
    kind = _NAMES[item.format]
    if item.compressed:
        raise InputError(
            f"a compressed {kind} file cannot be read in parts",
            place=item.name,
            remedy=f"unpack it: {kind} can compress what is inside",
        )
    try:
        with contextlib.ExitStack() as stack:
            if item.format == "parquet":
                yield _Parquet(stack.enter_context(pq.ParquetFile(item.path)))
                return
            file = stack.enter_context(pa.memory_map(item.where))
            if file.read(len(_MAGIC)) == _MAGIC:
                yield _ArrowFile(pa.ipc.open_file(file))
                return
            file.seek(0)
            _refuse_cut_stream(item.path)
            yield _ArrowStream(pa.ipc.open_stream(file))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"not a readable {kind} file ({error})",
            place=item.name,
            remedy="check that the file is whole",
        ) from None


def _refuse_cut_stream(path: Path) -> None:
    """A stream that lost its end reads as a shorter one, but for its end mark."""
    with path.open("rb") as file:
        # Before Arrow 0.15 a message, and so the mark, did not begin with these bytes.
        mark = bytes(4) if file.read(4) != _CONTINUATION else _CONTINUATION + bytes(4)
        file.seek(max(file.seek(0, os.SEEK_END) - len(mark), 0))
        if file.read() != mark:
            raise pa.ArrowInvalid("an Arrow stream without its end mark")


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    rows = _rows_a_batch(batch.num_rows, batch.nbytes)
    for start in range(0, batch.num_rows, rows):
        yield from parts(batch.slice(start, rows), _BYTES)


def _rows_a_batch(rows: int, size: int) -> int:
    """Return how many rows to hold at once: fewer, where they are long."""
    return min(max(_BYTES * rows // max(size, 1), 1), _ROWS)


def table_rows(
    batch: pa.RecordBatch, source: str, first: int, large: NDArray[np.bool_], limit: int
) -> Iterator[TableRow | Excluded]:
    """Yield the rows of a batch one at a time.

    Args:
        batch: the rows.
        source: the name to report.
        first: the number of the first row.
        large: which rows are rejected as longer than the limit, [rows].
        limit: the limit, in bytes.
    """
    try:
        values = None if large.any() else batch.to_pylist()
    except ValueError:
        # Bytes that are not UTF-8 (Arrow does not look into its strings), or a value of a type
        # that Python has not: find the row, the others survive.
        values = None
    for place in range(batch.num_rows):
        origin = Origin(source, first + place, None)
        if values is not None:
            yield TableRow(values[place], origin)
        elif large[place]:
            yield too_large(batch.slice(place, 1), origin, limit)
        else:
            yield _one_row(batch.slice(place, 1), origin)


def _one_row(batch: pa.RecordBatch, origin: Origin) -> TableRow | Excluded:
    try:
        return TableRow(batch.to_pylist()[0], origin)
    except UnicodeDecodeError as error:
        raw = bytes(error.object)
        detail = f"byte 0x{raw[error.start]:02x} at offset {error.start} is not UTF-8"
        return rejected(origin, "invalid-utf8", detail, raw.decode("utf-8", "backslashreplace"))
    except ValueError:  # such as a time of nanoseconds
        types = ", ".join(f"{field.name!r} is {field.type}" for field in batch.schema)
        return rejected(origin, "not-text", f"{types}: its value cannot be shown")
