"""Bytes → chunks of whole lines, for the readers that take many lines at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.lines import Line, decode, skip_line, too_long

Ints = NDArray[np.int64]

_BOM = b"\xef\xbb\xbf"
_CHUNK = 4 << 20
_LINES = 1 << 15
_BEGINNING = 400  # bytes of a line that is too long; enough for an excerpt
_NEWLINE, _RETURN = 0x0A, 0x0D


@dataclass(frozen=True)
class Chunk:
    """Consecutive whole lines of one source.

    Attributes:
        data: their bytes; the last line may lack its line end.
        source: the name to report.
        offset: where ``data`` begins in the (decompressed) input.
        first_line: the number of its first line.
    """

    data: bytes
    source: str
    offset: int
    first_line: int

    @cached_property
    def bytes(self) -> NDArray[np.uint8]:
        """The same bytes as an array."""
        return np.frombuffer(self.data, dtype=np.uint8)

    @cached_property
    def starts(self) -> Ints:
        """Where each line begins in ``data``, after a byte order mark, [lines]."""
        newlines = np.flatnonzero(self.bytes == _NEWLINE)
        if len(newlines) and newlines[-1] == len(self.data) - 1:
            newlines = newlines[:-1]
        starts = np.concatenate(([0], newlines + 1))
        if self.offset == 0 and self.data.startswith(_BOM):
            starts[0] = len(_BOM)
        return starts

    @cached_property
    def ends(self) -> Ints:
        r"""Where each line ends, without its ``\n`` or ``\r\n``, [lines]."""
        last = len(self.data) - self.data.endswith(b"\n")
        ends = np.append(self._line_begins[1:] - 1, last)
        if self.data.find(b"\r") < 0:
            return ends
        returned: NDArray[np.bool_] = (ends > self.starts) & (
            self.bytes[np.maximum(ends - 1, 0)] == _RETURN
        )
        return ends - returned

    @cached_property
    def _line_begins(self) -> Ints:
        begins = self.starts.copy()
        begins[0] = 0
        return begins

    @property
    def numbers(self) -> Ints:
        """The number of each line, [lines]."""
        return self.first_line + np.arange(len(self.starts))

    @cached_property
    def byte_offsets(self) -> Ints:
        """Where each line begins in the input, [lines]."""
        return self.offset + self._line_begins

    def origin(self, line: int) -> Origin:
        """Return where the chunk's ``line``-th line stands."""
        return Origin(self.source, self.first_line + line, int(self.byte_offsets[line]))

    def line(self, line: int) -> Line | Excluded:
        """Decode one line, or reject it."""
        raw = self.data[int(self.starts[line]) : int(self.ends[line])]
        return decode(raw, self.origin(line))

    @cached_property
    def is_utf8(self) -> bool:
        """Whether all of it is UTF-8."""
        if self.data.isascii():
            return True
        offsets = pa.py_buffer(np.array([0, len(self.data)], dtype=np.int64))
        whole = pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(self.data))
        try:
            whole.validate(full=True)
        except pa.ArrowInvalid:
            return False
        return True


def read_chunks(
    file: BinaryIO,
    source: str,
    *,
    limit: int,
    start: int = 0,
    end: int | None = None,
    first_line: int = 1,
) -> Iterator[Chunk | Excluded]:
    """Yield the lines that begin in ``start:end`` of a file, many at a time.

    Takes what ``read_lines`` takes and stands for the same lines: a line longer than ``limit``
    bytes is rejected without being held in memory.
    """
    offset, number = start, first_line
    while end is None or offset < end:
        # Never more than the limit, so that a line that is whole at once is not too long.
        room = min(_CHUNK, limit)
        data = file.read(room if end is None else min(room, end - offset))
        if not data:
            return
        rest, beginning = 0, b""
        if not data.endswith(b"\n"):
            data, rest, beginning = _whole_lines(file, data, limit)
        if data:
            chunk = Chunk(data, source, offset, number)
            yield from _parts(chunk)
            offset += len(data)
            number += len(chunk.starts)
        if rest:
            yield too_long(Origin(source, number, offset), limit, beginning)
            offset += rest
            number += 1


def _parts(chunk: Chunk) -> Iterator[Chunk]:
    """Part a chunk of very many lines: if all are bad, each becomes a reject with its story."""
    if len(chunk.starts) <= _LINES:
        yield chunk
        return
    begins = [*chunk.byte_offsets[::_LINES].tolist(), chunk.offset + len(chunk.data)]
    for number, (start, end) in enumerate(itertools.pairwise(begins)):
        data = chunk.data[start - chunk.offset : end - chunk.offset]
        yield Chunk(data, chunk.source, start, chunk.first_line + number * _LINES)


def _whole_lines(file: BinaryIO, data: bytes, limit: int) -> tuple[bytes, int, bytes]:
    """Read on to the end of the last line.

    Returns:
        The whole lines; and of a last line that is too long its length, 0 if there is none, and
        its beginning.
    """
    begun = data.rfind(b"\n") + 1
    tail = file.readline(max(limit + 1 - (len(data) - begun), 0))
    length = len(data) - begun + len(tail)
    if length <= limit or tail.endswith(b"\n"):
        return data + tail, 0, b""
    return data[:begun], length + skip_line(file), data[begun:] + tail[:_BEGINNING]
