"""Options that several scripts share."""

from __future__ import annotations

from pathlib import Path

import click

from inference.device import DEVICE_OPTION

__all__ = ["BATCH_SIZE_OPTION", "CHECKPOINT_OPTION", "DEVICE_OPTION", "RUN_ARGUMENT"]

RUN_ARGUMENT = click.argument("run", type=click.Path(path_type=Path))
CHECKPOINT_OPTION = click.option(
    "--checkpoint",
    metavar="STEP|newest",
    help="Take the weights of a checkpoint of the run; the run need not have ended.",
)
BATCH_SIZE_OPTION = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Requests answered at a time.",
)
