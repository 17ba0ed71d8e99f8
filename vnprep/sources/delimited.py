"""CSV and TSV with a header.

CSV is RFC 4180: cells may be quoted and then hold commas, quotes and line breaks. TSV is plain:
no cell holds a tab or a line break and a quote is a quote, unless ``quoted_tsv`` says that the
file was written the way Excel does.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.lines import Line
from vnprep.sources.records import TableRow, dropped, rejected


class _Feed:
    """Hands lines to the csv reader and remembers those of its current row.

    A line that is not UTF-8 is handed on as an empty one: the reader never sees it, the caller
    rejects it, and the rows after it survive.
    """

    def __init__(self, lines: Iterator[Line | Excluded]) -> None:
        self._lines = lines
        self._again: deque[Line | Excluded] = deque()
        self.row: list[Line | Excluded] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.row.append(line)
        return "\n" if isinstance(line, Excluded) else line.text + "\n"

    def read_again(self) -> None:
        """Take back all lines of the current row but its first."""
        self._again.extendleft(reversed(self.row[1:]))
        del self.row[1:]


def read_csv(
    lines: Iterator[Line | Excluded],
    source: str,
    wanted: tuple[str, ...],
    delimiter: str,
    limit: int,
) -> Iterator[TableRow | Excluded]:
    """Yield the rows of a quoted table.

    A quote that never closes would swallow the rest of the file: its line is rejected alone and
    reading goes on at the next.

    Args:
        lines: all lines of the file.
        source: for errors.
        wanted: fields that the header must have.
        delimiter: a comma or a tab.
        limit: the longest cell, in characters.

    Raises:
        InputError: a wanted field is not in the header.
    """
    csv.field_size_limit(limit)
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        feed.row = []
        problem = ""
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            problem = str(error)
            feed.read_again()
            reader = csv.reader(feed, delimiter=delimiter, strict=True)
        if header is None:
            _refuse_unreadable_header(feed.row[0], source, problem)
            header = check_header(cells, source, wanted, delimiter)
        else:
            yield from _row(cells, header, feed.row, problem)
    if header is None:
        yield dropped(Origin(source, 1, 0), "empty-file")


def _row(
    cells: list[str], header: list[str], lines: list[Line | Excluded], problem: str
) -> Iterator[TableRow | Excluded]:
    text = "\n".join(line.text for line in lines if isinstance(line, Line))
    bad = [line for line in lines if isinstance(line, Excluded)]
    origin = lines[0].origin
    if bad:
        yield from bad
        # A quoted cell that runs over a bad line lost part of itself: it goes too.
        if text:
            yield rejected(origin, "invalid-utf8", "a line of this row is not UTF-8", text)
    elif problem:
        yield rejected(origin, "bad-quoting", problem, text)
    else:
        yield as_row(cells, header, origin, text)


def read_plain_tsv(
    lines: Iterator[Line | Excluded], source: str, wanted: tuple[str, ...]
) -> Iterator[TableRow | Excluded]:
    """Yield the rows of a plain TSV; see ``read_csv`` for arguments and errors."""
    header: list[str] | None = None
    for line in lines:
        if header is None:
            _refuse_unreadable_header(line, source)
        if isinstance(line, Excluded):
            yield line
        elif header is None:
            header = check_header(line.text.split("\t"), source, wanted, "\t")
        else:
            row = as_row(line.text.split("\t"), header, line.origin, line.text)
            if isinstance(row, TableRow) and _looks_quoted(row):
                row = replace(row, notes=("quoted-cell",))
            yield row
    if header is None:
        yield dropped(Origin(source, 1, 0), "empty-file")


def as_row(cells: list[str], header: list[str], origin: Origin, text: str) -> TableRow | Excluded:
    """Give the cells their names; a row of another length is rejected."""
    if not any(cell.strip() for cell in cells):
        return dropped(origin, "blank-line")
    if len(cells) != len(header):
        detail = f"{len(cells)} cells, the header has {len(header)}"
        return rejected(origin, "ragged-row", detail, text)
    return TableRow(dict(zip(header, cells, strict=True)), origin)


def _looks_quoted(row: TableRow) -> bool:
    return any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in row.fields.values())


def check_header(
    cells: list[str], source: str, wanted: tuple[str, ...], delimiter: str
) -> list[str]:
    """Return the header's names; each must be there once, the wanted ones among them."""
    names = [cell.strip() for cell in cells]
    if missing := [name for name in wanted if name not in names]:
        found = ", ".join(names)
        other = "," if delimiter == "\t" else "\t"
        hint = "name the columns with --request-field, --response-field or --text-field"
        if len(names) == 1 and other in names[0]:
            hint = f"the cells seem to be parted by {'commas' if other == ',' else 'tabs'}: "
            hint += f"pass --format {'csv' if other == ',' else 'tsv'}"
        if len(names) == 1 and ";" in names[0]:
            hint = (
                "the cells seem to be parted by semicolons: save the table as TSV, or with commas"
            )
        raise InputError(
            f"no column {', '.join(missing)}; the header has: {found}", place=source, remedy=hint
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"the header names {', '.join(map(repr, twice))} twice",
            place=source,
            remedy="give every column a name of its own",
        )
    return names


def _refuse_unreadable_header(line: Line | Excluded, source: str, problem: str = "") -> None:
    if isinstance(line, Excluded):
        problem = line.detail
    if problem:
        raise InputError(
            f"the header line cannot be read ({problem})",
            place=source,
            remedy="save the file as UTF-8, with the names of the columns in its first line",
        )
