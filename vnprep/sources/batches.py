"""A piece of an input → batches of records: by the block if the format allows, else by the row."""

from __future__ import annotations

from collections.abc import Iterator

from vnprep.config import ReadOptions
from vnprep.sources.batch import TextBatch, gather
from vnprep.sources.chunks import read_chunks
from vnprep.sources.foreign import refuse_foreign
from vnprep.sources.formats import TABLES
from vnprep.sources.jsonl_columns import read_jsonl_batches
from vnprep.sources.opening import open_bytes
from vnprep.sources.plan import Piece
from vnprep.sources.reading import read_records
from vnprep.sources.table_columns import read_table_batches
from vnprep.sources.text_columns import read_line_batches


def read_batches(piece: Piece, source: int, options: ReadOptions) -> Iterator[TextBatch]:
    """Yield every record of a piece, in the order they stand.

    Args:
        piece: what to read.
        source: its input's place in the unit's list of sources.
        options: how to read it.

    Raises:
        InputError: the input as a whole cannot be used.
    """
    item = piece.input
    by_line = item.format == "text" and options.layout == "text" and options.text_split == "line"
    if item.format in TABLES and options.layout != "seed-tsv":
        yield from read_table_batches(piece, source, options)
        return
    if not by_line and (item.format != "jsonl" or options.layout == "seed-tsv"):
        yield from gather(read_records(piece, options), source)
        return
    with open_bytes(item.path, piece.start) as file:
        if piece.start == 0:
            refuse_foreign(file, item.name, item.format, by_lines=True)
        chunks = read_chunks(
            file,
            item.name,
            limit=options.max_record_bytes,
            start=piece.start,
            end=piece.end,
            first_line=piece.first_line,
        )
        if by_line:
            yield from read_line_batches(chunks, source)
        else:
            yield from read_jsonl_batches(chunks, source, options)
