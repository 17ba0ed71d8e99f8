"""Progress of a command that counts towards a whole: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft

#: Called with the name of a phase, how much of it is done, and its whole.
Count = Callable[[str, int, int], None]

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def counting() -> Iterator[Count]:
    """Give a function that shows on stderr how far the work is."""
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TaskProgressColumn(), TimeLeft())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase)
            bars.update(tasks[phase], completed=done, total=total)

        yield show


def _plain_lines() -> Count:
    began: dict[str, float] = {}
    last = time.monotonic()

    def show(phase: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        start = began.setdefault(phase, now)
        if now - last < _SECONDS_BETWEEN_LINES or not done:
            return
        last = now
        left = (now - start) * (total - done) / done
        share = 100 * done / max(total, 1)
        print(f"{phase}: {share:.0f} %  ETA {left:.0f} s", file=sys.stderr, flush=True)

    return show
