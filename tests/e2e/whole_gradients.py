"""A rank that accumulates one step's gradients in DeepSpeed's engine, and writes them down whole.

    whole_gradients.py batches.pt out [tokens|means]

``batches.pt`` holds the model's shape and the micro-batches of one step; the ranks share them. One
file is written for each ZeRO stage. ``means`` weighs each micro-batch alike, as loops do that
average the means: the test shows that it tells the difference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "train"))

from trainer import environment  # noqa: E402

environment.prepare()

import torch  # noqa: E402
from deepspeed.utils import safe_get_full_grad  # noqa: E402

from modeling.config import ModelConfig  # noqa: E402
from modeling.model import LlamaForCausalLM  # noqa: E402
from trainer import engine as deepspeed_engine  # noqa: E402
from trainer.distributed import World, join, leave  # noqa: E402


def build(config: ModelConfig, stage: int, accumulation: int, world: World) -> Any:
    """Build the engine as a run does, from the same weights on every rank."""
    torch.manual_seed(0)
    raw: dict[str, Any] = {
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {"stage": stage, "overlap_comm": False},
    }
    shape = deepspeed_engine.BatchShape(2, accumulation)
    return deepspeed_engine.build_engine(
        LlamaForCausalLM(config),
        deepspeed_engine.AdamWSettings(1e-3, (0.9, 0.95), 0.1),
        deepspeed_engine.final_config(raw, shape, grad_clip=0.0),
        world,
    )


def gradients(
    engine: Any, batches: list[dict[str, torch.Tensor]], world: World, *, means: bool
) -> dict[str, torch.Tensor]:
    """Return the accumulated gradient of every parameter, float32, before the update."""
    own = batches[world.rank :: world.size]
    supervised = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
    for batch in own:
        nll = engine(**batch)
        weight = world.size / supervised
        if means:
            weight = 1 / (max(1, int((batch["labels"] >= 0).sum())) * len(own))
        engine.backward(nll * weight, scale_wrt_gas=False)
        if batch is not own[-1]:
            engine.step()
    found = {
        name: safe_get_full_grad(parameter) for name, parameter in engine.module.named_parameters()
    }
    assert all(gradient is not None for gradient in found.values()), "a parameter has no gradient"
    return {name: gradient.float().clone() for name, gradient in found.items()}


def main(source: str, out: str, weighing: str) -> None:
    """Write ``out/zero0.pt`` … ``out/zero3.pt``."""
    content = torch.load(source)
    config, batches = ModelConfig(**content["model"]), content["batches"]
    world = join()
    for stage in (0, 1, 2, 3):
        engine = build(config, stage, len(batches) // world.size, world)
        whole = gradients(engine, batches, world, means=weighing == "means")
        if world.is_main:
            torch.save(whole, Path(out) / f"zero{stage}.pt")
    leave(world, together=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
