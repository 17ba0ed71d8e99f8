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
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from vnprep.prepare import Prepared
    from vnprep.progress import Progress as State
    from vnprep.progress import Report

_PHASES = {"plan": "reading inputs", "encode": "encoding"}
_NOTES = {
    "extra-tabs": "rows with more than one tab between their cells; the empty cells were ignored",
    "semicolons": "rows of a CSV parted by semicolons, as its header tells",
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
    columns = (
        TextColumn("{task.description:<15}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), transient=True) as bars:
        tasks = {
            phase: bars.add_task(title, total=None, visible=False, counts="")
            for phase, title in _PHASES.items()
        }

        def show(state: State) -> None:
            bars.update(
                tasks[state.phase],
                completed=state.bytes,
                total=state.total_bytes,
                visible=True,
                counts=_counts(state),
            )

        yield show


def _counts(state: State) -> str:
    if state.phase == "plan":
        return ""
    rejected = state.ledger.rejected.total()
    return f"{state.ledger.kept:,} rows  {state.tokens:,} tokens  {rejected:,} rejected"


def _plain_lines() -> Report:
    began = last = time.monotonic()

    def show(state: State) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = state.bytes / (now - began)
        left = (state.total_bytes - state.bytes) / rate if rate else 0
        done = 100 * state.bytes / max(state.total_bytes, 1)
        print(
            f"{_PHASES[state.phase]}: {done:.0f} %  {rate / 1e6:.1f} MB/s  "
            f"ETA {left:.0f} s  {_counts(state)}",
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
    table.add_column()

    def line(name: str, value: int, note: str = "", style: str = "") -> None:
        table.add_row(name, f"{value:,}", note, style=style)

    line("read", ledger.read, "records")
    line("= kept", ledger.kept)
    line("+ dropped", ledger.dropped.total(), _reasons(ledger.dropped))
    rejects = [shard.rejects for shard in manifest.shards if shard.rejects is not None]
    where = f"  → {out / rejects[0].name}{', …' * (len(rejects) > 1)}" if rejects else ""
    style = "yellow" if ledger.rejected else ""
    line("+ rejected", ledger.rejected.total(), _reasons(ledger.rejected) + where, style)
    for name, count in sorted(ledger.noted.items()):
        line("  noted", count, _NOTES.get(name, name))
    share = 100 * manifest.supervised_tokens / max(manifest.tokens, 1)
    line("tokens", manifest.tokens, f"{share:.1f} % carry loss")
    line("longest row", manifest.longest_row, "tokens")
    size = sum(record.bytes for record in manifest.inputs)
    line("shards", len(manifest.shards), f"in {out}")
    table.add_row("time", f"{seconds:.1f} s", f"{size / 1e6 / max(seconds, 1e-9):.1f} MB/s")
    return table


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))
