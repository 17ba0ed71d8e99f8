"""The benchmark of training speed still runs; its figures are nobody's business here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).with_name("train_speed.py")


@pytest.mark.parametrize("supervised", [1.0, 0.4])
def test_every_side_runs(supervised: float) -> None:
    small = ["--rounds", "1", "--steps", "1", "--micro-batch", "2", "--seq-len", "128"]
    line = [*small, "--vocab-size", "2048", "--supervised", str(supervised), "--json"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *line, "--peak-tflops", "0.1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert facts["failed"] == {}
    assert facts["tokens_per_s"].keys() == {"deepspeed", "plain", "transformers"}
    assert all(share > 0 for share in facts["mfu"].values())
    assert 0 <= facts["data_wait"] < 1
    memory = facts["head"]["mib"]
    assert 0 < memory["chunked"] < memory["full"]
