"""A piece of an input → batches of records: by the block if the format allows, else by the row."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.sources.batch import TextBatch, gather
from vnprep.sources.chunks import read_chunks
from vnprep.sources.foreign import refuse_foreign
from vnprep.sources.formats import TABLES
from vnprep.sources.jsonl_columns import read_jsonl_batches
from vnprep.sources.lines import Line, read_lines
from vnprep.sources.opening import open_bytes
from vnprep.sources.plan import Piece
from vnprep.sources.reading import read_records
from vnprep.sources.table_columns import read_table_batches
from vnprep.sources.text_columns import read_line_batches
from vnprep.sources.tsv_columns import read_tsv_batches


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
    is_tsv = item.format == "tsv" and not options.quoted_tsv
    if options.layout == "seed-tsv" or not (by_line or is_tsv or item.format == "jsonl"):
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
        elif is_tsv:
            header = _header(piece, options)
            yield from read_tsv_batches(chunks, source, item.name, options, header)
        else:
            yield from read_jsonl_batches(chunks, source, options)


def _header(piece: Piece, options: ReadOptions) -> Line | Excluded | None:
    """Return the header line that a piece carries."""
    file = BytesIO(piece.header)
    return next(read_lines(file, piece.input.name, limit=options.max_record_bytes), None)
