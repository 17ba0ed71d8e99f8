"""The chunked loss against a cross entropy over all logits: time, and memory at its peak."""

from __future__ import annotations

import statistics
import time
import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.loss import OutputHead


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self._alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or size == 0:
            return
        self._known.add(key)
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._alive -= size


def compare(
    width: int, vocab: int, tokens: int, device: torch.device, rounds: int
) -> dict[str, Any]:
    """Return milliseconds and MiB of both, for so many tokens, all of them supervised."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    head = OutputHead(width, vocab, 0.02).to(device, dtype)
    hidden = torch.randn(1, tokens, width, device=device, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, vocab, (1, tokens), device=device)

    def chunked() -> None:
        head(hidden, labels).backward()

    def full() -> None:
        logits = F.linear(hidden, head.weight).float()
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()

    seconds: dict[str, list[float]] = {"chunked": [], "full": []}
    mib = {}
    for number in range(rounds + 1):
        for name, run in (("chunked", chunked), ("full", full)):
            hidden.grad = head.weight.grad = None
            if number == 0:
                mib[name] = _peak(run, device)
                continue
            seconds[name].append(_timed(run, device))
    found = {name: 1000 * statistics.median(each) for name, each in seconds.items()}
    return {"milliseconds": found, "mib": mib}


def _timed(run: Any, device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak(run: Any, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with PeakBytes() as count:
        run()
    return count.peak / 2**20
