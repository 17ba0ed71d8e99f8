"""``torch.compile`` for the decoder layers: fewer passes over memory, the same weights.

Each layer is compiled by itself, where it is. All layers are alike, so one graph serves them all;
the parameters keep their names, so a checkpoint does not show whether it was compiled.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from modeling.model import LlamaForCausalLM
from trainer import engine as deepspeed_engine
from trainer.options import TrainOptions
from vnprep.errors import TrainingError


def check_compile(options: TrainOptions, config: deepspeed_engine.Config) -> None:
    """See that what was asked for can be had.

    Raises:
        TrainingError: an unknown backend, or ZeRO 3, whose fetching of weights breaks the graphs.
    """
    if options.compile and deepspeed_engine.zero_stage(config) == 3:
        raise TrainingError(
            "ZeRO 3 fetches each layer's weights on the way, which cannot be compiled",
            place="--compile",
            remedy="leave --compile out, or take ds_configs/zero1.json or zero2.json",
        )
    if options.compile_backend == "inductor":
        return  # the list below takes seconds to make
    known = torch.compiler.list_backends(exclude_tags=())
    if options.compile_backend not in known:
        raise TrainingError(
            f"no backend of torch.compile is called {options.compile_backend!r}",
            place="--compile-backend",
            remedy=f"there are {', '.join(known)}",
        )


def should_compile(
    options: TrainOptions, config: deepspeed_engine.Config, device: torch.device
) -> bool:
    """Tell whether layers are compiled: as the user says, else on CUDA where it can be done."""
    if options.compile is not None:
        return options.compile
    return device.type == "cuda" and deepspeed_engine.zero_stage(config) < 3 and _has_tools()


def _has_tools() -> bool:
    """Whether there is what CUDA code is made with: Triton, which needs a C compiler."""
    compilers = (os.environ.get("CC", ""), "gcc", "clang", "cc")
    has_compiler = any(shutil.which(name) for name in compilers if name)
    return importlib.util.find_spec("triton") is not None and has_compiler


def compile_layers(model: LlamaForCausalLM, backend: str) -> None:
    """Compile every decoder layer in place; it is done when the first batch comes.

    Args:
        model: it stays the same object, with the same names.
        backend: of ``torch.compile``, e.g. ``inductor``.
    """
    model.model.fixed_shapes = True
    for layer in model.model.layers:
        layer.compile(backend=backend)
