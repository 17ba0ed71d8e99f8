"""Run the project's commands one after another, showing each, as a user would type them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

#: Two processes on CPU, whatever else the machine has: the same run everywhere.
LAUNCH = ("deepspeed", "--num_accelerators", "2")


class StepFailed(Exception):
    """A command exited with an error of its own, which it has printed."""


def run(*command: str | Path, capture: bool = False) -> str:
    """Run a command in the project's folder and show it with the seconds it took.

    Args:
        command: its words; programs come from this environment first.
        capture: return what it prints on stdout instead of showing it.

    Raises:
        StepFailed: it exited with anything but 0.
    """
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    began = time.monotonic()
    result = subprocess.run(
        words,
        cwd=ROOT,
        env=_environment(),
        text=True,
        stdout=subprocess.PIPE if capture else None,
        check=False,
    )
    if result.returncode:
        raise StepFailed(f"{words[0]} exited with {result.returncode}")
    print(f"  [{time.monotonic() - began:.1f} s]", flush=True)
    return result.stdout or ""


def _environment() -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}


def validation_curve(run_folder: Path) -> list[tuple[int, float]]:
    """Return (step, perplexity) of every evaluation in a run's ``metrics.jsonl``."""
    with (run_folder / "metrics.jsonl").open(encoding="utf-8") as lines:
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [
        (record["step"], record["valid_perplexity"])
        for record in records
        if "valid_perplexity" in record
    ]


def main(program: Any, arguments: Sequence[str] = ()) -> None:
    """Run a program that returns its exit code; a failed step exits 1."""
    try:
        sys.exit(program(*arguments))
    except StepFailed as error:
        print(f"\nstopped: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
