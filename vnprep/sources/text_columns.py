"""Plain text by the block: a document a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from vnprep.shards.ledger import Excluded
from vnprep.sources.assemble import Rows, assemble
from vnprep.sources.batch import TextBatch, of_records
from vnprep.sources.chunks import Chunk
from vnprep.sources.lines import Line
from vnprep.sources.records import Record
from vnprep.sources.text import one_line
from vnprep.texts import cells


def read_line_batches(chunks: Iterable[Chunk | Excluded], source: int) -> Iterator[TextBatch]:
    """Yield every line as one document; ``source`` is its place in the unit's list."""
    for chunk in chunks:
        if isinstance(chunk, Excluded):
            yield of_records([], [chunk], source)
        elif not chunk.is_utf8:
            yield of_lines(chunk, source)
        else:
            filled = chunk.ends > chunk.starts
            texts = cells(chunk.bytes, chunk.starts[filled], chunk.ends[filled])
            rows = Rows((texts,), chunk.numbers[filled], chunk.byte_offsets[filled], stripped=True)
            yield assemble(rows, source, chunk.source, blank_lines=int(np.count_nonzero(~filled)))


def of_lines(chunk: Chunk, source: int) -> TextBatch:
    """Read a chunk with care, a line at a time."""
    lines = (chunk.line(number) for number in range(len(chunk.starts)))
    items = [one_line(line) if isinstance(line, Line) else line for line in lines]
    return of_records(
        [item for item in items if isinstance(item, Record)],
        [item for item in items if isinstance(item, Excluded)],
        source,
    )
