"""Plain TSV by the block: cells are what lies between tabs.

A line is taken this way only when it has as many cells as the header has names, none in quotes,
none under a column without a name, and its first wanted cell is no white space. All others are
read with care, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.assemble import Rows, assemble
from vnprep.sources.batch import TextBatch, of_records
from vnprep.sources.chunks import Chunk
from vnprep.sources.delimited import tsv_header, tsv_row
from vnprep.sources.fields import wanted_fields
from vnprep.sources.lines import Line
from vnprep.sources.records import Record, dropped, from_row
from vnprep.texts import cells, text_bytes, text_offsets
from vnprep.vietnamese.quick_check import spaced_starts

_TAB, _QUOTE = ord("\t"), ord('"')

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def read_tsv_batches(
    chunks: Iterable[Chunk | Excluded],
    source: int,
    name: str,
    options: ReadOptions,
    header: Line | Excluded | None,
) -> Iterator[TextBatch]:
    """Yield the records of chunks of lines.

    Args:
        chunks: of a file, or of a part of one.
        source: the file's place in the unit's list of sources.
        name: the name to report.
        options: which columns to read.
        header: the header line; None if it stands first in the chunks.

    Raises:
        InputError: the header lacks a wanted column, or cannot be read.
    """
    names = None if header is None else tsv_header(header, name, options)
    for chunk in chunks:
        skip = 0
        if names is None:
            first = chunk if isinstance(chunk, Excluded) else chunk.line(0)
            names, skip = tsv_header(first, name, options), 1
        if isinstance(chunk, Excluded):
            yield of_records([], [chunk], source)
        else:
            yield _batch(chunk, skip, names, source, options)
    if names is None:
        yield of_records([], [dropped(Origin(name, 1, 0), "empty-file")], source)


def _batch(
    chunk: Chunk, skip: int, names: Sequence[str], source: int, options: ReadOptions
) -> TextBatch:
    lines = np.arange(skip, len(chunk.starts))
    blank = chunk.starts[lines] == chunk.ends[lines]
    plain = lines[:0]
    columns: list[tuple[Ints, Ints]] = []
    if chunk.is_utf8:
        plain, columns = _plain(chunk, lines[~blank], names)
    wanted = [columns[names.index(field)] if columns else None for field in wanted_fields(options)]
    texts = tuple(cells(chunk.bytes, *(column or (plain, plain))) for column in wanted)
    rows = Rows(texts, chunk.numbers[plain], chunk.byte_offsets[plain])
    if len(plain):
        # Of a row without a word, the reason is another than of an empty request.
        worded = ~spaced_starts(text_bytes(texts[0]), text_offsets(texts[0]))
        if not worded.all():
            plain = plain[worded]
            chosen = tuple(text.filter(worded) for text in texts)
            rows = Rows(chosen, chunk.numbers[plain], chunk.byte_offsets[plain])
    careful = np.setdiff1d(lines[~blank], plain, assume_unique=True)
    others = [_with_care(chunk.line(line), names, options) for line in careful.tolist()]
    return assemble(rows, source, chunk.source, others, int(blank.sum()))


def _plain(chunk: Chunk, lines: Ints, names: Sequence[str]) -> tuple[Ints, list[tuple[Ints, Ints]]]:
    """Return the lines that are as plain as can be, and where each column's cells lie in them."""
    tabs = np.flatnonzero(chunk.bytes == _TAB)
    first = np.searchsorted(tabs, chunk.starts[lines])
    counts = np.searchsorted(tabs, chunk.ends[lines]) - first
    fits = counts == len(names) - 1
    lines, first = lines[fits], first[fits]
    borders = [chunk.starts[lines] - 1]
    borders += [tabs[first + column] for column in range(len(names) - 1)]
    borders.append(chunk.ends[lines])
    columns = [(borders[at] + 1, borders[at + 1]) for at in range(len(names))]
    keep = np.ones(len(lines), dtype=np.bool_)
    for name, (starts, ends) in zip(names, columns, strict=True):
        if not name:
            keep &= starts == ends
        elif b'"' in chunk.data:
            keep &= ~_in_quotes(chunk, starts, ends)
    return lines[keep], [(starts[keep], ends[keep]) for starts, ends in columns]


def _in_quotes(chunk: Chunk, starts: Ints, ends: Ints) -> Mask:
    quoted: Mask = chunk.bytes.take(starts, mode="clip") == _QUOTE
    quoted &= chunk.bytes[np.maximum(ends - 1, 0)] == _QUOTE
    quoted &= ends - starts > 1
    return quoted


def _with_care(
    line: Line | Excluded, names: Sequence[str], options: ReadOptions
) -> Record | Excluded:
    row = line if isinstance(line, Excluded) else tsv_row(line, names)
    return row if isinstance(row, Excluded) else from_row(row, options)
