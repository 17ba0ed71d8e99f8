"""A training script whose gradients go wrong at certain steps; what it trains is digested.

PLANTED is ``{"step": kind, …}`` as JSON, steps counted from 1, kinds as in ``plant``. DIGESTS is a
folder: each rank writes, for every step, digests of its weights and optimizer before and after.
Run as ``pretrain.py`` is; the guard takes 3 good norms to be enough.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).parents[2] / "train"
sys.path.insert(0, str(TRAIN))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import trainer.guard  # noqa: E402
import trainer.samples  # noqa: E402
import trainer.step  # noqa: E402
from pretrain import pretrain  # noqa: E402
from trainer.program import main  # noqa: E402

PLANTED = json.loads(os.environ["PLANTED"])
DIGESTS = Path(os.environ["DIGESTS"])
RANK = os.environ.get("RANK", "0")
#: Where the wrapped optimizers of DeepSpeed keep the float32 weights.
MASTERS = (
    "fp32_groups_flat_partition",
    "single_partition_of_fp32_groups",
    "fp32_partitioned_groups_flat",
)


class ScaledGradient(torch.autograd.Function):
    """The same value, a gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def plant(kind: str, nll: Tensor) -> Tensor:
    """Spoil the loss of a micro-batch, or its gradient alone."""
    if kind == "loss":
        return nll + float("nan")  # the gradient stays finite
    factors = {"nan": float("nan"), "inf": float("inf"), "spike": 1e4}
    spoilt: Tensor = ScaledGradient.apply(nll, factors[kind])  # type: ignore[no-untyped-call]
    return spoilt


def digest(engine: Any) -> str:
    """Hash all that a step may change on this rank: weights, float32 weights, moments."""
    found = hashlib.sha256()
    tensors = [getattr(each, "ds_tensor", each) for each in engine.module.parameters()]
    for name in MASTERS:
        tensors += getattr(engine.optimizer, name, [])
    for state in engine.basic_optimizer.state.values():
        tensors += [torch.as_tensor(state[name]) for name in sorted(state)]
    for tensor in tensors:
        found.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


class Watched(trainer.step.OptimizerStep):
    """Plants, and digests before and after."""

    def run(self, *args: Any, **names: Any) -> trainer.step.Outcome:
        engine, number = self._engine, self._engine.global_steps + 1
        kind = PLANTED.get(str(number)) if PLANTED.get("rank", "0") == RANK else None
        forward = engine.module.forward
        if kind is not None:
            engine.module.forward = lambda *a, **k: plant(kind, forward(*a, **k))
        before = digest(engine)
        outcome = super().run(*args, **names)
        engine.module.__dict__.pop("forward", None)
        with (DIGESTS / f"{RANK}.jsonl").open("a") as file:
            row = {"step": number, "before": before, "after": digest(engine)}
            file.write(json.dumps(row) + "\n")
        return outcome


class Interrupted(trainer.samples.Sampler):
    """SIGTERM comes to one rank while the model writes."""

    def run(self, engine: Any, step: int) -> Any:
        if PLANTED.get(f"sampling {step}") == RANK:
            self._stop._note(signal.SIGTERM, None)
        return super().run(engine, step)


trainer.guard.LEAST = 3  # type: ignore[misc]

if __name__ == "__main__":
    import trainer.loop

    trainer.loop.OptimizerStep = Watched  # type: ignore[misc]
    trainer.loop.Sampler = Interrupted  # type: ignore[misc]
    DIGESTS.mkdir(parents=True, exist_ok=True)
    main(pretrain)
