"""Where generation runs."""

from __future__ import annotations

from typing import TypeVar

import click
import torch
from torch import nn

from vnprep.errors import TrainingError

M = TypeVar("M", bound=nn.Module)

DEVICE_OPTION = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, cuda:1, …; auto takes a GPU if there is one.",
)


def on_device(model: M, name: str) -> M:
    """Move a model, for inference.

    Raises:
        TrainingError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return model.to(torch.device(name)).eval()
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(
            f"cannot be used ({str(error).splitlines()[0]})",
            place=f"--device {name}",
            remedy="give --device cpu",
        ) from None
