"""Ctrl-C and SIGTERM: end at once, from any moment, without a traceback and without orphans.

Everything that vnprep writes is whole or not there, whenever it stops, so a program may simply
end. That is surer than an exception in the main thread, which has to wait for long calls into
compiled code, can be swallowed on its way, and prints a traceback from wherever it meets no one.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import NoReturn

#: Signals that end a program, with the word for each; the exit code is 128 + the number.
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_SHOW_CURSOR = "\x1b[?25h\n"
_LONGEST_START_SECONDS = 2.0

#: Held while a process is being started: if its parent ended just then, it would complain.
_starting = threading.Lock()
_clean_ups: list[Callable[[], object]] = []


def at_end(clean_up: Callable[[], object]) -> None:
    """Call a function when the program ends, of itself or by a signal; for what must not stay."""
    atexit.register(clean_up)
    _clean_ups.append(clean_up)


def watch() -> None:
    """Let a thread of its own end this program when it is asked to.

    To be called by a program before all else: threads and processes started later inherit that
    the signals are blocked, and so leave them to that thread. A signal that is ignored
    (``nohup``, a job in the background of a script) stays ignored.
    """
    heard = {number for number in _WORDS if signal.getsignal(number) is not signal.SIG_IGN}
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    for number in heard:
        signal.signal(number, lambda number, _: _end(signal.Signals(number)))  # see held_back
    threading.Thread(target=_wait, args=(heard,), daemon=True, name="signals").start()


def _wait(heard: set[signal.Signals]) -> None:
    number = signal.Signals(signal.sigwait(heard))
    # A start that hangs must not hold up the end for ever, hence the time limit.
    _starting.acquire(timeout=_LONGEST_START_SECONDS)
    _end(number)


def _end(number: signal.Signals) -> NoReturn:
    for child in multiprocessing.active_children():
        child.kill()
    for clean_up in _clean_ups:
        with contextlib.suppress(Exception):
            clean_up()
    cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
    message = f"{cursor}{_WORDS[number]}; run the same command again to finish\n"
    with contextlib.suppress(OSError):
        os.write(2, message.encode())
    os._exit(128 + number)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold the signals back while processes are started, which then never see one.

    Ctrl-C reaches the whole group, but the parent alone decides what it means; it gets what came
    meanwhile when the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(_WORDS))
    try:
        with _starting:
            # multiprocessing starts this process of its own beside the first worker, and then
            # *unblocks* the signals, whatever they were. Done here, that can be mended.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, set(_WORDS))
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
