"""Run units in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from vnprep.config import PrepareConfig
from vnprep.pipeline import make_shard
from vnprep.shards.manifest import ShardRecord
from vnprep.sources.plan import Unit
from vnprep.tokenizer.load import LoadedTokenizer, parse_tokenizer
from vnprep.tokenizer.special import SpecialIds


@dataclass(frozen=True)
class Job:
    """What every worker needs; it can be sent to another process."""

    config: PrepareConfig
    tokenizer_text: str
    special: SpecialIds
    folder: Path


_worker: tuple[Job, LoadedTokenizer] | None = None


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
        for unit in units:
            yield unit, make_shard(unit, job.config, tokenizer, job.folder)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(units)), context, _start_worker, (job,))
    try:
        pending: dict[Future[ShardRecord], Unit] = {pool.submit(_run, unit): unit for unit in units}
        while pending:
            done, _ = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.2)
            for future in done:
                yield pending.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(job: Job) -> None:
    global _worker
    # Processes are the parallelism: threads below them would fight for the same cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker = job, parse_tokenizer(job.tokenizer_text, special=job.special)


def _run(unit: Unit) -> ShardRecord:
    assert _worker is not None, "the worker was not started"
    job, tokenizer = _worker
    return make_shard(unit, job.config, tokenizer, job.folder)
