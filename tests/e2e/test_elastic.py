"""Runs that continue on other ranks, under another ZeRO stage, or in another precision."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from export import main as export_script
from modeling.weights import load_model
from trainer.metrics import read_metrics
from trainer.runmodel import model_from_checkpoint, model_weights
from vnprep.errors import TrainingError

pytestmark = pytest.mark.e2e

if TYPE_CHECKING:
    from conftest import Server, Workshop

CONFIGS = Path(__file__).parents[2] / "ds_configs"
#: Optimizer steps of the runs that ``Workshop.pretraining`` describes, and rows of each.
STEPS, ROWS = 12, 8


def back_to(run: Path, out: Path, step: int) -> None:
    """Make a run that was stopped after a step, out of one that has ended."""
    shutil.copytree(run, out)
    shutil.rmtree(out / "model")
    for path in (out / "checkpoints").glob("step-*"):
        if path.name > f"step-{step:08d}":
            shutil.rmtree(path)


#: Where a run under a stage on two ranks goes on: stage, ranks, and what the user says of rows.
CHANGES = [
    (0, 3, 4, {}),
    (3, 1, 1, {}),
    (1, 2, 4, {}),
    (2, 0, 1, {"accumulation": 2}),
    (1, 3, 2, {"micro_batch": 2}),
]


@pytest.mark.parametrize(("before", "after", "ranks", "given"), CHANGES)
def test_a_run_goes_on_with_other_ranks_and_another_stage(
    server: Server,
    staged: dict[int, Path],
    workshop: Workshop,
    before: int,
    after: int,
    ranks: int,
    given: dict[str, int],
) -> None:
    """The same command but for the launcher's ranks and the DeepSpeed file."""
    out = workshop.folder / f"from{before}to{after}on{ranks}"
    back_to(staged[before], out, 5)
    arguments = workshop.pretraining(out, workshop.config(after), **given)
    result = server.run(ranks, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert "continuing after step 5 " in result.text
    assert f"written by 2 ranks under ZeRO stage {before} in fp32" in result.text
    asked = {"micro_batch": 4, "accumulation": 1} | given
    if asked["micro_batch"] * asked["accumulation"] * ranks != ROWS:
        assert f"a step of this run has {ROWS} rows: on " in result.text
    curve, reference = workshop.losses(out), workshop.losses(staged[before])
    assert curve[:5] == reference[:5]
    assert curve[5] == pytest.approx(reference[5], abs=1e-6)
    assert curve == pytest.approx(reference, abs=1e-5)
    # The moments came along, too: without them the curve is another one.
    norms = [
        [row["grad_norm"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
        for run in (out, staged[before])
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3_offload"])
def test_a_resumed_bf16_run_is_bit_identical(server: Server, workshop: Workshop, name: str) -> None:
    whole, out = (workshop.folder / f"{kind}-{name}" for kind in ("whole", "resumed"))
    arguments = workshop.pretraining(whole, CONFIGS / f"{name}.json", keep_last=9)
    assert server.run(2, "pretrain.py", *arguments).code == 0
    back_to(whole, out, 5)
    arguments = workshop.pretraining(out, CONFIGS / f"{name}.json", keep_last=9)
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert "continuing after step 5 " in result.text and "written by" not in result.text
    assert workshop.losses(out) == workshop.losses(whole)
    ends = [run / "model/model.safetensors" for run in (whole, out)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    states = [
        sorted((run / "checkpoints" / f"step-{STEPS:08d}" / "state").iterdir())
        for run in (whole, out)
    ]
    assert [path.read_bytes() for path in states[0]] == [path.read_bytes() for path in states[1]]


def test_the_precision_may_change_and_the_weights_stay(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "to-bf16"
    back_to(staged[1], out, 10)
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, CONFIGS / "zero3.json"))
    assert result.code == 0, result.text
    assert "now 2 ranks under ZeRO stage 3 in bf16" in result.text
    # Rounded for the pass, the same weights give nearly the same loss.
    assert workshop.losses(out) == pytest.approx(workshop.losses(staged[1]), abs=0.02)
    # The last step has a learning rate of 0: the fp32 weights of its checkpoint are not rounded.
    weights = model_weights(out / "checkpoints" / f"step-{STEPS:08d}")
    assert any((w != w.bfloat16().float()).any() for w in weights.values())


def test_ranks_that_cannot_share_the_rows_are_told_which_can(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "three"
    back_to(staged[1], out, 5)
    result = server.run(3, "pretrain.py", *workshop.pretraining(out, workshop.config(1)))
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "has 8 packed rows, which 3 ranks cannot share evenly" in result.text
    assert "continue on 1, 2, 4 or 8 ranks" in result.text
    explicit = workshop.pretraining(out, workshop.config(1), accumulation=2)
    result = server.run(2, "pretrain.py", *explicit)
    assert result.code == 1
    assert "rows_per_step: 8 there, 16 here" in result.text, result.text


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_checkpoint_is_a_model(staged: dict[int, Path], stage: int) -> None:
    """What the run wrote at its end can be had from the last checkpoint, by the folder alone."""
    loaded, end = model_from_checkpoint(staged[stage]), load_model(staged[stage])
    for name, tensor in end.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert (loaded.config, loaded.special, loaded.stage) == (end.config, end.special, end.stage)
    assert loaded.tokenizer().fingerprint == end.fingerprint
    earlier = model_from_checkpoint(staged[stage], 5).model.state_dict()
    written = load_file(staged[stage] / "model/model.safetensors")
    assert not torch.equal(earlier["model.norm.weight"], written["model.norm.weight"])
    with pytest.raises(TrainingError, match=r"no checkpoint of step 7\n  remedy: there are 5, 10"):
        model_from_checkpoint(staged[stage], 7)


def test_a_checkpoint_is_exported_as_the_end_of_the_run_is(
    staged: dict[int, Path], tmp_path: Path
) -> None:
    def export(out: Path, *options: str) -> dict[str, torch.Tensor]:
        done = CliRunner().invoke(export_script, [str(staged[3]), "--out", str(out), *options])
        assert done.exit_code == 0, done.output
        return load_file(out / "model.safetensors")

    end = export(tmp_path / "end")
    newest = export(tmp_path / "newest", "--checkpoint", "newest")
    earlier = export(tmp_path / "earlier", "--checkpoint", "5")
    assert newest.keys() == end.keys()
    assert all(torch.equal(newest[name], end[name]) for name in end)
    assert not torch.equal(earlier["model.norm.weight"], end["model.norm.weight"])
    wrong = CliRunner().invoke(
        export_script, [str(staged[3]), "--out", str(tmp_path / "x"), "--checkpoint", "7"]
    )
    assert wrong.exit_code == 1 and "no checkpoint of step 7" in wrong.output
