"""What every reader yields: a ``Record`` that can be encoded, or an ``Excluded`` one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.vietnamese.normalize import clean_turn, to_nfc

_EXCERPT = 120


@dataclass(frozen=True)
class Record:
    """Texts to encode, NFC, with where they came from.

    Attributes:
        segments: one document, or request, response, request, response, …
        origin: where the record stands.
        notes: what was unusual but harmless; counted in the ledger.
    """

    segments: tuple[str, ...]
    origin: Origin
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableRow:
    """Named fields of one row of a table or one JSON object.

    Attributes:
        fields: by name.
        origin: where the row stands.
        notes: what was unusual but harmless.
        text: the row as it was written, for the excerpt of a reject.
    """

    fields: Mapping[str, Any]
    origin: Origin
    notes: tuple[str, ...] = ()
    text: str = ""

    def rejected(self, reason: str, detail: str) -> Excluded:
        """Make a reject of this row."""
        return rejected(self.origin, reason, detail, self.text or str(dict(self.fields)))


class AmbiguousObject(dict[str, Any]):
    """A JSON object in which some keys come twice; of each, the last value is kept."""

    def __init__(self, fields: Mapping[str, Any], twice: set[str]) -> None:
        super().__init__(fields)
        self.twice = twice


def rejected(origin: Origin, reason: str, detail: str = "", text: str = "") -> Excluded:
    """Make a reject, with the beginning of its text."""
    return Excluded(origin, "rejected", reason, detail, text[:_EXCERPT])


def dropped(origin: Origin, reason: str, detail: str = "", text: str = "") -> Excluded:
    """Make a record that a rule leaves out."""
    return Excluded(origin, "dropped", reason, detail, text[:_EXCERPT])


def text_problem(text: str) -> tuple[str, str] | None:
    """Return (reason, detail) if a text cannot be trained on as it is."""
    if "\0" in text:
        return "nul-character", f"U+0000 at character {text.index(chr(0))}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return "lone-surrogate", f"U+{ord(text[error.start]):04X} at character {error.start}"
    return None


def document(text: str, origin: Origin, notes: tuple[str, ...] = ()) -> Record | Excluded:
    """Make a pretraining record of one document."""
    if problem := text_problem(text):
        return rejected(origin, *problem, text)
    if not text.strip():
        return dropped(origin, "empty")
    return Record((to_nfc(text),), origin, notes)


def conversation(
    turns: list[tuple[str, str]], origin: Origin, notes: tuple[str, ...] = ()
) -> Record | Excluded:
    """Make a fine-tuning record of requests and responses in turn."""
    segments: list[str] = []
    for role, text in turns:
        if problem := text_problem(text):
            return rejected(origin, *problem, text)
        cleaned = clean_turn(text)
        if not cleaned:
            beside = "\n".join(text for _, text in turns).strip()
            return rejected(origin, f"empty-{role}", text=beside)
        segments.append(cleaned)
    return Record(tuple(segments), origin, notes)


def from_row(row: TableRow, options: ReadOptions) -> Record | Excluded:
    """Turn a table row into a record, by the fields that the options name."""
    if options.layout == "text":
        text = _string(row, options.text_field)
        return text if isinstance(text, Excluded) else document(text, row.origin, row.notes)
    if options.request_field not in row.fields and options.messages_field in row.fields:
        return _from_messages(row, options.messages_field)
    request, response = (
        _string(row, options.request_field),
        _string(row, options.response_field),
    )
    if isinstance(request, Excluded):
        return request
    if isinstance(response, Excluded):
        return response
    turns = [("request", request), ("response", response)]
    return conversation(turns, row.origin, row.notes)


def _string(row: TableRow, field: str) -> str | Excluded:
    if field not in row.fields:
        for name in row.fields:
            if to_nfc(name) == field:
                return _string(replace(row, fields={field: row.fields[name]}), field)
        found = ", ".join(map(str, list(row.fields)[:8])) or "none"
        return row.rejected("missing-field", f"no {field!r}; fields here: {found}")
    value = row.fields[field]
    if value is None:
        return row.rejected("missing-field", f"{field!r} is empty (null)")
    if not isinstance(value, str):
        return row.rejected("not-text", f"{field!r} is {type(value).__name__}, not text")
    return value


def _from_messages(row: TableRow, field: str) -> Record | Excluded:
    """Read chat messages: an optional system text joins the first request; then turns alternate."""
    messages = row.fields[field]
    if not isinstance(messages, list) or not messages:
        return row.rejected("bad-messages", f"{field!r} is no list of messages")
    system = ""
    turns: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        if isinstance(message, AmbiguousObject):
            return row.rejected("bad-messages", f"message {number} has the same key twice")
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str):
            return row.rejected("bad-messages", f"message {number} has no text content")
        if role == "system" and number == 0:
            system = content.strip()
            continue
        expected = ("user", "request") if len(turns) % 2 == 0 else ("assistant", "response")
        if role != expected[0]:
            detail = f"message {number} is from {role!r}, expected {expected[0]!r}"
            return row.rejected("bad-messages", detail)
        if system and not turns:
            content = f"{system}\n{content}"
        turns.append((expected[1], content))
    if not turns or len(turns) % 2:
        return row.rejected("bad-messages", "the conversation does not end with an answer")
    return conversation(turns, row.origin, row.notes)
