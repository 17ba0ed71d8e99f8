"""What a training script does around the training: ranks, errors, exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from trainer import environment
from trainer.options import TrainOptions
from vnprep.errors import VnprepError

_LOST = (
    "another rank has ended, so this one ends, too\n  remedy: see above what that rank said, or "
    "whether it was killed (memory?); the same command continues from the newest checkpoint"
)


def main(command: click.Command) -> None:
    """Parse the command line and exit with the command's code: 0, 1, 2, 130 or 143.

    Every rank parses the same line, so rank 0 alone prints help and usage errors.
    """
    if environment.rank() != 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  (held until the process ends)
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        if environment.rank() == 0:
            error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    sys.exit(code or 0)


def run(options: TrainOptions) -> int:
    """Train as the options say.

    Returns:
        0, or 1 after an error that was printed, or 128 + the signal that ended the run early.
    """
    environment.prepare(options.threads)
    if options.dry_run:
        return _dry_run(options)
    from trainer.distributed import EveryRankError, join, leave, lost_rank
    from trainer.session import train

    try:
        world = join()
    except VnprepError as error:
        _print(str(error))
        return 1
    together = True
    try:
        return train(options, world)
    except EveryRankError as shared:
        if world.is_main:
            _print(str(shared.error))
        return 1
    except VnprepError as error:
        together = False
        _print(str(error) if world.size == 1 else f"rank {world.rank}: {error}")
        return 1
    except RuntimeError as error:
        together = False
        if world.size == 1 or not lost_rank(error):
            raise
        _print(f"rank {world.rank}: {_LOST}")
        return 1
    except BaseException:
        together = False
        raise
    finally:
        leave(world, together=together)


def _dry_run(options: TrainOptions) -> int:
    """Say what the run would be. Rank 0 does it alone, so no ranks need to meet."""
    if environment.rank() != 0:
        return 0
    from trainer import dryrun
    from trainer.preflight import prepare

    ranks = dryrun.ranks_of(options.ranks)
    try:
        # DeepSpeed logs to stdout while it is imported; scripts want the facts alone there.
        with contextlib.redirect_stdout(sys.stderr):
            facts = dryrun.describe(prepare(options, 0, ranks, hashes=True), ranks)
    except VnprepError as error:
        _print(str(error))
        return 1
    click.echo(dryrun.as_json(facts) if options.json else dryrun.to_text(facts))
    return 0


def _print(text: Any) -> None:
    click.echo(f"error: {text}", err=True)
