"""A piece of an input → its records: which reader serves which format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import chain

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.sources import (
    blocks,
    delimited,
    foreign,
    json_values,
    seed_tsv,
    tables,
    text,
)
from vnprep.sources.formats import TABLES
from vnprep.sources.jsonl_columns import read_with_care
from vnprep.sources.lines import Line, read_lines
from vnprep.sources.opening import open_bytes
from vnprep.sources.plan import Piece
from vnprep.sources.records import Record, TableRow, from_row


def read_records(piece: Piece, options: ReadOptions) -> Iterator[Record | Excluded]:
    """Yield every record of a piece, kept or excluded, in the order they stand.

    Raises:
        InputError: the input as a whole cannot be used.
    """
    item = piece.input
    if item.format in TABLES:
        rows = tables.read_table(item, options, piece.start, piece.end, piece.first_line)
        yield from _records(rows, options)
        return
    is_file = item.format == "text" and options.layout == "text" and options.text_split == "file"
    with open_bytes(item.path, piece.start) as file:
        if piece.start == 0:
            foreign.refuse_foreign(file, item.name, item.format, by_lines=not is_file)
        if is_file:
            yield from text.whole_file(file, item.name, options)
            return
        limit = options.max_record_bytes
        if item.format == "json":
            lines = json_values.read_values(file, item.name, limit)
        else:
            lines = read_lines(
                file,
                item.name,
                limit=limit,
                start=piece.start,
                end=piece.end,
                first_line=piece.first_line,
            )
        if piece.header:
            # A reader that sees the header first needs to know nothing of pieces.
            lines = chain(read_lines(BytesIO(piece.header), item.name, limit=limit), lines)
        yield from _from_lines(item.format, lines, item.name, options)


def _from_lines(
    format_name: str, lines: Iterator[Line | Excluded], source: str, options: ReadOptions
) -> Iterator[Record | Excluded]:
    match format_name, options.layout:
        case ("tsv", "seed-tsv"):
            yield from seed_tsv.read_seed_tsv(lines, source)
            return
        case ("text", "text"):
            if options.text_split == "line":
                yield from (
                    text.one_line(line) if isinstance(line, Line) else line for line in lines
                )
            else:
                yield from text.by_paragraph(lines, options)
            return
        case ("text" | "blocks", "pairs"):
            yield from blocks.read_blocks(lines, options.max_record_bytes)
            return
        case ("jsonl" | "json", "text" | "pairs"):
            yield from (read_with_care(line, options) for line in lines)
            return
        case ("csv", "text" | "pairs"):
            rows = delimited.read_csv(lines, source, options, options.delimiter)
        case ("tsv", "text" | "pairs"):
            if options.quoted_tsv:
                rows = delimited.read_csv(lines, source, options, "\t")
            else:
                rows = delimited.read_plain_tsv(lines, source, options)
        case _:
            raise InputError(
                f"a {format_name} file cannot be read as {options.layout}",
                place=source,
                remedy="pretrain-tsv takes input/target TSV, pretrain-text plain documents, "
                "finetune-pairs requests and responses",
            )
    yield from _records(rows, options)


def _records(
    rows: Iterable[TableRow | Excluded], options: ReadOptions
) -> Iterator[Record | Excluded]:
    for row in rows:
        yield row if isinstance(row, Excluded) else from_row(row, options)
