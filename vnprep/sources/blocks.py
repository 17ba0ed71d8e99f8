"""Text blocks::

    Request: Bật quạt phòng ngủ lên mức 2
    Response: Đã bật quạt phòng ngủ lên mức 2

A block may run over several lines; the next ``Request:`` begins another, and blank lines
between blocks mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.lines import Line
from vnprep.sources.records import Record, conversation, rejected

_REQUEST, _RESPONSE = "Request:", "Response:"


@dataclass
class _Block:
    origin: Origin
    request: list[str]
    response: list[str] | None = None
    bad: list[Excluded] = field(default_factory=list)
    twice: Origin | None = None
    size: int = 0

    def add(self, part: list[str], text: str, limit: int) -> None:
        """Add a line to the request or the response, unless the block is too large already."""
        self.size += len(text) + 1
        if self.size <= limit or not part:
            part.append(text)


def read_blocks(lines: Iterator[Line | Excluded], limit: int) -> Iterator[Record | Excluded]:
    """Yield the pair of every block.

    Args:
        lines: all lines of the file.
        limit: the longest block, in characters; a longer one is rejected without being held.
    """
    block: _Block | None = None
    for line in lines:
        text = line.excerpt if isinstance(line, Excluded) else line.text
        begins = text.lstrip().startswith(_REQUEST)
        if begins and block is not None:
            yield _finish(block, limit)
        if isinstance(line, Excluded):
            yield line
            # A block is not what it was when one of its lines is lost.
            block = _Block(line.origin, []) if begins else block
            if block is not None:
                block.bad.append(line)
        elif begins:
            block = _Block(line.origin, [])
            block.add(block.request, text.lstrip().removeprefix(_REQUEST), limit)
        elif block is None:
            if text.strip():
                detail = f"text before the first {_REQUEST!r}"
                yield rejected(line.origin, "outside-block", detail, text)
        elif text.lstrip().startswith(_RESPONSE):
            if block.response is not None:
                # Which of the two answers is meant, nobody can know: the block goes as a whole.
                block.twice = line.origin
            else:
                block.response = []
                block.add(block.response, text.lstrip().removeprefix(_RESPONSE), limit)
        else:
            block.add(block.request if block.response is None else block.response, text, limit)
    if block is not None:
        yield _finish(block, limit)


def _finish(block: _Block, limit: int) -> Record | Excluded:
    request = "\n".join(block.request).strip()
    if block.bad:
        detail = f"line {block.bad[0].origin.line} of this block cannot be read"
        return rejected(block.origin, "incomplete-block", detail, request)
    if block.size > limit:
        detail = f"the block is longer than {limit:,} characters"
        return rejected(block.origin, "too-large", detail, request)
    if block.twice is not None:
        detail = f"a second {_RESPONSE!r} on line {block.twice.line}"
        return rejected(block.origin, "two-responses", detail, request)
    if block.response is None:
        detail = f"no {_RESPONSE!r} before the next {_REQUEST!r} or the end"
        return rejected(block.origin, "incomplete-block", detail, request)
    turns = [("request", request), ("response", "\n".join(block.response))]
    return conversation(turns, block.origin)
