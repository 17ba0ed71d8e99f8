"""``vnprep verify``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vnprep.cli.options import data_argument, json_option


@click.command("verify", short_help="Check every byte of a data set.")
@data_argument
@json_option
def verify_command(folder: Path, as_json: bool) -> None:
    """Check every byte of a data set against its manifest; exit 1 if anything changed.

    \b
    Example:
      vnprep verify ft/
    """
    from vnprep.audit.verify import unfinished, verify
    from vnprep.shards.manifest import Manifest

    manifest = Manifest.read(folder)
    problems = verify(folder)
    if as_json:
        found = [{"file": problem.file, "problem": problem.what} for problem in problems]
        summary = {"ok": not problems, "problems": found, "unfinished_run": unfinished(folder)}
        click.echo(json.dumps(summary, ensure_ascii=False))
    elif problems:
        for problem in problems:
            click.secho("damaged: ", fg="red", nl=False)
            click.echo(f"{folder / problem.file}: {problem.what}")
    else:
        size = sum(record.bytes for record in manifest.files)
        click.echo(
            f"{folder}: whole. shards {len(manifest.shards):,}, rows {manifest.rows:,}, "
            f"tokens {manifest.tokens:,}, bytes {size:,}; every sha256 as in the manifest"
        )
    if unfinished(folder):
        click.echo(
            f"note: a run into {folder} (--append or --overwrite) is unfinished, which is no "
            "damage; its command, given again, finishes it",
            err=True,
        )
    if problems:
        raise SystemExit(1)
