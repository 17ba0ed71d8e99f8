"""A run that continues on other ranks: the rows of a step stay, micro-batch and accumulation give.

The rows of a step and their order decide the curve; on how many ranks and in how many passes they
are taken does not. So a run keeps its rows a step, and the rest is worked out.
"""

from __future__ import annotations

from trainer.engine import BatchShape
from vnprep.errors import TrainingError


def rows_per_step(shape: BatchShape, ranks: int) -> int:
    """Return the packed rows of an optimizer step over all ranks."""
    return shape.micro_batch * shape.accumulation * ranks


def fit_shape(
    wanted: BatchShape,
    rows: int,
    ranks: int,
    *,
    micro_batch_given: bool = False,
    accumulation_given: bool = False,
) -> BatchShape:
    """Choose micro-batch and accumulation so that a step has the rows that the run has had.

    Args:
        wanted: what the options and the DeepSpeed configuration ask for.
        rows: rows of a step of the run that is to continue.
        ranks: that there are now.
        micro_batch_given: whether the user gave the micro-batch on the command line. It is then
            the largest that may be taken; the machine may have no memory for more.
        accumulation_given: whether the user gave the accumulation; then it stays.

    Returns:
        ``wanted`` where that has the rows; else the micro-batch stays if it can, or is lowered to
        the next that divides.

    Raises:
        TrainingError: no choice has the rows, with the numbers that would have them.
    """
    if rows_per_step(wanted, ranks) == rows or (micro_batch_given and accumulation_given):
        return wanted  # two explicit numbers that do not fit are an error of their own
    if rows % ranks:
        fitting = [str(n) for n in divisors(rows)]
        raise TrainingError(
            f"a step of this run has {rows:,} packed rows, which {ranks} ranks cannot share evenly",
            remedy=f"continue on {_listed(fitting)} ranks",
        )
    mine = rows // ranks
    if not accumulation_given:
        micro_batch = max(n for n in divisors(mine) if n <= wanted.micro_batch)
        return BatchShape(micro_batch, mine // micro_batch)
    if mine % wanted.accumulation:
        raise TrainingError(
            f"a step of this run has {rows:,} packed rows, {mine:,} a rank on {ranks} ranks, which "
            f"{wanted.accumulation} passes cannot share evenly",
            place="--accumulation",
            remedy=f"leave it out, or give {_listed([str(n) for n in divisors(mine)])}",
        )
    return BatchShape(mine // wanted.accumulation, wanted.accumulation)


def change_note(before: BatchShape, now: BatchShape, rows: int, ranks: int) -> str:
    """Say what was chosen, in a line for the user."""
    several = "1 rank" if ranks == 1 else f"{ranks} ranks"
    return (
        f"a step of this run has {rows:,} rows: on {several} that is micro-batch "
        f"{now.micro_batch} × accumulation {now.accumulation} (asked for: {before.micro_batch} × "
        f"{before.accumulation})"
    )


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, in order."""
    return [n for n in range(1, number + 1) if number % n == 0]


def _listed(numbers: list[str]) -> str:
    shown = numbers if len(numbers) <= 8 else [*numbers[:7], "…", numbers[-1]]
    return ", ".join(shown[:-1]) + f" or {shown[-1]}" if len(shown) > 1 else shown[0]
