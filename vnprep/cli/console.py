"""What people see on stderr: progress while work goes on, and a closing table."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

if TYPE_CHECKING:
    from pathlib import Path

    from vnprep.run.prepare import Prepared
    from vnprep.run.progress import Progress as State
    from vnprep.run.progress import Report

_PHASES = {"plan": "reading", "encode": "encoding"}
_NOTES = {
    "extra-tabs": "rows with more than one tab between their cells; the empty cells were ignored",
    "semicolons": "rows of a CSV parted by semicolons, as its header tells",
    "unknown-token": "records with letters that the tokenizer has no token for; they are lost",
    "quoted-cell": "rows with a cell in quotes; if Excel wrote them, pass --quoted-tsv",
}
_SECONDS_BETWEEN_LINES = 5.0


def stderr() -> Console:
    """Return a console on stderr."""
    return Console(stderr=True, highlight=False, markup=False)


@contextmanager
def progress() -> Iterator[Report]:
    """Give a function that shows progress: a live bar on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    with Progress(*bar_columns(), console=stderr(), transient=True) as bars:
        tasks = {
            phase: bars.add_task(title, total=None, visible=False, counts="")
            for phase, title in _PHASES.items()
        }
        meter = _Meter()

        def show(state: State) -> None:
            bars.update(
                tasks[state.phase],
                completed=state.bytes,
                total=state.total_bytes,
                visible=True,
                counts=meter.counts(state),
            )

        yield show


def bar_columns() -> list[ProgressColumn]:
    """Return the parts of the live bar: one line, in a terminal of 80 columns too."""

    def column() -> Column:
        return Column(no_wrap=True)

    return [
        TextColumn("{task.description}", table_column=column()),
        BarColumn(bar_width=8),
        TaskProgressColumn(table_column=column()),
        TransferSpeedColumn(table_column=column()),
        TextColumn("{task.fields[counts]}", table_column=column()),
        TimeRemainingColumn(table_column=column()),
    ]


class _Meter:
    """Counts of records, and tokens a second since encoding began."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None

    def counts(self, state: State) -> str:
        if state.phase == "plan":
            return ""
        now = time.monotonic()
        if self._began is None:
            self._began = now, state.tokens
        seconds, tokens = now - self._began[0], state.tokens - self._began[1]
        rate = f"{short(tokens / seconds)} tok/s  " if seconds and tokens else ""
        return f"{rate}{short(state.rows)} rows  {short(state.rejected)} rejected"


def short(count: float) -> str:
    """Write a count in at most five characters: ``999``, ``12.3k``, ``4.56M``."""
    unit = ""
    for larger in "kMG":
        if count < 999.5:
            break
        count, unit = count / 1000, larger
    return f"{count:.0f}" if not unit else f"{count:.{2 if count < 9.995 else 1}f}{unit}"


def _plain_lines() -> Report:
    began = last = time.monotonic()
    meter = _Meter()

    def show(state: State) -> None:
        nonlocal last
        counts = meter.counts(state)
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = state.bytes / (now - began)
        left = (state.total_bytes - state.bytes) / rate if rate else 0
        done = 100 * state.bytes / max(state.total_bytes, 1)
        print(
            f"{_PHASES[state.phase]}: {done:.0f} %  {rate / 1e6:.1f} MB/s  "
            f"ETA {left:.0f} s  {counts}",
            file=sys.stderr,
            flush=True,
        )

    return show


def closing_table(prepared: Prepared, out: Path, seconds: float) -> Table:
    """Return the table that ends a preparation: read = kept + dropped + rejected."""
    manifest, ledger = prepared.manifest, prepared.manifest.ledger
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")  # a path must stay whole

    def line(name: str, value: int, note: str = "", style: str = "") -> None:
        table.add_row(name, f"{value:,}", note, style=style)

    line("read", ledger.read, "records")
    line("= kept", ledger.kept)
    files = [shard.rejects for shard in manifest.shards if shard.rejects is not None]
    where = f"  → {out / files[0].name}{', …' * (len(files) > 1)}" if files else ""
    # The files list what was dropped and what was rejected; rejects are what one looks for.
    beside = ("", where) if ledger.rejected else (where, "")
    line("+ dropped", ledger.dropped.total(), _reasons(ledger.dropped) + beside[0])
    style = "yellow" if ledger.rejected else ""
    line("+ rejected", ledger.rejected.total(), _reasons(ledger.rejected) + beside[1], style)
    for name, count in sorted(ledger.noted.items()):
        line("  noted", count, _NOTES.get(name, name))
    share = 100 * manifest.supervised_tokens / max(manifest.tokens, 1)
    line("tokens", manifest.tokens, f"{share:.1f} % carry loss")
    line("longest row", manifest.longest_row, "tokens")
    size = sum(record.bytes for record in manifest.inputs)
    line("shards", len(manifest.shards), f"in {out}")
    whole = prepared.done_now == len(manifest.shards)
    rate = f"{size / 1e6 / max(seconds, 1e-9):.1f} MB/s" if whole else ""
    table.add_row("time", f"{seconds:.1f} s", rate)
    return table


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))
