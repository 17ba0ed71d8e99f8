"""Ctrl-C, SIGTERM and SIGKILL at any moment: a quick end, no traceback, no orphans."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Figures, Start, folder_hashes, orphans, session_members

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

#: The share of an undisturbed run after which the signal comes: imports, reading, starting of
#: workers, encoding, committing. The full sweep takes many more.
FEW = [0.35, 0.6, 0.85]
MANY = [number / 40 for number in range(40)]
LIMIT_SECONDS = 5.0

Send = Callable[[subprocess.Popen[str]], None]


def to_group(number: signal.Signals) -> Send:
    """A signal for every process, as the terminal sends Ctrl-C."""
    return lambda process: os.killpg(process.pid, number)


def to_parent(number: signal.Signals) -> Send:
    """A signal for the first process alone, as ``kill`` and a scheduler send it."""
    return lambda process: os.kill(process.pid, number)


@pytest.fixture
def command(tmp_path: Path, bpe_path: Path) -> list[object]:
    text = "".join(f"Bật quạt số {number} trong phòng ngủ\n" for number in range(60_000))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    shape = ("--split", "line", "--unit-mb", 1, "--workers", 2)
    return ["pretrain-text", tmp_path / "a.txt", "--tokenizer", bpe_path, *shape]


def wait_for_listener(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Wait until the program has taken over its signals; before that, they are Python's."""
    bit = 1 << (signal.SIGTERM - 1)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(status.split("SigBlk:")[1].split()[0], 16) & bit:
            return
        time.sleep(0.001)


def finish(process: subprocess.Popen[str]) -> None:
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages


SIGNALS = pytest.mark.parametrize(
    ("send", "code", "word"),
    [
        (to_group(signal.SIGINT), 130, "interrupted"),
        (to_parent(signal.SIGTERM), 143, "terminated"),
        (to_group(signal.SIGTERM), 143, "terminated"),
        (to_parent(signal.SIGKILL), -9, ""),
    ],
    ids=["ctrl-c", "sigterm", "sigterm-to-all", "sigkill"],
)


@SIGNALS
def test_a_signal_ends_everything_quietly(
    start: Start, command: list[object], tmp_path: Path, send: Send, code: int, word: str
) -> None:
    codes, _ = sweep(start, command, tmp_path, send, FEW, word)
    assert set(codes) <= {0, code} and code in codes, codes


@pytest.mark.faults
@SIGNALS
def test_a_signal_at_any_moment_ends_everything_quietly(
    start: Start,
    command: list[object],
    tmp_path: Path,
    send: Send,
    code: int,
    word: str,
    figures: Figures,
) -> None:
    codes, slowest = sweep(start, command, tmp_path, send, MANY, word)
    assert set(codes) <= {0, code} and codes.count(code) >= len(MANY) // 4, codes
    figures(
        f"{len(codes)} signals: {codes.count(code)} ended with {code}, {codes.count(0)} came "
        f"too late; slowest end {slowest:.2f} s; 0 tracebacks, 0 orphans; bytes equal at last"
    )


def sweep(
    start: Start,
    command: list[object],
    folder: Path,
    send: Send,
    moments: list[float],
    word: str,
) -> tuple[list[int], float]:
    """Send a signal after each share of an undisturbed run; return exit codes and slowest end."""
    whole, out = folder / "whole", folder / "out"
    began = time.monotonic()
    finish(start(*command, "--out", whole))
    usual = time.monotonic() - began
    codes, slowest = [], 0.0
    for moment in moments:
        process = start(*command, "--out", out)
        wait_for_listener(process)
        time.sleep(moment * usual)
        send(process)
        began = time.monotonic()
        _, messages = process.communicate(timeout=30)  # workers hold the same pipe
        slowest = max(slowest, time.monotonic() - began)
        assert slowest < LIMIT_SECONDS
        assert orphans(process.pid) == []
        assert not [bad for bad in ("Traceback", "Error", "Warning") if bad in messages], messages
        if process.returncode not in (0, -signal.SIGKILL):
            assert word in messages and "same command again" in messages
        codes.append(process.returncode)
        if process.returncode == 0:
            shutil.rmtree(out)  # it was too quick for the signal: the next begins afresh
    finish(start(*command, "--out", out))
    assert folder_hashes(out) == folder_hashes(whole)
    return codes, slowest


def test_a_worker_that_is_killed_ends_the_run_with_a_remedy(
    start: Start, command: list[object], tmp_path: Path
) -> None:
    process = start(*command, "--out", tmp_path / "out")
    deadline = time.monotonic() + 20
    while not (workers := workers_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    _, messages = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "a worker process died" in messages and "fewer --workers" in messages
    assert "Traceback" not in messages
    assert orphans(process.pid) == []


def workers_of(parent: int) -> list[int]:
    """Return the worker processes: spawned, and not the tracker that Python starts beside them."""
    found = []
    for member in session_members(parent):
        line = Path(f"/proc/{member}/cmdline").read_bytes()
        if member != parent and b"spawn_main" in line:
            found.append(member)
    return found


def test_an_ignored_ctrl_c_stays_ignored(command: list[object], tmp_path: Path) -> None:
    """A script's background job ignores Ctrl-C, which is meant for the job in the foreground."""
    program = [sys.executable, "-m", "vnprep", *map(str, command), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        program,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    wait_for_listener(process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 0
