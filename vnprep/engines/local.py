"""Run units in processes of this machine.

Each worker has a pipe of its own, and nothing else is shared: no queues and no semaphores, which
a killed program would leave behind and of which a worker that starts too late would complain.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from vnprep.config import PrepareConfig
from vnprep.errors import VnprepError
from vnprep.interrupts import held_back
from vnprep.pipeline import Advance, Report, make_shard
from vnprep.shards.manifest import TOKENIZER_NAME, ShardRecord
from vnprep.sources.plan import Unit
from vnprep.startup import keep_pandas_out
from vnprep.tokenizer.fast import warm_up
from vnprep.tokenizer.load import parse_tokenizer
from vnprep.tokenizer.parity import make_encoder
from vnprep.tokenizer.special import SpecialIds


@dataclass(frozen=True)
class Job:
    """What every worker needs. It is small, so that starting one never waits for it to read.

    Attributes:
        config: the settings.
        special: ids of the special tokens.
        encoder: the name of the encoder that serves.
        folder: where shards go; the tokenizer stands there already.
    """

    config: PrepareConfig
    special: SpecialIds
    encoder: str
    folder: Path


Message = Advance | ShardRecord | Exception


def default_workers() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """Worker processes, each with a pipe.

    They import what they need while the caller plans. At the end they are killed, whatever they
    are doing: shards appear whole or not at all.

    Args:
        count: processes; with fewer than two there are none, and the work is done here.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.connections: list[Connection] = []
        self._processes: list[BaseProcess] = []

    def __enter__(self) -> Crew:
        context = multiprocessing.get_context("spawn")
        try:
            for _ in range(self.count if self.count > 1 else 0):
                with held_back():
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs,), daemon=True)
                    process.start()
                    theirs.close()  # so that its death closes the pipe
                self.connections.append(ours)
                self._processes.append(process)
        except BaseException:
            self.dismiss()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()

    def dismiss(self) -> None:
        """End all processes; when this returns none is left, nor writes anything."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for connection in self.connections:
            connection.close()
        self._processes, self.connections = [], []


def run_units(
    job: Job,
    units: Sequence[Unit],
    crew: Crew,
    advance: Callable[[Unit, Advance], None] | None = None,
) -> Iterator[tuple[Unit, ShardRecord]]:
    """Yield each unit with its shard as it is done, in any order.

    A single unit runs here, and so do all without a crew; the tokenizer then uses threads of its
    own.

    Args:
        job: what to do.
        units: with what.
        crew: not used before.
        advance: called now and then with how far a unit is.

    Raises:
        VnprepError: the first error of any unit, or a worker died.
    """
    advance = advance or _ignore
    if not crew.connections or len(units) <= 1:
        yield from _run_here(job, units, advance)
        return
    waiting = deque(units)
    busy: dict[Connection, Unit] = {}
    for connection in crew.connections[: len(units)]:
        _send(connection, job)
        busy[connection] = _hand_out(connection, waiting)
    while busy:
        ready = wait(list(busy))
        for connection in [connection for connection in busy if connection in ready]:
            outcome = _outcome(connection)
            if isinstance(outcome, Advance):
                advance(busy[connection], outcome)
                continue
            unit = busy.pop(connection)
            if waiting:
                busy[connection] = _hand_out(connection, waiting)
            yield unit, outcome


def _ignore(_unit: Unit, _so_far: Advance) -> None:
    """Nobody wants to know how far a unit is."""


def _run_here(
    job: Job, units: Sequence[Unit], advance: Callable[[Unit, Advance], None]
) -> Iterator[tuple[Unit, ShardRecord]]:
    if units:
        tools = _Tools(job)
    for unit in units:
        yield unit, tools.make(unit, partial(advance, unit))


class _Tools:
    """What a process needs for any unit of a job."""

    def __init__(self, job: Job) -> None:
        text = (job.folder / TOKENIZER_NAME).read_text(encoding="utf-8")
        self._job = job
        self._tokenizer = parse_tokenizer(text, special=job.special)
        self._encoder = make_encoder(self._tokenizer, job.encoder)

    def make(self, unit: Unit, report: Report) -> ShardRecord:
        job = self._job
        return make_shard(unit, job.config, self._tokenizer, self._encoder, job.folder, report)


def _hand_out(connection: Connection, waiting: deque[Unit]) -> Unit:
    unit = waiting.popleft()
    _send(connection, unit)
    return unit


def _send(connection: Connection, what: Job | Unit) -> None:
    with contextlib.suppress(OSError):  # a worker that died is noticed when it should answer
        connection.send(what)


def _outcome(connection: Connection) -> Advance | ShardRecord:
    try:
        outcome: Message = connection.recv()
    except (EOFError, OSError):
        raise VnprepError(
            "a worker process died, most likely for want of memory",
            remedy="run the same command again with fewer --workers; what is done is kept",
        ) from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _work(connection: Connection) -> None:
    """Turn units into shards until the parent is no longer there."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Processes are the parallelism: threads below them would fight for the same cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    keep_pandas_out()
    warm_up()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent went away
        job: Job = connection.recv()
        tools: _Tools | None = None
        while True:
            unit: Unit = connection.recv()
            try:
                tools = tools or _Tools(job)
                outcome: Message = tools.make(unit, connection.send)
            except Exception as error:
                if not isinstance(error, VnprepError | OSError):
                    error.add_note(f"in a worker:\n{traceback.format_exc()}")
                outcome = error
            connection.send(outcome)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    wait([parent.sentinel])
    os._exit(1)
