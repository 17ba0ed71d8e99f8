r"""Where a file may be cut: only where a record begins beyond doubt, whatever the bytes are.

============================  ===============================================================
text by line, JSONL           after any line end: a line is a record
text by paragraph             after a blank line (``\n\n`` or ``\n\r\n``): it ends a paragraph
text blocks                   before a line that begins with ``Request:``: it begins a block
plain TSV, seed TSV           after any line end but the header's; pieces carry the header
CSV, quoted TSV               likewise, up to the first quote below the header: from there on, a
                              line end may stand inside a cell, and in a file whose quotes are
                              broken nobody can tell where without reading all that is before
Parquet, Arrow files          between row groups, between record batches
all others                    nowhere: whole texts, JSON values, Arrow streams
============================  ===============================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vnprep.config import ReadOptions
from vnprep.sources.delimited import header_size
from vnprep.sources.inputs import Input


@dataclass(frozen=True)
class Rule:
    """Where records begin.

    Attributes:
        mark: a pattern; a record begins at the end of every match of its group 0, or, where it
            has a group 1, at that group's beginning.
        reach: how many bytes before a record's beginning a match may begin.
        overlap: bytes of a block to look at again with the next, for marks of several bytes.
        quotes: whether cutting ends at the first quote.
        header: what kind of header line stands first: ``tsv``, ``csv`` or "".
    """

    mark: re.Pattern[bytes]
    reach: int
    overlap: int = 0
    quotes: bool = False
    header: str = ""


_UNKNOWN = 1 << 62

_LINE = re.compile(rb"\n")
_LINES = Rule(_LINE, 1)
_PARAGRAPHS = Rule(re.compile(rb"\n\r?\n"), 3, overlap=3)
_BLOCKS = Rule(re.compile(rb"\n(Request:)"), 1, overlap=9)
_TSV = Rule(_LINE, 1, header="tsv")
_CSV = Rule(_LINE, 1, quotes=True, header="csv")


def rule_for(item: Input, options: ReadOptions) -> Rule | None:
    """Return where an input of bytes may be cut, or None: nowhere."""
    if item.compressed:
        return None
    match item.format, options.layout:
        case "jsonl", _:
            return _LINES
        case "text", "text":
            return {"line": _LINES, "paragraph": _PARAGRAPHS, "file": None}[options.text_split]
        case "text" | "blocks", "pairs":
            return _BLOCKS
        case "tsv", "seed-tsv":
            return _TSV
        case "tsv", _:
            return _CSV if options.quoted_tsv else _TSV
        case "csv", _:
            return _CSV
    return None


class Cutter:
    """Finds the cuts of one file as its blocks go by.

    A cut lies at the first beginning of a record that is ``unit_bytes`` or more behind the last
    cut; so cuts do not depend on how the file is read.

    Args:
        rule: of the file.
        options: how it will be read.
        unit_bytes: as above.
        size: the file's bytes, if they are known before it is read.
    """

    def __init__(
        self, rule: Rule, options: ReadOptions, unit_bytes: int, size: int = _UNKNOWN
    ) -> None:
        self._rule, self._options = rule, options
        self._unit_bytes, self._size = unit_bytes, size
        self._text, self._offset = b"", 0  # the bytes at hand, and where they begin
        self._line, self._counted = 1, 0  # the line at the offset ``_counted``
        self._least = unit_bytes  # the next cut lies here or later
        self._quote: int | None = None
        #: The first line, or lines, if they are a header.
        self.header = b""
        #: Byte offset and line number where each piece begins.
        self.cuts: list[tuple[int, int]] = [(0, 1)]

    def feed(self, block: bytes) -> None:
        """Take the next block of the file, a large one."""
        if self._least >= self._size:
            return  # what is left, if anything, makes no unit of its own
        if self._offset == 0 and not self._text and self._rule.header:
            self.header = block[: header_size(block, self._options, self._rule.header)]
            self._least = max(self._least, len(self.header))
            if not self.header:
                self._least = self._size  # nothing is certain
                return
        end = self._offset + len(self._text)
        kept = self._text[max(len(self._text) - self._rule.overlap, 0) :]
        self._text, self._offset = kept + block, end - len(kept)
        if self._rule.quotes:
            self._stop_at_quote()
        while (found := self._next()) is not None:
            self._count(found)
            self.cuts.append((found, self._line))
            self._least = found + self._unit_bytes
        self._count(self._offset + len(self._text))

    def _next(self) -> int | None:
        """Return the next cut in the bytes at hand."""
        if self._least >= self._size:
            return None
        start = max(self._least - self._rule.reach - self._offset, 0)
        while found := self._rule.mark.search(self._text, start):
            place = self._offset + (found.start(1) if self._rule.mark.groups else found.end())
            if place >= self._size or (self._quote is not None and place > self._quote):
                return None
            if place >= self._least:
                return place
            start = found.start() + 1
        return None

    def _stop_at_quote(self) -> None:
        if self._quote is None:
            start = max(len(self.header) - self._offset, 0)
            place = self._text.find(b'"', start)
            if place >= 0:
                self._quote = self._offset + place

    def _count(self, place: int) -> None:
        """Move the known line on to a byte offset."""
        if place > self._counted:
            start, end = self._counted - self._offset, place - self._offset
            self._line += self._text.count(b"\n", start, end)
            self._counted = place
