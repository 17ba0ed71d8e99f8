"""Plain text: a document a file, a paragraph or a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.lines import Line, decode
from vnprep.sources.records import Record, document, dropped, rejected

_BOM = b"\xef\xbb\xbf"


def whole_file(file: BinaryIO, source: str, options: ReadOptions) -> Iterator[Record | Excluded]:
    """Read a file as one document; line ends, CRLF or CR alone, become ``\\n``."""
    origin = Origin(source, 1, 0)
    raw = file.read(options.max_record_bytes + 1)
    if len(raw) > options.max_record_bytes:
        detail = f"one document of more than {options.max_record_bytes:,} bytes; see --split"
        yield rejected(origin, "too-large", detail)
        return
    line = decode(raw.removeprefix(_BOM), origin)
    if isinstance(line, Excluded):
        yield line
    else:
        text = line.text.replace("\r\n", "\n")
        yield document(text if "\n" in text else text.replace("\r", "\n"), origin)


def one_line(line: Line) -> Record | Excluded:
    """Read a line as one document; a blank one is dropped."""
    text = line.text.strip()
    return document(text, line.origin) if text else dropped(line.origin, "blank-line")


def by_paragraph(
    lines: Iterator[Line | Excluded], options: ReadOptions
) -> Iterator[Record | Excluded]:
    """Read runs of lines between blank ones as documents; their line breaks are kept.

    A line that cannot be read rejects itself; the rest of its paragraph survives. A paragraph of
    too many bytes is rejected as a whole, without being held in memory.
    """
    limit = options.max_record_bytes
    paragraph: list[Line] = []
    size = 0
    for line in lines:
        if isinstance(line, Excluded):
            yield line
        elif not line.text.strip():
            if paragraph:
                yield _joined(paragraph)
            paragraph, size = [], 0
        elif size <= limit:
            paragraph.append(line)
            size += len(line.text.encode()) + (len(paragraph) > 1)
            if size > limit:
                # What follows, up to the next blank line, is its end and no document.
                detail = f"a paragraph of more than {limit:,} bytes"
                yield rejected(paragraph[0].origin, "too-large", detail, paragraph[0].text)
                paragraph = []
    if paragraph:
        yield _joined(paragraph)


def _joined(paragraph: list[Line]) -> Record | Excluded:
    return document("\n".join(line.text for line in paragraph), paragraph[0].origin)
