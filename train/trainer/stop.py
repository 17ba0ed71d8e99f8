"""Asking a run to stop: a signal, or a launcher that is gone.

The request is noted here and honoured at the next step boundary, where all ranks agree on it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

#: What the shell reports for a process ended by the signal; ours after the checkpoint is saved.
EXIT_CODE_BASE = 128


def _parent_of(process: int) -> int | None:
    """Return a process's parent, or None where /proc does not tell."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses; state and parent follow the last.
    return int(text.rpartition(")")[2].split()[1])


class StopRequest:
    """Whether this process was asked to stop, and by what.

    SIGTERM and the first Ctrl-C ask; a second Ctrl-C ends at once. On one node the ``deepspeed``
    command does not pass a SIGTERM on: it dies and its ranks would train on as orphans. So under
    that launcher the parent and its parent are watched too.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._ancestors = self._read_ancestors() if "CROSS_RANK" in os.environ else None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @staticmethod
    def _read_ancestors() -> tuple[int, int | None]:
        parent = os.getppid()
        return parent, _parent_of(parent)

    def asked(self) -> bool:
        """Tell whether to stop at the next boundary."""
        watched = self.signal is None and self._ancestors is not None
        if watched and self._read_ancestors() != self._ancestors:
            self.signal = signal.SIGTERM
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """143 after SIGTERM, 130 after Ctrl-C."""
        return EXIT_CODE_BASE + (self.signal or signal.SIGTERM)
