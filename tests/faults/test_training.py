"""Training that is killed or finds no room at every call of a save, and at any moment."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import CONFIGS, Ranks, Server, Workshop
from tests.faults.conftest import Figures
from tests.faults.tracing import CHANGING, why_not
from trainer.metrics import read_metrics

pytestmark = pytest.mark.faults

_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")
KILL, FULL = "signal=SIGKILL", "error=ENOSPC"
STEPS = 4
#: Runs that are killed again and again until they end.
TORTURED = 4

needs_strace = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def arguments(workshop: Workshop, out: Path, stage: int, **changes: object) -> list[object]:
    changes = {"steps": STEPS, "save_every": 1, "keep_last": 1, "eval_every": 0, **changes}
    return workshop.pretraining(out, workshop.config(stage), **changes)


def trace(ranks: Ranks, log: Path, *options: str) -> subprocess.Popen[str]:
    """Attach strace to rank 0, which has its own start before it: it saves a second later."""
    command = ["strace", "-f", "-y", "-p", str(ranks.processes[0]), "-o", str(log)]
    command += ["-e", f"trace=?{',?'.join(CHANGING)}", "-e", "signal=none", *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    return tracer


def calls_of_a_save(log: Path, out: Path, step: int) -> tuple[list[str], Counter[str]]:
    """Return the paths of a save, and how often each call touches one of them in rank 0."""
    lines = [_LINE.match(line) for line in log.read_text(errors="replace").splitlines()]
    root = f"{out}/checkpoints"
    mine = [match for match in lines if match and f"{root}/step-{step:08d}" in match[3]]
    found = {path for match in mine for path in re.findall(rf"{root}/[^\s\">,]*", match[3])}
    # ``commit.json`` is written beside its name, with the number of the process in it.
    steady = sorted(path for path in found if not re.search(r"\.json\.\d+\.tmp", path))
    counts: Counter[str] = Counter()
    for match in mine:
        if any(f'"{path}"' in match[3] or f"<{path}>" in match[3] for path in steady):
            counts[match[2]] += 1
    return steady, counts


@needs_strace
@pytest.mark.parametrize(("what", "stage"), [(KILL, 1), (FULL, 3)])
def test_a_save_is_cut_short_at_every_call(
    server: Server,
    workshop: Workshop,
    tmp_path: Path,
    figures: Figures,
    stage: int,
    what: str,
) -> None:
    reference, log = tmp_path / "reference", tmp_path / "strace.log"
    ranks = server.start(2, "pretrain.py", *arguments(workshop, reference, stage))
    tracer = trace(ranks, log)
    assert server.finish(ranks).code == 0
    tracer.communicate()
    paths, counts = calls_of_a_save(log, reference, 3)
    assert counts["write"] and counts["fsync"] and (counts["rename"] or counts["renameat"])
    ended: Counter[str] = Counter()
    for name, count in sorted(counts.items()):
        for number in range(1, count + 1):
            out = tmp_path / "out"
            shutil.rmtree(out, ignore_errors=True)
            there = [path.replace(str(reference), str(out)) for path in paths]
            options = [part for path in there for part in ("-P", path)]
            fault = f"inject={name}:{what}:when={number}"
            ranks = server.start(2, "pretrain.py", *arguments(workshop, out, stage))
            tracer = trace(ranks, log, *options, "-e", fault)
            codes = server.wait(ranks)
            tracer.communicate()
            text = "".join(path.read_text() for path in ranks.errors)
            assert "Traceback" not in text, (name, number, text)
            if what == KILL and codes != [0, 0]:
                assert codes == [-signal.SIGKILL, 1], (name, number, text)
                assert text.count("error: ") == 1, (name, number, text)
            elif codes != [0, 0]:
                assert codes == [1, 1] and text.count("error: ") == 1, (name, number, text)
                assert "No space left on device" in text and "remedy: " in text
            ended["undisturbed" if codes == [0, 0] else "cut short"] += 1
            if codes != [0, 0]:
                result = server.run(2, "pretrain.py", *arguments(workshop, out, stage))
                assert result.code == 0, (name, number, result.text)
                assert "continuing after step " in result.text, (name, number)
            same_end(out, reference)
    figures(f"{dict(counts)} under {what}: {dict(ended)}, each with the same end")
    assert ended["cut short"] > 10


def same_end(out: Path, reference: Path) -> None:
    """See that two runs had the same losses, bit for bit, and left the same weights."""
    rows = [
        [row["loss"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
        for run in (out, reference)
    ]
    assert rows[0] == rows[1] and rows[0]
    ends = [run / "model/model.safetensors" for run in (out, reference)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert not list((out / "checkpoints").glob("*.tmp"))


def test_a_run_killed_at_random_until_it_ends(
    server: Server, workshop: Workshop, tmp_path: Path, figures: Figures
) -> None:
    """One rank or both, at any moment after the engine is built, on one of the stages.

    Before, the other rank may wait half an hour for it: DeepSpeed makes groups of its own then, and
    a group that is being made has no connection yet whose end could tell.
    """
    rng, kills, runs = random.Random(5), 0, 0
    for number in range(TORTURED):
        stage, out = number % 4, tmp_path / f"run{number}"
        given = arguments(workshop, out, stage, steps=40)
        reference = tmp_path / f"reference{stage}"
        if not reference.exists():
            server.run(2, "pretrain.py", *arguments(workshop, reference, stage, steps=40))
        while True:
            runs += 1
            ranks = server.start(2, "pretrain.py", *given)
            while " M parameters" not in ranks.errors[0].read_text():
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 3.0))
            victims = rng.choice([[0], [1], [0, 1]])
            for rank in victims:
                os.kill(ranks.processes[rank], signal.SIGKILL)  # a zombie takes it, too
            codes = server.wait(ranks)
            text = "".join(path.read_text() for path in ranks.errors)
            assert "Traceback" not in text, text
            if codes == [0, 0]:
                break
            kills += 1
        same_end(out, reference)
    figures(f"{TORTURED} runs killed {kills} times over {runs} starts, each with the same end")
    assert kills >= 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a checkpoint and a half."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full(
    server: Server, workshop: Workshop, small_disk: Path, tmp_path: Path
) -> None:
    reference = tmp_path / "reference"
    assert server.run(2, "pretrain.py", *arguments(workshop, reference, 1)).code == 0
    out = small_disk / "run"
    result = server.run(2, "pretrain.py", *arguments(workshop, out, 1))
    assert result.code == 1
    assert result.text.count("error: ") == 1 and "Traceback" not in result.text, result.text
    assert "No space left on device" in result.text
    assert workshop.checkpoints(out) == ["step-00000001"]
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    result = server.run(2, "pretrain.py", *arguments(workshop, out, 1))
    assert result.code == 0, result.text
    same_end(out, reference)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_every_stage_continues_every_other_on_other_ranks(
    server: Server, workshop: Workshop, staged: dict[int, Path], before: int, figures: Figures
) -> None:
    worst = 0.0
    for after in (0, 1, 2, 3):
        for ranks in (1, 4):
            out = workshop.folder / f"sweep{before}{after}{ranks}"
            shutil.copytree(staged[before], out)
            for step in (10, 12):
                shutil.rmtree(out / f"checkpoints/step-{step:08d}")
            given = workshop.pretraining(out, workshop.config(after))
            result = server.run(ranks, "pretrain.py", *given)
            assert result.code == 0, result.text
            assert "continuing after step 5 " in result.text
            curve, reference = workshop.losses(out), workshop.losses(staged[before])
            assert curve[5] == pytest.approx(reference[5], abs=1e-6), (after, ranks)
            assert curve == pytest.approx(reference, abs=1e-5), (after, ranks)
            worst = max(worst, abs(curve[5] - reference[5]))
    figures(f"8 changes, first loss off by at most {worst:.1e}")


def test_two_ranks_become_three(server: Server, workshop: Workshop, tmp_path: Path) -> None:
    """Twelve rows: six a rank before, four after; the cuts of the parameters fall elsewhere."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    given = {"steps": 8, "micro_batch": 6, "save_every": 4, "keep_last": 9}
    assert server.run(2, "pretrain.py", *arguments(workshop, whole, 3, **given)).code == 0
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints/step-00000008")
    result = server.run(3, "pretrain.py", *arguments(workshop, out, 2, **given))
    assert result.code == 0, result.text
    assert "on 3 ranks that is micro-batch 4 × accumulation 1 (asked for: 6 × 1)" in result.text
    assert workshop.losses(out)[4] == pytest.approx(workshop.losses(whole)[4], abs=1e-6)
    assert workshop.losses(out) == pytest.approx(workshop.losses(whole), abs=1e-5)


