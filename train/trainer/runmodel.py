"""A model out of a run's checkpoint, by the run's folder alone: no ranks, no DeepSpeed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from modeling.card import ModelCard
from modeling.config import ModelConfig
from modeling.foreign_config import ForeignConfig
from modeling.model import LlamaForCausalLM
from modeling.rope import RopeScaling
from modeling.weights import LoadedModel, load_model
from trainer.checkpoint import Commit, checkpoints_in, file_problems, folder_name, open_state
from trainer.runfolder import RUN_NAME, RunFolder
from trainer.statefiles import read_weights
from vnprep.errors import TrainingError
from vnprep.tokenizer.special import SpecialIds


def model_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return the whole fp32 weights that a checkpoint holds, by the module's parameter names.

    Frozen parameters are in no checkpoint; a tied head has the embedding's name only.

    Raises:
        TrainingError: the checkpoint is not whole.
    """
    commit = Commit.read(checkpoint)
    if problems := file_problems(checkpoint, commit.files):
        raise TrainingError("; ".join(problems), place=checkpoint, remedy="take another checkpoint")
    return read_weights(open_state(checkpoint, commit))


def newest_sound(run: Path, step: int | None = None) -> Path:
    """Return the folder of a step's checkpoint, or of the newest that is whole.

    Raises:
        TrainingError: there is none.
    """
    folder = RunFolder(run).checkpoints
    if step is not None:
        wanted = folder / folder_name(step)
        if not wanted.is_dir():
            steps = [str(int(p.name.removeprefix("step-"))) for p in checkpoints_in(folder)[::-1]]
            raise TrainingError(
                f"no checkpoint of step {step}",
                place=folder,
                remedy=f"there are {', '.join(steps)}" if steps else "there is none yet",
            )
        return wanted
    for path in checkpoints_in(folder):
        try:
            problems = file_problems(path, Commit.read(path).files)
        except TrainingError:
            continue
        if not problems:
            return path
    raise TrainingError(
        "no whole checkpoint here", place=folder, remedy="give the --out folder of a training run"
    )


def model_from_checkpoint(run: Path, step: int | None = None) -> LoadedModel:
    """Build the model of a checkpoint, in fp32 on the host.

    Args:
        run: a training run's ``--out``, whether or not the run has ended.
        step: of the checkpoint; None takes the newest that is whole.

    Raises:
        TrainingError: no run, no whole checkpoint, or one that holds a part of the model alone.
    """
    card = read_run_card(run)
    path = newest_sound(run, step)
    if isinstance(card.config, ForeignConfig):
        raise TrainingError(
            "a model of transformers (--model-impl hf)",
            place=path,
            remedy="let the run end: it writes the whole model then",
        )
    weights = model_weights(path)
    with torch.device("meta"):
        model = LlamaForCausalLM(card.config)
    # Parameter by parameter: a state dict may have names of its own, a checkpoint has the module's.
    names = {name for name, _ in model.named_parameters()}
    if other := names.symmetric_difference(weights):
        raise TrainingError(
            f"holds other parameters than the model has ({', '.join(sorted(other)[:3])} …)",
            place=path,
            remedy="let the run end: it writes the whole model then",
        )
    for name, weight in weights.items():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(weight))
    model.tie_weights()
    return LoadedModel(model, card)


def load_run(run: Path, checkpoint: str | None) -> LoadedModel:
    """Load the model that a run ended with, or that of one of its checkpoints.

    Args:
        run: a training run's ``--out``, or a model folder.
        checkpoint: a step, ``newest``, or None for the end of the run.

    Raises:
        TrainingError: there is none.
    """
    if checkpoint is None:
        return load_model(run)
    if checkpoint == "newest":
        return model_from_checkpoint(run)
    if not checkpoint.isdigit():
        raise TrainingError(
            f"{checkpoint!r} is no step",
            place="--checkpoint",
            remedy="give the step of a checkpoint, such as 500, or newest",
        )
    return model_from_checkpoint(run, int(checkpoint))


def read_run_card(run: Path) -> ModelCard:
    """Return what a run's folder says of its model.

    Raises:
        TrainingError: it is no run's folder, or one of an older version.
    """
    body = RunFolder(run).record()
    try:
        if body is None:
            raise ValueError("there is none" if not (run / RUN_NAME).exists() else "not readable")
        settings = body["settings"]
        shape = dict(settings["model"])
        if shape.get("rope_scaling") is not None:
            shape["rope_scaling"] = RopeScaling(**shape["rope_scaling"])
        return ModelCard(
            run,
            ForeignConfig(**shape) if "content" in shape else ModelConfig(**shape),
            settings["stage"],
            SpecialIds(**body["special_ids"]),
            body["special_tokens"],
            settings["tokenizer"],
            {},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"no {RUN_NAME} of a training run ({error})",
            place=run,
            remedy="give the --out folder of a training run",
        ) from None
