"""What the tests of faults share: folders by their hashes, processes as the system sees them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import server, staged, workshop
from vnprep.durable import sha256_file

__all__ = ["server", "staged", "workshop"]  # fixtures

Start = Callable[..., subprocess.Popen[str]]
Figures = Callable[[str], None]


def folder_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def session_members(session: int) -> list[int]:
    """Return the live processes of a session; a zombie is dead already."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def orphans(session: int, patience: float = 1.0) -> list[int]:
    """Return what is left of a session; the system is given a moment to take the dead down."""
    deadline = time.monotonic() + patience
    while (left := session_members(session)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


@pytest.fixture
def start() -> Start:
    """Return ``start(*arguments)`` → the program ``vnprep``, in a session of its own."""

    def run(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "vnprep", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # It is ignored where the tests themselves run in the background of a script.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={**os.environ, "PYTHONFAULTHANDLER": ""},
        )

    return run


@pytest.fixture
def figures(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Figures:
    """Return ``figures(line)``, which shows a line whether or not output is captured."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {request.node.name}: {line}", flush=True)

    return show
