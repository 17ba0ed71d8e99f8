"""Settings that must stand in the environment before torch and DeepSpeed are imported."""

from __future__ import annotations

import os
import socket
import warnings


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def rank() -> int:
    """Return this process's rank as the launcher gave it; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def prepare(threads: int | None = None) -> None:
    """Set what can be set from inside; what the user has set stays.

    Without CUDA, DeepSpeed is told to use the CPU. Without a launcher, this process becomes rank
    0 of 1. The ranks of a machine share its cores: with more threads than cores they slow each
    other down several times over.

    Args:
        threads: CPU threads of this rank; None shares the cores among the local ranks.
    """
    local_ranks = int(os.environ.get("LOCAL_SIZE", "1"))
    share = max(1, cores() // local_ranks)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    # DeepSpeed calls functions that newer versions of torch have renamed; no user can mend that.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(_free_port()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
