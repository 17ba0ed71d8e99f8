"""The errors that a user can meet.

VnprepError                 anything below; the command line prints it and exits 1
├── InputError              an input cannot be used: missing, empty, of another format
│   └── NoRowsError         every record was dropped or rejected
├── TokenizerError          a tokenizer that cannot serve: no special tokens, pad = eos
│   └── EncoderMismatch     the fast encoder gave other ids than the reference
├── OutputError             the output folder holds something else, or is in use
├── ShardError              prepared data is damaged, incomplete or of another format version
└── TrainingError           data, model and options that do not fit together

A bad *record* is no exception: it is a counted reject (see ``vnprep.shards.ledger``).
"""

from __future__ import annotations

from pathlib import Path


class VnprepError(Exception):
    """A problem that the user can mend.

    Args:
        cause: what is wrong, one line.
        place: the file, row or option concerned.
        remedy: what to do about it, one line.
    """

    def __init__(self, cause: str, *, place: str | Path | None = None, remedy: str = "") -> None:
        self.cause = cause
        self.place = None if place is None else str(place)
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.place}: {self.cause}" if self.place else self.cause
        return f"{head}\n  remedy: {self.remedy}" if self.remedy else head

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments do not survive the default pickling, and workers send errors home.
        return _rebuild, (type(self), self.cause, self.place, self.remedy)


def _rebuild(kind: type[VnprepError], cause: str, place: str | None, remedy: str) -> VnprepError:
    return kind(cause, place=place, remedy=remedy)


class InputError(VnprepError):
    """An input that cannot be used at all."""


class NoRowsError(InputError):
    """Nothing was left to write."""


class TokenizerError(VnprepError):
    """A tokenizer that cannot serve."""


class EncoderMismatch(TokenizerError):
    """The fast encoder gave other ids than the reference; the run begins anew without it."""


class OutputError(VnprepError):
    """An output folder that cannot be written to."""


class ShardError(VnprepError):
    """Prepared data that cannot be trusted."""


class TrainingError(VnprepError):
    """Data, model and options that do not fit together."""
