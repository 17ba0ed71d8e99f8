"""``vnprep inspect``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vnprep.cli.options import data_argument, json_option


@click.command("inspect", short_help="Show what rows teach, position by position.")
@data_argument
@click.option("--row", "rows", type=int, multiple=True, help="A row number, from 0. Repeatable.")
@click.option("--sample", type=click.IntRange(min=1), help="Show K rows drawn at random.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of --sample.")
@click.option(
    "--max-positions",
    type=click.IntRange(min=0),
    default=400,
    show_default=True,
    help="Of a longer row show the beginning and the end; 0 shows all.",
)
@click.option("--tsv", "as_tsv", is_flag=True, help="Print input<TAB>target with literal markers.")
@json_option
def inspect_command(
    folder: Path,
    rows: tuple[int, ...],
    sample: int | None,
    seed: int,
    max_positions: int,
    as_tsv: bool,
    as_json: bool,
) -> None:
    """Show what rows teach: input, target and loss, position by position.

    Without --row or --sample: the first row; with --tsv or --json: all rows.

    \b
    Examples:
      vnprep inspect ft/ --sample 3
      vnprep inspect ft/ --row 17 --json
      vnprep inspect pre/ --tsv | head
    """
    from rich.console import Console

    from vnprep.audit.inspect import TSV_HEADER, row_json, row_tsv, row_view
    from vnprep.audit.pieces import Pieces
    from vnprep.errors import ShardError
    from vnprep.shards.read import ShardSet

    if as_tsv and as_json:
        raise click.UsageError("--tsv and --json cannot be given together")
    shards = ShardSet.open(folder, check="sizes")
    pieces = Pieces(shards.tokenizer())
    chosen: list[int] | range = [*rows, *_sample(len(shards), sample, seed)]
    if not chosen:
        chosen = range(len(shards)) if as_tsv or as_json else [0]
    for number in chosen:
        if not 0 <= number < len(shards):
            raise ShardError(
                f"no row {number:,}",
                place=folder,
                remedy=f"rows are numbered 0 to {len(shards) - 1:,}",
            )
    if as_tsv:
        click.echo(TSV_HEADER)
    console = Console(highlight=False, markup=False)
    for number in chosen:
        row = shards[number]
        if as_tsv:
            click.echo(row_tsv(row, pieces))
        elif as_json:
            click.echo(json.dumps(row_json(number, row, pieces), ensure_ascii=False))
        else:
            console.print(row_view(number, row, pieces, max_positions or None))


def _sample(total: int, count: int | None, seed: int) -> list[int]:
    import numpy as np

    if count is None:
        return []
    chosen = np.random.default_rng(seed).choice(total, size=min(count, total), replace=False)
    return sorted(chosen.tolist())
