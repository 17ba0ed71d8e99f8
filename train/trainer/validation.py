"""The loss on data that is not trained on, counted by tokens over all ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.distributed import World
from trainer.metrics import ValidationMetrics, bits_per_byte
from trainer.stop import StopRequest
from vnprep.loading.loader import Batch

if TYPE_CHECKING:
    from trainer.feed import Feed

_SEQLENS_MULTIPLE = 64


def to_device(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """Return a batch as the model's keyword arguments; all but the last [micro_batch, seq_len].

    On CUDA they are copied from pinned memory, so that nobody waits for the copies.
    """
    arrays = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "document_ids": batch.document_ids,
        "labels": batch.labels,
        # Of a shape that seldom changes, for compiled code.
        "cu_seqlens": batch.cu_seqlens if device.type == "cpu" else padded_seqlens(batch),
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if device.type == "cuda":
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


def padded_seqlens(batch: Batch) -> NDArray[np.int32]:
    """Repeat the end up to a multiple of 64 places: documents of no length, which cost nothing."""
    missing = -len(batch.cu_seqlens) % _SEQLENS_MULTIPLE
    return np.pad(batch.cu_seqlens, (0, missing), mode="edge")


def supervised_tokens(batch: Batch) -> int:
    """Count the positions of a batch that carry loss."""
    return int((batch.labels >= 0).sum())


def evaluate(
    engine: Any, feed: Feed, world: World, stop: StopRequest, step: int, text_bytes: int
) -> ValidationMetrics | None:
    """Evaluate on every row of the validation data; all ranks call this.

    Args:
        engine: DeepSpeed's engine.
        feed: this rank's share of the rows, not shuffled.
        world: the ranks.
        stop: asked at each batch, since an evaluation may be long.
        step: optimizer steps done, for the record.
        text_bytes: UTF-8 bytes of all the text that carries loss.

    Returns:
        The metrics, or None if the run was asked to stop.
    """
    total = torch.zeros((), dtype=torch.float64, device=world.device)
    tokens = 0
    engine.eval()
    try:
        with torch.no_grad():
            while (data := feed.next()) is not None:
                if world.any(stop.asked()):
                    return None
                for batch in data.batches:
                    total += engine(**batch)
                tokens += data.supervised
    finally:
        engine.train()
    (nll_sum,) = world.sum_floats(float(total))
    return ValidationMetrics(step, nll_sum / tokens, tokens, bits_per_byte(nll_sum, text_bytes))
