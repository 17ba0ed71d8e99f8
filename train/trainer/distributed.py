"""The ranks of a run: joining, leaving, and agreeing.

Small facts (counts, flags, errors) travel through a gloo group in host memory, so that asking for
them never waits for the accelerator.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from vnprep.errors import OutputError, TrainingError, VnprepError

T = TypeVar("T")

#: A first checkpoint or a cold file system may hold one rank for long; the others wait.
TIMEOUT = timedelta(minutes=60)
#: All ranks are started at once; one that has not come by then was killed on its way.
MEETING = timedelta(minutes=10)

#: What torch's collectives say when another process of the group has ended.
_SIGNS_OF_LOSS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo")


class EveryRankError(Exception):
    """An error that every rank has raised alike, so that rank 0 alone need print it."""

    def __init__(self, error: VnprepError) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True)
class World:
    """This process among the others.

    Attributes:
        rank: 0 … size - 1.
        size: number of ranks.
        local_rank: number of this rank on its machine.
        device: where the model lives.
        host_group: a gloo group over all ranks.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    host_group: Any

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        dist.barrier(group=self.host_group)

    def sum_integers(self, *values: int) -> tuple[int, ...]:
        """Add each value up over all ranks."""
        total = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(total, group=self.host_group)
        return tuple(int(value) for value in total)

    def sum_floats(self, *values: float) -> tuple[float, ...]:
        """Add each value up over all ranks, in double precision."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.host_group)
        return tuple(float(value) for value in total)

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is up on any rank."""
        return self.sum_integers(int(flag))[0] > 0

    def gather(self, value: T) -> list[T]:
        """Give every rank the values of all, by rank."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.host_group)
        return values

    def agree(self, action: Callable[[], T]) -> T:
        """Run something that may fail, and fail on every rank if it failed on any.

        A rank that raised alone would leave the others waiting for it.

        Raises:
            EveryRankError: with the error of the lowest rank that had one.
        """
        result: T | None = None
        error: VnprepError | None = None
        try:
            result = action()
        except VnprepError as problem:
            error = problem
        except OSError as problem:
            error = OutputError(
                problem.strerror or str(problem),
                place=problem.filename,
                remedy="check space and permissions, then run the same command again: it goes on",
            )
        errors = [each for each in self.gather(error) if each is not None]
        if errors:
            raise EveryRankError(errors[0]) from None
        return result  # type: ignore[return-value]


def join() -> World:
    """Join the ranks that the environment names (``environment.prepare`` or the launcher).

    Raises:
        TrainingError: the port on which the ranks meet is taken, or a rank does not come.
    """
    try:
        return _join()
    except dist.DistStoreError:
        raise TrainingError(
            f"not all of the {os.environ['WORLD_SIZE']} ranks came within "
            f"{MEETING.total_seconds():,.0f} s",
            place=f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
            remedy="see what the others said, and whether this machine can be reached by them",
        ) from None
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise TrainingError(
            f"port {os.environ['MASTER_PORT']}, on which the ranks meet, is in use by another run",
            remedy="give this run a port of its own: deepspeed --master_port 29501 train/…",
        ) from None


def _join() -> World:
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    store, rank, size = next(rendezvous("env://", timeout=MEETING))
    meeting: dict[str, Any] = {"store": store, "rank": rank, "world_size": size, "timeout": TIMEOUT}
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device, **meeting)
        host_group = dist.new_group(backend="gloo", timeout=TIMEOUT)
    else:
        device = torch.device("cpu")
        dist.init_process_group("gloo", **meeting)
        host_group = dist.group.WORLD
    return World(dist.get_rank(), dist.get_world_size(), local_rank, device, host_group)


def leave(world: World, *, together: bool) -> None:
    """Leave the group. Without this a process now and then aborts at exit.

    Args:
        world: what ``join`` returned.
        together: whether every rank is known to come here, so that they may wait for each other.
    """
    if together:
        with contextlib.suppress(RuntimeError):  # another one was lost on the way here
            world.barrier()
    dist.destroy_process_group()


def lost_rank(error: RuntimeError) -> bool:
    """Tell whether an error means that another rank is gone: killed, or at its own error.

    gloo says so as soon as the system closes the connection; NCCL when its watchdog gives up.
    """
    text = str(error)
    return isinstance(error, dist.DistError) or any(sign in text for sign in _SIGNS_OF_LOSS)
