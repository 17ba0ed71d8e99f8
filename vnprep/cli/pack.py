"""``vnprep pack``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vnprep.cli.options import data_argument, json_option

if TYPE_CHECKING:
    from rich.table import Table

    from vnprep.packing.file import PackRecord

_SECONDS_BETWEEN_LINES = 5.0


@click.command("pack", short_help="Lay rows side by side for a sequence length.")
@data_argument
@click.option(
    "--seq-len",
    type=click.IntRange(min=1),
    required=True,
    help="Positions of a packed row; that of training.",
)
@click.option(
    "--data-check",
    type=click.Choice(["full", "sizes"]),
    default="full",
    show_default=True,
    help="Hash the data first, or compare sizes alone.",
)
@json_option
def pack_command(
    folder: Path, seq_len: int, data_check: Literal["full", "sizes"], as_json: bool
) -> None:
    """Write an index that lays the rows of a data set side by side, for one sequence length.

    The index is a small file in DIR; no token is copied, and training with this length finds it.
    A longer pretraining row goes on in another packed row. Several lengths may stand side by side.

    \b
    Example:
      vnprep pack pre/ --seq-len 2048
    """
    from vnprep.cli.console import stderr
    from vnprep.packing.file import pack_shards, write_pack
    from vnprep.shards.manifest import Manifest
    from vnprep.shards.read import ShardSet

    began = time.perf_counter()
    total = sum(record.bytes for record in Manifest.read(folder).files)
    with _hashing(total if data_check == "full" else 0) as report:
        shards = ShardSet.open(folder, data_check, report)
    began_packing = time.perf_counter()
    record = write_pack(shards, pack_shards(shards, seq_len))
    seconds = time.perf_counter() - began_packing
    stderr().print(_table(record, folder, len(shards), seconds))
    if as_json:
        figures = {
            "rows": len(shards),
            "fill": record.fill,
            "pack_seconds": round(seconds, 3),
            "seconds": round(time.perf_counter() - began, 3),
        }
        click.echo(json.dumps({**asdict(record), **figures}, ensure_ascii=False))


def _table(record: PackRecord, folder: Path, rows: int, seconds: float) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    cut = record.windows - rows
    table.add_row("rows", f"{rows:,}", f"longer ones cut at {cut:,} places" if cut else "")
    table.add_row("tokens", f"{record.tokens:,}", "each in one packed row")
    table.add_row("packed rows", f"{record.packed_rows:,}", f"of {record.seq_len:,} positions")
    table.add_row("fill", f"{100 * record.fill:.3f} %", "of these positions hold a token")
    table.add_row("index", f"{record.file.bytes:,}", f"bytes, {folder / record.file.name}")
    table.add_row("time", f"{seconds:.2f} s", f"{rows / max(seconds, 1e-9):,.0f} rows/s")
    return table


@contextmanager
def _hashing(total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that is told of bytes hashed: a bar on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_lines(total)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from vnprep.cli.console import stderr

    columns = (TextColumn("checking"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as bars:
        task = bars.add_task("", total=total)
        yield lambda count: bars.advance(task, count)


def _plain_lines(total: int) -> Callable[[int], None]:
    began = last = time.monotonic()
    done = 0

    def show(count: int) -> None:
        nonlocal last, done
        done += count
        now = time.monotonic()
        if total and now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            rate = done / (now - began)
            print(
                f"checking: {100 * done / total:.0f} %  {rate / 1e6:.0f} MB/s  "
                f"ETA {(total - done) / rate:.0f} s",
                file=sys.stderr,
                flush=True,
            )

    return show
