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


def read_blocks(lines: Iterator[Line | Excluded]) -> Iterator[Record | Excluded]:
    """Yield the pair of every block."""
    block: _Block | None = None
    for line in lines:
        if isinstance(line, Excluded):
            yield line
            if block is not None:
                block.bad.append(line)
            continue
        text = line.text
        if text.lstrip().startswith(_REQUEST):
            if block is not None:
                yield _finish(block)
            block = _Block(line.origin, [text.lstrip().removeprefix(_REQUEST)])
        elif block is None:
            if text.strip():
                detail = f"text before the first {_REQUEST!r}"
                yield rejected(line.origin, "outside-block", detail, text)
        elif text.lstrip().startswith(_RESPONSE):
            if block.response is not None:
                # Which of the two answers is meant, nobody can know: the block goes as a whole.
                block.twice = line.origin
            else:
                block.response = [text.lstrip().removeprefix(_RESPONSE)]
        else:
            (block.request if block.response is None else block.response).append(text)
    if block is not None:
        yield _finish(block)


def _finish(block: _Block) -> Record | Excluded:
    request = "\n".join(block.request).strip()
    if block.bad:
        detail = f"line {block.bad[0].origin.line} of this block is not UTF-8"
        return rejected(block.origin, "incomplete-block", detail, request)
    if block.twice is not None:
        detail = f"a second {_RESPONSE!r} on line {block.twice.line}"
        return rejected(block.origin, "two-responses", detail, request)
    if block.response is None:
        detail = f"no {_RESPONSE!r} before the next {_REQUEST!r} or the end"
        return rejected(block.origin, "incomplete-block", detail, request)
    turns = [("request", request), ("response", "\n".join(block.response))]
    return conversation(turns, block.origin)
