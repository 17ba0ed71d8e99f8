"""Two runs into one folder: one works, the other is told who holds it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Figures, Start, folder_hashes


@pytest.fixture
def command(tmp_path: Path, bpe_path: Path) -> list[object]:
    text = "".join(f"Bật quạt số {number} trong phòng ngủ\n" for number in range(2_000))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    shape = ("--split", "line", "--workers", 1)
    return ["pretrain-text", tmp_path / "a.txt", "--tokenizer", bpe_path, *shape]


def race(start: Start, commands: list[list[object]], out: Path) -> list[int]:
    """Start commands at once; check what each says; return their exit codes."""
    processes = [start(*command, "--out", out) for command in commands]
    ends = [process.communicate(timeout=60)[1] for process in processes]
    pids = {str(process.pid) for process in processes}
    for process, messages in zip(processes, ends, strict=True):
        assert "Traceback" not in messages
        if process.returncode:
            holder = re.search(r"another vnprep run is writing here(?: \(process (\d+))?", messages)
            assert holder, messages
            assert holder[1] is None or holder[1] in pids
    return [process.returncode for process in processes]


def test_of_runs_started_at_the_same_time_one_works(
    start: Start, command: list[object], tmp_path: Path
) -> None:
    run_races(start, command, tmp_path, 3)


@pytest.mark.faults
def test_of_many_runs_started_at_the_same_time_one_works(
    start: Start, command: list[object], tmp_path: Path, figures: Figures
) -> None:
    refused, worked = run_races(start, command, tmp_path, 30)
    figures(f"30 races of 3 runs: {worked} worked or found it finished, {refused} refused")


def run_races(start: Start, command: list[object], folder: Path, races: int) -> tuple[int, int]:
    """Race three runs, the last with --overwrite; return how many were refused and worked."""
    process = start(*command, "--out", folder / "whole")
    process.communicate(timeout=60)
    refused = 0
    for number in range(races):
        out = folder / f"out{number}"
        codes = race(start, [command, command, [*command, "--overwrite"]], out)
        assert 0 in codes and set(codes) <= {0, 1}
        refused += codes.count(1)
        assert folder_hashes(out) == folder_hashes(folder / "whole")
    return refused, 3 * races - refused


def test_overwrite_and_append_do_not_touch_a_run_that_is_going_on(
    start: Start, command: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(*command, "--out", out)
    wait_until_it_works(process, out)
    os.kill(process.pid, signal.SIGSTOP)
    before = folder_hashes(out)
    for option in ("--overwrite", "--append"):
        other = start(*command, option, "--out", out)
        _, messages = other.communicate(timeout=60)
        assert other.returncode == 1
        assert f"another vnprep run is writing here (process {process.pid} on " in messages
        assert folder_hashes(out) == before
    os.kill(process.pid, signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0


def wait_until_it_works(process: subprocess.Popen[str], out: Path) -> None:
    deadline = time.monotonic() + 30
    while not (out / ".work" / "identity.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.0005)
