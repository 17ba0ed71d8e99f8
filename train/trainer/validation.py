"""The loss on data that is not trained on, counted by tokens over all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.distributed import World
from trainer.metrics import ValidationMetrics
from trainer.stop import StopRequest
from vnprep.loading.loader import Batch, PackedLoader

_SEQLENS_MULTIPLE = 64


def to_device(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """Return a batch as the model's keyword arguments; all but the last [micro_batch, seq_len]."""
    arrays = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "document_ids": batch.document_ids,
        "labels": batch.labels,
        # Of a shape that seldom changes, for compiled code.
        "cu_seqlens": batch.cu_seqlens if device.type == "cpu" else padded_seqlens(batch),
    }
    return {
        name: torch.from_numpy(array).to(device, non_blocking=True)
        for name, array in arrays.items()
    }


def padded_seqlens(batch: Batch) -> NDArray[np.int32]:
    """Repeat the end up to a multiple of 64 places: documents of no length, which cost nothing."""
    missing = -len(batch.cu_seqlens) % _SEQLENS_MULTIPLE
    return np.pad(batch.cu_seqlens, (0, missing), mode="edge")


def supervised_tokens(batch: Batch) -> int:
    """Count the positions of a batch that carry loss."""
    return int((batch.labels >= 0).sum())


def evaluate(
    engine: Any, loader: PackedLoader, world: World, stop: StopRequest, step: int
) -> ValidationMetrics | None:
    """Evaluate on every row of the validation data; all ranks call this.

    Args:
        engine: DeepSpeed's engine.
        loader: this rank's share of the rows, not shuffled.
        world: the ranks.
        stop: asked at each batch, since an evaluation may be long.
        step: optimizer steps done, for the record.

    Returns:
        The metrics, or None if the run was asked to stop.
    """
    total = torch.zeros((), dtype=torch.float64)
    tokens = 0
    engine.eval()
    try:
        with torch.no_grad():
            for number in range(loader.steps_per_epoch):
                if world.any(stop.asked()):
                    return None
                for batch in loader.step(number):
                    nll = engine(**to_device(batch, world.device))
                    total += nll.double().cpu()
                    tokens += supervised_tokens(batch)
    finally:
        engine.train()
    (nll_sum,) = world.sum_floats(float(total))
    (token_sum,) = world.sum_integers(tokens)
    return ValidationMetrics(step, nll_sum / token_sum, token_sum)
