"""The settings of a preparation: frozen, and the whole of what decides the bytes written."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from vnprep.errors import VnprepError

MEBIBYTE = 1 << 20

Stage = Literal["pretrain", "finetune"]

#: How records are laid out in the inputs.
#: ``seed-tsv``: the two shifted cells with literal markers; ``text``: plain documents;
#: ``pairs``: requests and responses, or chat messages.
Layout = Literal["seed-tsv", "text", "pairs"]

#: What a plain-text file is split into.
TextSplit = Literal["file", "paragraph", "line"]

#: What happens to an example longer than ``max_len``. Of a conversation, the first request or
#: the last response is cut.
Truncation = Literal["drop", "right", "request-left", "request-right", "response-right"]

_ALLOWED: dict[Stage, tuple[Truncation, ...]] = {
    "pretrain": ("drop", "right"),
    "finetune": ("drop", "request-left", "request-right", "response-right"),
}


@dataclass(frozen=True)
class ReadOptions:
    """How inputs are read.

    Attributes:
        layout: what the records look like.
        format: a format name that overrides what the file names say, or None.
        text_split: for plain text: a document a file, a paragraph or a line.
        text_field: for tables and JSONL: the field that holds the text.
        request_field, response_field, messages_field: likewise for pairs.
        quoted_tsv: whether cells of a TSV may be quoted, as Excel writes them.
        delimiter: what parts the cells of a CSV, or None: a comma, or what the header tells.
        max_record_bytes: a longer line or document is rejected without being read into memory.
    """

    layout: Layout
    format: str | None = None
    text_split: TextSplit = "file"
    text_field: str = "text"
    request_field: str = "request"
    response_field: str = "response"
    messages_field: str = "messages"
    quoted_tsv: bool = False
    delimiter: str | None = None
    max_record_bytes: int = 64 * MEBIBYTE

    def __post_init__(self) -> None:
        # Names of columns are matched in NFC, however a keyboard or a file writes them.
        for name in ("text_field", "request_field", "response_field", "messages_field"):
            object.__setattr__(self, name, unicodedata.normalize("NFC", getattr(self, name)))


@dataclass(frozen=True)
class PrepareConfig:
    """How a data set is prepared.

    Attributes:
        stage: ``pretrain`` or ``finetune``.
        read: how inputs are read.
        eos_loss: whether predicting ``[EOS]`` carries loss.
        max_len: the most positions a row may have, or None.
        truncation: what happens to longer ones.
        unit_bytes: input bytes a work unit holds; one unit makes one shard.
    """

    stage: Stage
    read: ReadOptions
    eos_loss: bool = True
    max_len: int | None = None
    truncation: Truncation = "drop"
    unit_bytes: int = 16 * MEBIBYTE

    def __post_init__(self) -> None:
        if self.truncation not in _ALLOWED[self.stage]:
            raise VnprepError(
                f"--truncation {self.truncation} has no meaning for {self.stage} data",
                remedy=f"choose one of: {', '.join(_ALLOWED[self.stage])}",
            )
        if self.max_len is not None and self.max_len < 2:
            raise VnprepError("--max-len must be at least 2", remedy="512 to 4096 is usual")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: what the manifest records."""
        return asdict(self)


def truncations(stage: Stage) -> tuple[str, ...]:
    """Return the truncation policies of a stage."""
    return tuple(name for name in get_args(Truncation) if name in _ALLOWED[stage])
