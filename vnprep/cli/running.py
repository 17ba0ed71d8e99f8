"""What the preparing commands do, once their options are known."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vnprep.config import MEBIBYTE, PrepareConfig, ReadOptions, Stage

if TYPE_CHECKING:
    from vnprep.run.prepare import Prepared
    from vnprep.run.task import Mode


def run(
    stage: Stage,
    read: ReadOptions,
    inputs: tuple[str, ...],
    *,
    tokenizer_path: Path,
    special: dict[str, str],
    out: Path,
    eos_loss: bool,
    workers: int | None,
    unit_mb: float,
    max_record_mb: int,
    overwrite: bool,
    append: bool,
    max_rejects: Any,
    dry_run: bool,
    as_json: bool,
    max_len: int | None,
    truncation: Any,
) -> None:
    """Prepare a data set, or with ``dry_run`` say what that would do, and report on it."""
    if truncation != "drop" and max_len is None:
        raise click.UsageError(f"--truncation {truncation} needs --max-len")
    if overwrite and append:
        raise click.UsageError("--overwrite and --append cannot be given together")
    from vnprep.cli.console import closing_table, progress, stderr
    from vnprep.cli.foretelling import estimate_lines
    from vnprep.engines.local import default_workers
    from vnprep.run.estimate import estimate
    from vnprep.run.prepare import prepare
    from vnprep.run.rejects import RejectLimit
    from vnprep.tokenizer.load import load_tokenizer

    began = time.monotonic()
    read = replace(read, max_record_bytes=max_record_mb * MEBIBYTE)
    unit_bytes = math.ceil(unit_mb * MEBIBYTE)
    config = PrepareConfig(stage, read, eos_loss, max_len, truncation, unit_bytes)
    limit = None if max_rejects is None else RejectLimit.parse(max_rejects)
    tokenizer = load_tokenizer(tokenizer_path, special)
    workers = workers or default_workers()
    mode: Mode = "overwrite" if overwrite else "append" if append else "new"

    def tell(line: str) -> None:
        click.echo(line, err=True)

    if dry_run:
        with progress() as report:
            foretold = estimate(
                inputs,
                out,
                config,
                tokenizer,
                workers=workers,
                mode=mode,
                report=report,
                tell=tell,
            )
        if as_json:
            click.echo(json.dumps({"dry_run": True, **foretold.to_json()}, ensure_ascii=False))
        else:
            click.echo("\n".join(estimate_lines(foretold, out, mode)))
        return
    with progress() as report:
        prepared = prepare(
            inputs,
            out,
            config,
            tokenizer,
            workers=workers,
            mode=mode,
            max_rejects=limit,
            report=report,
            tell=tell,
        )
    seconds = time.monotonic() - began
    console = stderr()
    if line := _what_happened(prepared, out, mode):
        console.print(line)
    console.print(closing_table(prepared, out, seconds))
    if as_json:
        click.echo(json.dumps(_summary(prepared, out, seconds), ensure_ascii=False))


def _what_happened(prepared: Prepared, out: Path, mode: Mode) -> str:
    """Say what the closing table does not: that less was done than it tells of."""
    if mode == "append":
        return f"inputs: {prepared.added:,} added, {prepared.skipped:,} there already"
    if prepared.done_now:
        return ""
    if prepared.added:
        return f"{out}: all its shards were made by an earlier run"
    return f"{out} was finished already; nothing to do"


def _summary(prepared: Prepared, out: Path, seconds: float) -> dict[str, Any]:
    """Return what ``--json`` prints of a finished data set."""
    manifest = prepared.manifest
    return {
        "out": str(out),
        "stage": manifest.stage,
        "rows": manifest.rows,
        "tokens": manifest.tokens,
        "supervised_tokens": manifest.supervised_tokens,
        "longest_row": manifest.longest_row,
        "shards": len(manifest.shards),
        "shards_made_now": prepared.done_now,
        "inputs_added": prepared.added,
        "inputs_skipped": prepared.skipped,
        "ledger": manifest.ledger.to_json(),
        "seconds": round(seconds, 3),
    }
