"""CSV and TSV with a header.

CSV is RFC 4180: cells may be quoted and then hold delimiters, quotes and line breaks. TSV is
plain: no cell holds a tab or a line break and a quote is a quote, unless ``quoted_tsv`` says
that the file was written the way Excel does.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vnprep.config import ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.fields import check_names, column_names, wanted_fields
from vnprep.sources.lines import Line, read_lines
from vnprep.sources.records import TableRow, dropped, rejected

#: Noted of every row of a CSV that was found to be parted by semicolons.
SEMICOLONS = "semicolons"

#: Excel's own first line, which says what parts the cells below.
SEP_LINE = re.compile(r'"?sep=([,;|\t])"?,*', re.IGNORECASE)


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

    def read_again(self, keep: int = 1) -> None:
        """Take back all lines of the current row but the first ones."""
        self._again.extendleft(reversed(self.row[keep:]))
        del self.row[keep:]


def read_csv(
    lines: Iterator[Line | Excluded], source: str, options: ReadOptions, delimiter: str | None
) -> Iterator[TableRow | Excluded]:
    """Yield the rows of a quoted table.

    A quote that never closes would swallow the rest of the file: its line is rejected alone and
    reading goes on at the next.

    Args:
        lines: all lines of the file.
        source: for errors.
        options: which fields the header must have, and how long a cell may be.
        delimiter: what parts the cells; None for a comma, or what the header tells.

    Raises:
        InputError: a wanted field is not in the header.
    """
    csv.field_size_limit(options.max_record_bytes)
    feed = _Feed(lines)
    delimiter, notes = _find_delimiter(feed, options, delimiter)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    names: list[str] | None = None
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
        if names is None:
            refuse_unreadable_header(feed.row[0], source, problem)
            names = column_names(cells)
            check_names(names, source, options, delimiter)
        else:
            yield from _row(cells, names, feed.row, problem, notes)
    if names is None:
        yield dropped(Origin(source, 1, 0), "empty-file")


def _find_delimiter(
    feed: _Feed, options: ReadOptions, delimiter: str | None
) -> tuple[str, tuple[str, ...]]:
    """Look at the first line; return the delimiter, and what is noted of the rows."""
    first = next(feed, None)
    if first is None:
        return delimiter or ",", ()
    if said := SEP_LINE.fullmatch(first.rstrip("\n")):
        return delimiter or said[1], ()
    feed.read_again(keep=0)
    if delimiter is None and is_parted_by_semicolons(first, options):
        return ";", (SEMICOLONS,)
    return delimiter or ",", ()


def is_parted_by_semicolons(header: str, options: ReadOptions) -> bool:
    """Tell whether a header has the wanted fields by semicolons, and not by commas."""

    wanted = set(wanted_fields(options))
    by_commas, by_semicolons = (set(split_header(header, sign)) for sign in ",;")
    return wanted <= by_semicolons and not wanted <= by_commas


def split_header(header: str, delimiter: str) -> list[str]:
    """Return the names in a quoted header line; none if its quotes do not close."""
    try:
        return column_names(next(csv.reader([header], delimiter=delimiter), []))
    except csv.Error:
        return []


def header_size(head: bytes, options: ReadOptions, kind: str) -> int:
    """Return how many bytes the header takes; 0 if its end is not in sight.

    Args:
        head: the first block of the file.
        options: as the table will be read with.
        kind: ``csv``, where cells may be quoted, or ``tsv``.
    """
    if kind == "tsv":
        return head.find(b"\n") + 1
    file = io.BytesIO(head)
    feed = _Feed(read_lines(file, "", limit=options.max_record_bytes))
    given = "\t" if options.quoted_tsv else options.delimiter
    delimiter, _ = _find_delimiter(feed, options, given)
    if next(_strict(feed, delimiter), None) is None:
        return 0
    return file.tell() if head[: file.tell()].endswith(b"\n") else 0


def _strict(feed: _Feed, delimiter: str) -> Iterator[list[str]]:
    """Yield rows until one is wrongly quoted."""
    with contextlib.suppress(csv.Error):
        yield from csv.reader(feed, delimiter=delimiter, strict=True)


def _row(
    cells: list[str],
    names: list[str],
    lines: list[Line | Excluded],
    problem: str,
    notes: tuple[str, ...],
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
        row = _as_row(cells, names, origin, text)
        yield replace(row, notes=notes) if notes and isinstance(row, TableRow) else row


def read_plain_tsv(
    lines: Iterator[Line | Excluded], source: str, options: ReadOptions
) -> Iterator[TableRow | Excluded]:
    """Yield the rows of a plain TSV; see ``read_csv`` for arguments and errors."""
    names: list[str] | None = None
    for line in lines:
        if names is None:
            names = tsv_header(line, source, options)
        else:
            yield line if isinstance(line, Excluded) else tsv_row(line, names)
    if names is None:
        yield dropped(Origin(source, 1, 0), "empty-file")


def tsv_header(line: Line | Excluded, source: str, options: ReadOptions) -> list[str]:
    """Return the names in the header line of a plain TSV; see ``read_csv`` for errors."""
    refuse_unreadable_header(line, source)
    assert isinstance(line, Line)
    names = column_names(line.text.split("\t"))
    check_names(names, source, options, "\t")
    return names


def tsv_row(line: Line, names: Sequence[str]) -> TableRow | Excluded:
    """Return the row of a line of a plain TSV."""
    row = _as_row(line.text.split("\t"), names, line.origin, line.text)
    if isinstance(row, TableRow) and _looks_quoted(row):
        return replace(row, notes=("quoted-cell",))
    return row


def _as_row(
    cells: list[str], names: Sequence[str], origin: Origin, text: str
) -> TableRow | Excluded:
    """Give the cells their names; a row with another number of them is rejected.

    Spreadsheets write empty cells at the end of rows, and columns without a name: such cells
    may be there as long as they are empty.
    """
    if not any(cell.strip() for cell in cells):
        return dropped(origin, "blank-line")
    while len(cells) > len(names) and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) != len(names):
        detail = f"{len(cells)} cells, the header has {len(names)}"
        return rejected(origin, "ragged-row", detail, text)
    fields = dict(zip(names, cells, strict=True))
    if "" in fields:
        for place, (name, cell) in enumerate(zip(names, cells, strict=True), start=1):
            if not name and cell.strip():
                detail = f"cell {place} has a text, its column no name"
                return rejected(origin, "nameless-column", detail, text)
        del fields[""]
    return TableRow(fields, origin, text=text)


def _looks_quoted(row: TableRow) -> bool:
    return any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in row.fields.values())


def refuse_unreadable_header(line: Line | Excluded, source: str, problem: str = "") -> None:
    """Refuse a table whose header line is not UTF-8, too long or wrongly quoted.

    Raises:
        InputError: it is.
    """
    if isinstance(line, Excluded):
        problem = line.detail
    if problem:
        raise InputError(
            f"the header line cannot be read ({problem})",
            place=source,
            remedy="save the file as UTF-8, with the names of the columns in its first line",
        )