def zero(stage: int, **settings: object) -> dict[str, object]:
    return {"zero_optimization": {"stage": stage, "overlap_comm": False, **settings}}


CPU = {"device": "cpu", "pin_memory": False}
#: DeepSpeed settings under which it keeps weights and state in other ways.
UNUSUAL: dict[str, dict[str, object]] = {
    "round_robin": zero(2, round_robin_gradients=True),
    "offload_1": zero(1, offload_optimizer=CPU),
    "offload_2": zero(2, offload_optimizer=CPU, round_robin_gradients=True),
    "sub_groups": zero(3, sub_group_size=3000),
    "persistent": zero(3, stage3_param_persistence_threshold=100_000),
    "offload_3": zero(3, sub_group_size=3000, offload_optimizer=CPU, offload_param=CPU),
    "bf16_stage_0": {"bf16": {"enabled": True}, "data_types": {}, **zero(0)},
    "bf16_sums_1": {"bf16": {"enabled": True}, "data_types": {}, **zero(1)},
    "hook_sums_1": {"bf16": {"enabled": True, "immediate_grad_update": True}, **zero(1)},
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_settings_resume_bit_for_bit_and_hand_over(
    server: Server, workshop: Workshop, tmp_path: Path, name: str
) -> None:
    config = tmp_path / "ds.json"
    content = json.loads((CONFIGS / "cpu.json").read_text()) | UNUSUAL[name]
    config.write_text(json.dumps(content))
    whole, out, other = (tmp_path / kind for kind in ("whole", "out", "other"))
    given = {"keep_last": 9, "save_every": 5, "eval_every": 0}
    result = server.run(2, "pretrain.py", *workshop.pretraining(whole, config, **given))
    assert result.code == 0, result.text
    for run in (out, other):
        shutil.copytree(whole, run)
        for step in (10, 12):
            shutil.rmtree(run / f"checkpoints/step-{step:08d}")
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, config, **given))
    assert result.code == 0, result.text
    same_end(out, whole)
    handed = workshop.pretraining(other, workshop.config(3), **given)
    result = server.run(1, "pretrain.py", *handed)
    assert result.code == 0, result.text
    exact = "bf16" not in UNUSUAL[name]
    assert workshop.losses(other) == pytest.approx(
        workshop.losses(whole), abs=1e-5 if exact else 0.05
    )
