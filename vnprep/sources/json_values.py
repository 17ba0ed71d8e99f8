r"""JSON that is not one object a line: an array, or values over many lines.

The text is cut into the array's elements (or the values that follow each other) by its brackets
and quotes alone; each is then read like a line of JSON Lines, and rejected alone if it is broken.
JSON strings hold no line ends, so a quote that is not closed breaks the value on its line alone;
a bracket that is never closed takes what follows it along.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.jsonl import decode_json
from vnprep.sources.lines import Line, decode
from vnprep.sources.opening import open_bytes
from vnprep.sources.records import rejected

_BLOCK = 1 << 20
_HEAD = 1 << 16
_BOM = b"\xef\xbb\xbf"
# Group 1 is the next sign that matters. Strings that end in sight are passed over at once; the
# signs of others are looked at one by one, and so are those of the line of a broken one.
_STRING = rb'"(?:[^"\\\n]++|\\[^\n])*+"'
_BETWEEN = re.compile(rb'(?:[^][{}",]++|' + _STRING + rb')*+([][{}",])')
_NESTED = re.compile(rb'(?:[^][{}"]++|' + _STRING + rb')*+([][{}"])')
_IN_STRING = re.compile(rb'(["\n]|\\(?s:.))')
_BROKEN = re.compile(rb"([][{},\n])")


def json_kind(path: Path) -> str:
    """Return ``jsonl`` for a file with one object a line, ``json`` for any other.

    Raises:
        InputError: it cannot be opened, or a compressed file is damaged.
    """
    with open_bytes(path) as file:
        head = file.read(_HEAD)
    lines = [line for line in head.removeprefix(_BOM).split(b"\n", 3) if line.strip()][:2]
    if lines and lines[0].lstrip().startswith(b"["):
        return "json"
    # One line may be broken; and of a line longer than the head nothing can be told.
    one_a_line = not lines or any(map(_is_object, lines)) or b"\n" not in head
    return "jsonl" if one_a_line else "json"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(decode_json(line.decode()), dict)
    except (ValueError, RecursionError):
        return False


def read_values(file: BinaryIO, source: str, limit: int) -> Iterator[Line | Excluded]:
    """Yield the text of every element of an array, or of every value.

    Args:
        file: stands at its beginning.
        source: the name to report.
        limit: bytes of the longest value; a longer one is rejected without being held.
    """
    cutter = _Cutter(source, limit)
    while block := file.read(_BLOCK):
        yield from cutter.feed(block)
    yield from cutter.end()


class _Cutter:
    """Where in the text we are, between one block and the next."""

    def __init__(self, source: str, limit: int) -> None:
        self._source, self._limit = source, limit
        self._text = b""  # from the beginning of the current value
        self._seen = 0  # how much of it was looked at
        self._offset = 0  # where it begins
        self._counted, self._line = 0, 1  # the line at a place in the text
        self._depth = 0
        self._in_array = False
        self._tokens = _BETWEEN
        self._quote = 0  # where the last string begins
        self._too_large: Origin | None = None

    def feed(self, block: bytes) -> Iterator[Line | Excluded]:
        """Take the next block; yield the values that end in it."""
        if self._offset == 0 and not self._text:
            bom = len(_BOM) if block.startswith(_BOM) else 0
            block, self._offset = block[bom:], bom
        self._text += block
        begin = 0
        while found := self._next():
            self._seen = found.end()
            end = self._step(found[1], begin, found.start(1))
            if end is not None:
                yield from self._cut(begin, end)
                begin = self._seen
        # A backslash at the very end waits for what it escapes.
        looks_back = self._tokens is _IN_STRING and self._seen < len(self._text)
        waits = looks_back and self._text.endswith(b"\\")
        self._forget(begin, len(self._text) - waits)

    def end(self) -> Iterator[Line | Excluded]:
        """Yield what is left when the text is over."""
        yield from self._cut(0, len(self._text))

    def _next(self) -> re.Match[bytes] | None:
        if self._tokens is _BETWEEN:
            return (_NESTED if self._depth else _BETWEEN).match(self._text, self._seen)
        return self._tokens.search(self._text, self._seen)

    def _step(self, token: bytes, begin: int, place: int) -> int | None:
        """Take one token; return where the current value ends, if it does."""
        if self._tokens is _IN_STRING:
            if token == b'"':
                self._tokens = _BETWEEN
            elif token == b"\n":
                # The quote was never closed: look at the brackets behind it after all.
                self._tokens, self._seen = _BROKEN, self._quote
        elif token == b"\n":
            self._tokens = _BETWEEN
        elif token == b'"':
            self._tokens, self._quote = _IN_STRING, place + 1
        elif token in b"[{":
            opens_array = token == b"[" and not (self._in_array or self._depth)
            if opens_array and not self._text[begin:place].strip():
                self._in_array = True
                return begin
            self._depth += 1
        elif token in b"]}":
            if self._depth:
                self._depth -= 1
                return None if self._depth or self._in_array else place + 1
            if token == b"]" and self._in_array:
                self._in_array = False
                return place
        elif self._in_array and not self._depth:
            return place
        return None

    def _cut(self, begin: int, end: int) -> Iterator[Line | Excluded]:
        raw = self._text[begin:end]
        if self._too_large is None and len(raw.strip()) > self._limit:
            self._too_large = self._origin(begin, raw)
        if self._too_large is not None:
            detail = f"the value is longer than {self._limit:,} bytes"
            yield rejected(self._too_large, "too-large", detail)
            self._too_large = None
        elif raw.strip():
            yield decode(raw.strip(), self._origin(begin, raw))

    def _origin(self, begin: int, raw: bytes) -> Origin:
        start = begin + len(raw) - len(raw.lstrip())
        self._line += self._text.count(b"\n", self._counted, start)
        self._counted = start
        return Origin(self._source, self._line, self._offset + start)

    def _forget(self, begin: int, seen: int) -> None:
        """Drop the text that is done with, and that of a value that grew too long."""
        if self._too_large is None:
            begin += len(self._text[begin:seen]) - len(self._text[begin:seen].lstrip())
        if len(self._text) - begin > self._limit:
            if self._too_large is None:
                self._too_large = self._origin(begin, self._text[begin:])
            begin = seen
        self._line += self._text.count(b"\n", self._counted, begin)
        self._counted = max(self._counted - begin, 0)
        self._offset += begin
        self._text, self._seen = self._text[begin:], seen - begin
        self._quote = max(self._quote - begin, 0)
