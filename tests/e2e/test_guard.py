"""Steps that go wrong under real DeepSpeed: skipped, logged, counted, and nothing changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from trainer.metrics import read_metrics

pytestmark = pytest.mark.e2e

if TYPE_CHECKING:
    from conftest import Ranks, Result, Server, Workshop

SCRIPT = Path(__file__).with_name("poisoned.py")
STEPS = 10
PLANTED = {"4": "nan", "6": "spike", "7": "inf", "9": "loss"}


def start(
    server: Server, out: Path, planted: dict[str, str], ranks: int, *arguments: object
) -> Ranks:
    """Start a poisoned run on some ranks."""
    variables = {"PLANTED": json.dumps(planted), "DIGESTS": str(out.with_name(out.name + "-seen"))}
    return server.start(ranks, str(SCRIPT), *arguments, **variables)


def run(
    server: Server, out: Path, planted: dict[str, str], ranks: int, *arguments: object
) -> Result:
    return server.finish(start(server, out, planted, ranks, *arguments))


def arguments(workshop: Workshop, out: Path, config: Path, **changes: object) -> list[object]:
    values: dict[str, object] = {"steps": STEPS, "eval_every": 0, "sample_every": 0}
    values |= {"save_every": 0, "max_bad_steps": 3}
    return [*workshop.pretraining(out, config, **(values | changes)), "--no-tensorboard"]


def steps_of(out: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(out / "metrics.jsonl") if "loss" in row]


def bf16(workshop: Workshop, stage: int) -> Path:
    """``zero1.json`` at another stage."""
    path = workshop.folder / f"bf16-stage{stage}.json"
    content = json.loads((workshop.config_folder / "zero1.json").read_text())
    content["zero_optimization"]["stage"] = stage
    if stage == 0:  # all that DeepSpeed 0.19 takes there
        content["data_types"]["grad_accum_dtype"] = "bf16"
    path.write_text(json.dumps(content))
    return path


CONFIGS = [
    "fp32 0",
    "fp32 1",
    "fp32 2",
    "fp32 3",
    "bf16 0",
    "bf16 1",
    "bf16 2",
    "bf16 3",
    "offload",
]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_step_changes_nothing(server: Server, workshop: Workshop, name: str) -> None:
    kind, _, stage = name.partition(" ")
    if kind == "offload":
        config = workshop.config_folder / "zero3_offload.json"
    else:
        config = workshop.config(int(stage)) if kind == "fp32" else bf16(workshop, int(stage))
    out = workshop.folder / f"bad-{kind}{stage}"
    # The one rank that goes wrong is not the one that reports.
    planted = PLANTED | {"rank": "1"}
    result = run(server, out, planted, 2, *arguments(workshop, out, config))
    assert result.code == 0, result.text
    rows = steps_of(out)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    skipped = {str(row["step"]): row["skipped"] for row in rows if row["skipped"]}
    # DeepSpeed says "inf" of any norm that is no number.
    assert skipped == {"4": "grad_norm", "6": "spike", "7": "grad_norm", "9": "loss"}
    assert [row["skipped_steps"] for row in rows] == [0, 0, 0, 1, 1, 2, 3, 3, 4, 4]
    assert rows[3]["grad_norm"] in ("inf", "nan") and rows[8]["loss"] == "nan"
    assert all(isinstance(rows[place]["loss"], float) for place in (3, 5, 6))
    assert len({n for row in rows for n in row["sample_ids"]}) == 8 * STEPS
    assert result.text.count("warning: step ") == 4, result.text
    for rank in (0, 1):
        lines = (workshop.folder / f"{out.name}-seen/{rank}.jsonl").read_text().splitlines()
        seen = [json.loads(line) for line in lines]
        changed = {str(each["step"]) for each in seen if each["before"] != each["after"]}
        # The last step's rate is 0, but its gradient still moves the moments.
        assert changed == {str(n) for n in range(1, STEPS + 1)} - PLANTED.keys()
        for each, following in pairwise(seen):
            assert each["after"] == following["before"]


def test_a_run_resumes_exactly_across_a_skipped_step(server: Server, workshop: Workshop) -> None:
    """Step 6 is a spike beside the norms of steps 1 to 5, which only the checkpoint knows."""
    whole, resumed = workshop.folder / "skip-whole", workshop.folder / "skip-resumed"
    config, planted = workshop.config(1), {"4": "inf", "6": "spike"}
    options: dict[str, Any] = {"save_every": 4}
    result = run(server, whole, planted, 2, *arguments(workshop, whole, config, **options))
    assert result.code == 0, result.text
    assert [row["step"] for row in steps_of(whole) if row["skipped"]] == [4, 6]
    shutil.copytree(whole, resumed)
    for name in ("step-00000008", "step-00000010"):
        shutil.rmtree(resumed / "checkpoints" / name)
    result = run(server, resumed, planted, 2, *arguments(workshop, resumed, config, **options))
    assert result.code == 0, result.text
    assert "continuing after step 4 " in result.text
    for row, expected in zip(steps_of(resumed), steps_of(whole), strict=True):
        for name in ("loss", "grad_norm", "skipped", "skipped_steps", "sample_ids", "lr"):
            assert row[name] == expected[name]
    weights = [path / "model/model.safetensors" for path in (whole, resumed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_too_many_bad_steps_in_a_row_end_the_run(server: Server, workshop: Workshop) -> None:
    out = workshop.folder / "too-many"
    planted = {"3": "inf", "4": "inf", "6": "nan", "7": "loss", "8": "inf"}
    options: dict[str, Any] = {"save_every": 2}
    result = run(server, out, planted, 2, *arguments(workshop, out, workshop.config(2), **options))
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "3 steps in a row were skipped, the last because" in result.text
    assert "Traceback" not in result.text
    # Steps 3 and 4 were two in a row; step 5 was good; 6, 7, 8 were three.
    assert [row["step"] for row in steps_of(out) if row["skipped"]] == [3, 4, 6, 7, 8]
    assert workshop.checkpoints(out) == ["step-00000002", "step-00000004", "step-00000006"]
    assert (out / "loss.png").is_file() and not (out / "model").exists()


@pytest.mark.parametrize("stage", [1, 3])
def test_samples_change_nothing_and_sigterm_ends_them(
    server: Server, workshop: Workshop, stage: int
) -> None:
    """Every rank writes with the others; one rank alone gets SIGTERM in the middle of it."""
    plain, out = workshop.folder / f"plain{stage}", workshop.folder / f"sampled{stage}"
    config = workshop.config(stage)
    if stage == 3:
        content = json.loads(config.read_text())
        content["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        config = workshop.folder / "gathered.json"
        config.write_text(json.dumps(content))
    result = run(server, plain, {}, 2, *arguments(workshop, plain, config))
    assert result.code == 0, result.text
    sampled = arguments(workshop, out, config, sample_every=2, sample_tokens=5)
    result = run(server, out, {"sampling 4": "1"}, 2, *sampled)
    assert result.code == 143, result.text
    assert "stopped after step 4 of 10" in result.text
    assert workshop.checkpoints(out) == ["step-00000004"] and (out / "loss.png").is_file()
    assert {row["step"] for row in read_metrics(out / "samples.jsonl")} == {2}
    result = run(server, out, {}, 2, *sampled)
    assert result.code == 0, result.text
    samples = read_metrics(out / "samples.jsonl")
    assert [row["step"] for row in samples] == [n for n in (2, 4, 6, 8, 10) for _ in range(3)]
    assert all(row["text"] and row["prompt"] for row in samples)
    assert [row["loss"] for row in steps_of(out)] == [row["loss"] for row in steps_of(plain)]


def test_an_empty_micro_batch_changes_nothing(
    server: Server, workshop: Workshop, make_data: Callable[..., Path]
) -> None:
    """Four packed rows: the second of two ranks has a micro-batch of empty rows, or there is none.

    Under every ZeRO stage, losses, gradient norms and weights are those of one rank.
    """
    data = make_data(workshop.folder / "four", [[[4 + n] * (31 - n)] for n in range(4)], "pretrain")
    found = {}
    for ranks, stage in ((1, 1), (2, 0), (2, 1), (2, 2), (2, 3)):
        out = workshop.folder / f"empty-{ranks}-{stage}"
        options: dict[str, Any] = {"data": data, "steps": 3}
        result = run(
            server, out, {}, ranks, *arguments(workshop, out, workshop.config(stage), **options)
        )
        assert result.code == 0, result.text
        found[ranks, stage] = steps_of(out), load_file(out / "model/model.safetensors")
    reference, weights = found.pop((1, 1))
    assert [len(row["sample_ids"]) for row in reference] == [4, 4, 4]
    for rows, state in found.values():
        for row, expected in zip(rows, reference, strict=True):
            assert row["sample_ids"] == expected["sample_ids"]
            assert (row["tokens"], row["skipped"]) == (expected["tokens"], None)
            for name in ("loss", "grad_norm"):
                assert row[name] == pytest.approx(expected[name], abs=1e-6)
        for name, tensor in weights.items():
            torch.testing.assert_close(state[name], tensor, atol=1e-6, rtol=0)
