"""A dry run: as exact as a real one in what it refuses, and it leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Workshop, clean_environment

pytestmark = pytest.mark.e2e


def dry(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = ROOT / "train" / "pretrain.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments), "--dry-run"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_says_what_the_run_would_be_and_writes_nothing(
    workshop: Workshop, tmp_path: Path
) -> None:
    line = workshop.pretraining(tmp_path / "run", workshop.config(2))
    done = dry(*line, "--ranks", 4, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["steps"], facts["ranks"], facts["zero_stage"]) == (12, 4, 2)
    assert facts["positions_per_step"] == 4 * 4 * 32
    assert facts["tokens"] == facts["supervised_tokens"] <= facts["packed_rows"] * 32
    per_rank = facts["rank_bytes"]
    assert per_rank["0"] > per_rank["2"] > per_rank["3"] > facts["activation_bytes"]
    assert not (tmp_path / "run").exists()


def test_it_refuses_what_a_run_refuses(workshop: Workshop, tmp_path: Path) -> None:
    line = workshop.pretraining(tmp_path / "run", workshop.config(1), warmup=50)
    done = dry(*line)
    assert done.returncode == 1
    assert "50 steps of warm-up in a run of 12" in done.stderr
