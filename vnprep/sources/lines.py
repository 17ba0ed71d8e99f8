r"""Bytes → lines with their number and byte offset.

Lines end at ``\n`` alone. ``str.splitlines`` would also break at U+0085, U+2028 and U+2029,
which are ordinary characters inside valid JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.records import rejected

_BOM = b"\xef\xbb\xbf"
_SKIP = 1 << 20
_BEGINNING = 400  # bytes; an excerpt is cut from it


@dataclass(frozen=True)
class Line:
    """One line, decoded, without its line end."""

    text: str
    origin: Origin


def read_lines(
    file: BinaryIO,
    source: str,
    *,
    limit: int,
    start: int = 0,
    end: int | None = None,
    first_line: int = 1,
) -> Iterator[Line | Excluded]:
    """Yield the lines that begin in ``start:end``.

    Args:
        file: stands at ``start``.
        source: the name to report.
        limit: bytes of the longest line; a longer one is rejected without being held in memory.
        start, end: byte offsets in the (decompressed) input; no end means all.
        first_line: the number of the line at ``start``.
    """
    offset, number = start, first_line
    while end is None or offset < end:
        raw = file.readline(limit + 1)
        if not raw:
            return
        origin = Origin(source, number, offset)
        offset += len(raw)
        number += 1
        if len(raw) > limit and not raw.endswith(b"\n"):
            offset += skip_line(file)
            yield too_long(origin, limit, raw)
            continue
        if origin.byte_offset == 0:
            raw = raw.removeprefix(_BOM)
        yield decode(raw.removesuffix(b"\n").removesuffix(b"\r"), origin)


def decode(raw: bytes, origin: Origin) -> Line | Excluded:
    """Decode UTF-8 strictly."""
    try:
        return Line(raw.decode("utf-8"), origin)
    except UnicodeDecodeError as error:
        detail = f"byte 0x{raw[error.start]:02x} at offset {error.start} is not UTF-8"
        return rejected(origin, "invalid-utf8", detail, raw.decode("utf-8", "backslashreplace"))


def too_long(origin: Origin, limit: int, beginning: bytes) -> Excluded:
    """Reject a line that is longer than the limit; ``beginning`` is where it begins."""
    text = beginning[:_BEGINNING].removeprefix(_BOM).decode("utf-8", "ignore")
    return rejected(origin, "too-large", f"the line is longer than {limit:,} bytes", text)


def skip_line(file: BinaryIO) -> int:
    """Read past the rest of a line; return its bytes."""
    skipped = 0
    while raw := file.readline(_SKIP):
        skipped += len(raw)
        if raw.endswith(b"\n"):
            break
    return skipped
