"""Files of requests, and files of their answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from inference.sampling import Answer
from vnprep.config import ReadOptions
from vnprep.errors import InputError, OutputError
from vnprep.shards.ledger import Excluded
from vnprep.sources.delimited import read_plain_tsv
from vnprep.sources.lines import read_lines
from vnprep.sources.opening import open_bytes

_LONGEST_LINE = 1 << 20


def read_requests(path: Path) -> list[str]:
    """Return the requests of a UTF-8 file.

    ``.jsonl`` holds an object with ``request`` on each line, ``.tsv`` a column of that name; any
    other file a request a line. Blank lines are skipped.

    Raises:
        InputError: it cannot be read, a line is bad, or there is no request.
    """
    if path.suffix.lower() == ".tsv":
        requests = _from_tsv(path)
    else:
        lines = [(n, line) for n, line in enumerate(_read_lines(path), 1) if line.strip()]
        if path.suffix.lower() == ".jsonl":
            requests = [_from_json(line, f"{path}, line {number}") for number, line in lines]
        else:
            requests = [line for _, line in lines]
    if not requests:
        raise InputError("no request in this file", place=path, remedy="write one a line")
    return requests


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", place=path, remedy="check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 (byte 0x{error.object[error.start]:02x} at offset {error.start:,})",
            place=path,
            remedy="save the file as UTF-8",
        ) from None
    return [line.rstrip("\r") for line in text.split("\n")]


def _from_json(line: str, place: str) -> str:
    try:
        request = json.loads(line)["request"]
        if not isinstance(request, str):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise InputError(
            "not a JSON object with a text under request",
            place=place,
            remedy='write {"request": "…"} on each line',
        ) from None
    return request


def _from_tsv(path: Path) -> list[str]:
    requests: list[str] = []
    with open_bytes(path) as file:
        lines = read_lines(file, str(path), limit=_LONGEST_LINE)
        for row in read_plain_tsv(lines, str(path), ReadOptions("text", text_field="request")):
            if not isinstance(row, Excluded):
                requests.append(row.fields["request"])
            elif row.outcome == "rejected":
                raise InputError(
                    row.detail or row.reason,
                    place=f"{path}, line {row.origin.line}",
                    remedy="correct the line or take it out",
                )
    return requests


def answer_line(request: str, answer: Answer) -> str:
    """Return an answer as a line of JSON."""
    return json.dumps(
        {
            "request": request,
            "response": answer.text,
            "stopped": answer.stopped,
            "stop_reason": "eos" if answer.stopped else "length",
            "tokens": answer.token_ids,
        },
        ensure_ascii=False,
    )


def answers_written(path: Path, requests: Sequence[str]) -> int:
    """Return how many of the requests a file of answers holds, and cut a line begun after them.

    Raises:
        OutputError: its answers are to other requests.
    """
    if not path.exists():
        return 0
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    try:
        found = [json.loads(line)["request"] for line in whole.splitlines()]
    except (ValueError, KeyError, TypeError):
        found = [""]
    if found != list(requests[: len(found)]):
        raise OutputError(
            "holds something else than the answers to the first of these requests",
            place=path,
            remedy="give another --out, or remove the file",
        )
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return len(found)
