"""How far a long batch is, on stderr."""

from __future__ import annotations

import sys
import time

import click

#: Seconds between two reports where stderr is no terminal.
_PAUSE = 30.0


class Progress:
    """Counts answers and tokens; says the rate and the time left."""

    def __init__(self, total: int, done: int = 0) -> None:
        """Begin with ``done`` of ``total`` answers there already."""
        self._total, self._done, self._before = total, done, done
        self._tokens = 0
        self._start = self._reported = time.monotonic()
        self._shown = False
        self._terminal = sys.stderr.isatty()

    def add(self, answers: int, tokens: int) -> None:
        """Note what a batch made."""
        self._done += answers
        self._tokens += tokens
        now = time.monotonic()
        if self._terminal:
            click.echo(f"\r{self._line(now)}\x1b[K", nl=False, err=True)
            self._shown = True
        elif now - self._reported >= _PAUSE:
            click.echo(self._line(now), err=True)
            self._reported = now

    def end(self) -> None:
        """Take the line from the terminal; what comes next begins at its left."""
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)

    def _line(self, now: float) -> str:
        took = max(now - self._start, 1e-9)
        new = self._done - self._before
        left = (self._total - self._done) * took / max(new, 1)
        return (
            f"{self._done:,} of {self._total:,} answers  {new / took:,.1f}/s  "
            f"{self._tokens / took:,.0f} tokens/s  ETA {left:.0f} s"
        )
