"""The command line of the training scripts: parsed without torch, helpful when wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from finetune import finetune
from pretrain import pretrain
from trainer.options import TrainOptions
from trainer.schedule import Warmup

REQUIRED = ["--data", "d", "--out", "o", "--deepspeed_config", "c.json"]
TRAIN = Path(__file__).parents[3] / "train"


def parse(command: click.Command, *arguments: str) -> TrainOptions:
    """Return what a command line means, without training."""
    context = command.make_context("script", [*REQUIRED, *arguments])
    stage = "pretrain" if command is pretrain else "finetune"
    return TrainOptions.collect(stage, context.params)  # type: ignore[arg-type]


def test_the_defaults_of_each_stage() -> None:
    pre = parse(pretrain, "--model", "tiny")
    fine = parse(finetune, "--init", "runs/pre")
    assert (pre.epochs, pre.steps, pre.lr, pre.model, pre.init) == (1, None, 1e-3, "tiny", None)
    assert (fine.epochs, fine.lr, fine.model, fine.init) == (3, 3e-4, None, Path("runs/pre"))
    assert pre.warmup == Warmup(0.05, is_share=True)
    assert pre.betas == (0.9, 0.95)
    assert pre.resume == "auto"
    assert (pre.spike_factor, fine.spike_factor, pre.max_bad_steps) == (20.0, 100.0, 10)


def test_what_is_seen_of_a_run() -> None:
    plain = parse(pretrain, "--model", "tiny")
    assert (plain.sample_prompt, plain.sample_prompts, plain.sample_every) == ((), None, None)
    assert plain.tensorboard and plain.peak_tflops is None
    asked = parse(pretrain, "--model", "tiny", "--sample-prompt", "a", "--sample-prompt", "b c")
    assert asked.sample_prompt == ("a", "b c")
    wishes = ("--no-tensorboard", "--peak-tflops", "989", "--spike-factor", "0")
    some = parse(pretrain, "--model", "tiny", *wishes, "--max-bad-steps", "3")
    assert not some.tensorboard
    assert (some.peak_tflops, some.spike_factor, some.max_bad_steps) == (989.0, 0.0, 3)


def test_what_the_launcher_adds_is_taken() -> None:
    options = parse(pretrain, "--model", "tiny", "--local_rank=1", "--steps", "7")
    assert (options.steps, options.epochs) == (7, None)


def test_steps_and_epochs_exclude_each_other() -> None:
    with pytest.raises(click.UsageError, match="exclude each other"):
        parse(pretrain, "--model", "tiny", "--steps", "5", "--epochs", "5")


def test_several_data_sets_need_a_weight_each() -> None:
    options = parse(pretrain, "--model", "tiny", "--data", "e", "--mix", "0.7,0.3")
    assert (options.data, options.mix) == ((Path("d"), Path("e")), (0.7, 0.3))
    assert parse(pretrain, "--model", "tiny", "--mix", "1").mix is None
    with pytest.raises(click.UsageError, match=r"each --data, 2 here, .* 1,1"):
        parse(pretrain, "--model", "tiny", "--data", "e")
    with pytest.raises(click.UsageError, match="a weight for each --data, 1 here"):
        parse(pretrain, "--model", "tiny", "--mix", "0.7,0.3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "5"], "--steps"),
        (["--mix", "0.7;0.3"], "weights above 0, like 0.7,0.3"),
        (["--mix", "1,0"], "weights above 0"),
        (["--lr", "0"], "x>0"),
        (["--steps", "0"], "x>=1"),
        (["--warmup", "soon"], "give steps (100) or a share"),
        (["--schedule", "cosin"], "cosine"),
        (["--betas", "0.9", "1.0"], "0<=x<1"),
    ],
)
def test_a_wrong_option_is_answered_with_help(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(pretrain, ["--model", "tiny", *REQUIRED, *arguments])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("command", [pretrain, finetune])
def test_help_has_examples_and_a_word_on_every_option(command: click.Command) -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    assert f"deepspeed train/{command.name}.py" in text
    assert "--local_rank" not in text
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; sys.argv = ['pretrain.py', '--help']\n"
        "try:\n import runpy; runpy.run_path('pretrain.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "loaded = {'torch', 'deepspeed', 'matplotlib'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    environment = {"PYTHONPATH": f"{TRAIN}:{TRAIN.parent}", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], cwd=TRAIN, env=environment, check=True)


def test_decay_belongs_to_wsd() -> None:
    assert parse(pretrain, "--model", "tiny").decay is None
    assert parse(pretrain, "--model", "tiny", "--schedule", "wsd").decay == Warmup(
        0.2, is_share=True
    )
    given = parse(pretrain, "--model", "tiny", "--schedule", "wsd", "--decay", "50")
    assert given.decay == Warmup(50, is_share=False)
    with pytest.raises(click.UsageError, match="--decay belongs to --schedule wsd"):
        parse(pretrain, "--model", "tiny", "--decay", "10%")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--eval-every", "5"], "--eval-every does nothing without --valid"),
        (["--sample-every", "5"], "--sample-every does nothing without --valid or --sample-prompt"),
        (["--save-every", "0", "--keep-every", "5"], "--keep-every does nothing without"),
        (["--schedule", "constant", "--min-lr-ratio", "0"], "--min-lr-ratio does nothing without"),
        (["--muon-lr", "0.1"], "--muon-lr belongs to --optimizer muon"),
        (["--json"], "--json belongs to --dry-run"),
        (["--stpes", "5"], "'--steps'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(pretrain, ["--model", "tiny", *REQUIRED, *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split()), result.output


def test_finetuning_says_where_its_model_comes_from() -> None:
    result = CliRunner().invoke(finetune, ["--model", "tiny", "--init", "runs/pre", *REQUIRED])
    assert result.exit_code == 2
    assert "give --init and its folder" in result.output
