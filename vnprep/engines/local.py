"""Run units in processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from vnprep.config import PrepareConfig
from vnprep.errors import VnprepError
from vnprep.pipeline import make_shard
from vnprep.shards.manifest import ShardRecord
from vnprep.sources.plan import Unit
from vnprep.tokenizer.encode import Encoder
from vnprep.tokenizer.load import LoadedTokenizer, parse_tokenizer
from vnprep.tokenizer.parity import make_encoder
from vnprep.tokenizer.special import SpecialIds

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """What every worker needs; it can be sent to another process."""

    config: PrepareConfig
    tokenizer_text: str
    special: SpecialIds
    encoder: str
    folder: Path


_worker: tuple[Job, LoadedTokenizer, Encoder] | None = None


def default_workers() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_units(job: Job, units: Sequence[Unit], workers: int) -> Iterator[tuple[Unit, ShardRecord]]:
    """Yield each unit with its shard as it is done, in any order.

    A single unit, or a single worker, runs here; the tokenizer then uses threads of its own.

    Raises:
        VnprepError: the first error of any unit; the others are stopped.
    """
    if workers == 1 or len(units) <= 1:
        tokenizer = parse_tokenizer(job.tokenizer_text, special=job.special)
        encoder = make_encoder(tokenizer, job.encoder)
        for unit in units:
            yield unit, make_shard(unit, job.config, tokenizer, encoder, job.folder)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(units)), context, _start_worker, (job, stop))
    try:
        with _interrupts_held_back():  # the workers start here and inherit it
            pending: dict[Future[ShardRecord], Unit] = {
                pool.submit(_run, unit): unit for unit in units
            }
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool:
        raise VnprepError(
            "a worker process died, most likely for want of memory",
            remedy="run the same command again with fewer --workers; what is done is kept",
        ) from None
    finally:
        # Shards appear whole or not at all, so a worker can be stopped in the middle of one.
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Hold Ctrl-C back: it reaches the whole group, but the parent alone decides what it means.

    Processes started meanwhile never see one; this process gets it when the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(job: Job, stop: Event) -> None:
    global _worker
    threading.Thread(target=_exit_when_told, args=(stop,), daemon=True).start()
    # Processes are the parallelism: threads below them would fight for the same cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = parse_tokenizer(job.tokenizer_text, special=job.special)
    _worker = job, tokenizer, make_encoder(tokenizer, job.encoder)


def _exit_when_told(stop: Event) -> None:
    """End this process when the parent says so or is no longer there."""
    parent = multiprocessing.parent_process()
    while not stop.wait(_LOOK_SECONDS):
        if parent is not None and not parent.is_alive():
            break
    os._exit(1)


def _run(unit: Unit) -> ShardRecord:
    assert _worker is not None, "the worker was not started"
    job, tokenizer, encoder = _worker
    return make_shard(unit, job.config, tokenizer, encoder, job.folder)
