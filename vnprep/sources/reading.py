"""A piece of an input → its records: which reader serves which format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.sources import blocks, delimited, jsonl, parquet, seed_tsv, text
from vnprep.sources.lines import Line, read_lines
from vnprep.sources.opening import open_bytes
from vnprep.sources.plan import Piece
from vnprep.sources.records import Record, from_row

_TSV, _CSV = "\t", ","

# What a file may turn out to be, whatever its name says.
_FOREIGN = {
    b"\xff\xfe": ("UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    b"\xfe\xff": ("UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    b"PK\x03\x04": ("a ZIP or Excel workbook", "save it as CSV UTF-8, or unpack it"),
    b"PAR1": ("a Parquet file", "pass --format parquet"),
    b"ARROW1": ("an Arrow file", "save it as Parquet or JSONL"),
    b"\x1f\x8b": ("gzip data", "give it a name that ends in .gz"),
    b"\x28\xb5\x2f\xfd": ("zstd data", "give it a name that ends in .zst"),
}


def read_records(piece: Piece, options: ReadOptions) -> Iterator[Record | Excluded]:
    """Yield every record of a piece, kept or excluded, in the order they stand.

    Raises:
        InputError: the input as a whole cannot be used.
    """
    item = piece.input
    if item.format == "parquet":
        rows = parquet.read_parquet(item.path, item.name, partial(_wanted, options))
        yield from (from_row(row, options) for row in rows)
        return
    with open_bytes(item.path, piece.start) as file:
        if piece.start == 0:
            _refuse_foreign(file, item.name)
        if item.format == "text" and options.layout == "text" and options.text_split == "file":
            yield from text.whole_file(file, item.name, options)
            return
        lines = read_lines(
            file,
            item.name,
            limit=options.max_record_bytes,
            start=piece.start,
            end=piece.end,
            first_line=piece.first_line,
        )
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
            yield from blocks.read_blocks(lines)
            return
        case ("jsonl", "text" | "pairs"):
            rows = jsonl.read_jsonl(lines, _wanted(options))
        case ("csv", "text" | "pairs"):
            limit = options.max_record_bytes
            rows = delimited.read_csv(lines, source, _wanted(options), _CSV, limit)
        case ("tsv", "text" | "pairs"):
            wanted, limit = _wanted(options), options.max_record_bytes
            if options.quoted_tsv:
                rows = delimited.read_csv(lines, source, wanted, _TSV, limit)
            else:
                rows = delimited.read_plain_tsv(lines, source, wanted)
        case _:
            raise InputError(
                f"a {format_name} file cannot be read as {options.layout}",
                place=source,
                remedy="pretrain-tsv takes input/target TSV, pretrain-text plain documents, "
                "finetune-pairs requests and responses",
            )
    for row in rows:
        yield row if isinstance(row, Excluded) else from_row(row, options)


def _wanted(options: ReadOptions, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the fields to read; of a table that is known to have them, chat messages too."""
    if options.layout == "text":
        return (options.text_field,)
    if options.messages_field in names and options.request_field not in names:
        return (options.messages_field,)
    return (options.request_field, options.response_field)


def _refuse_foreign(file: BinaryIO, source: str) -> None:
    peek = getattr(file, "peek", None)
    head = peek(8)[:8] if peek is not None else b""
    for magic, (what, remedy) in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"this is {what}", place=source, remedy=remedy)
