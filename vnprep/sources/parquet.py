"""Parquet and Arrow tables. A row's ``line`` is its 1-based number; it has no byte offset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vnprep.errors import InputError
from vnprep.shards.schema import Origin
from vnprep.sources.delimited import check_header
from vnprep.sources.records import TableRow

_ROWS = 4096


def read_parquet(
    path: Path, source: str, choose: Callable[[list[str]], tuple[str, ...]]
) -> Iterator[TableRow]:
    """Yield the rows of a Parquet file.

    Args:
        path: the file.
        source: the name to report.
        choose: given the names of all columns, returns those to read.

    Raises:
        InputError: it is damaged, or a wanted column is not in it.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            columns = list(choose(names))
            check_header(names, source, tuple(columns), ",")
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                for fields in batch.to_pylist():
                    number += 1
                    yield TableRow(fields, Origin(source, number, None))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"not a readable Parquet file ({error})",
            place=path,
            remedy="check that the file is whole",
        ) from None
