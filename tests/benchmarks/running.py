"""Run a side as a child process: seconds, start-up included, and the memory of its largest part."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Prints the peak memory of the largest process below it, in KiB, and passes its exit code on.
_WATCH = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as out:
    out.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


@dataclass
class Side:
    """One side of a comparison.

    Attributes:
        name: as the table calls it.
        command: what to run; ``{out}`` is a path that does not exist yet.
        seconds: of each round.
        peak_mib: of each round.
    """

    name: str
    command: Sequence[str]
    seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the rounds, in seconds."""
        return statistics.median(self.seconds)

    def run(self, show: bool = False) -> None:
        """Run it once more.

        Raises:
            RuntimeError: it failed.
        """
        import time

        with tempfile.TemporaryDirectory() as folder:
            command = [part.replace("{out}", f"{folder}/out") for part in self.command]
            peak = Path(folder) / "peak"
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _WATCH, str(peak), *command], capture_output=True, text=True
            )
            self.seconds.append(time.perf_counter() - began)
            if done.returncode:
                raise RuntimeError(f"{self.name} failed:\n{done.stdout}\n{done.stderr}")
            self.peak_mib.append(int(peak.read_text()) / 1024)
            if show:
                print(done.stderr, file=sys.stderr)


def run_rounds(sides: Sequence[Side], rounds: int) -> None:
    """Run every side in turn, several times, so that a slow spell of the machine hits all."""
    for number in range(rounds):
        for side in sides:
            print(f"round {number + 1} of {rounds}: {side.name}", file=sys.stderr, flush=True)
            side.run()
