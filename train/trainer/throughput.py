"""How much of the accelerator is used: FLOPs a token, the peak, memory."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from typing import Any

import torch

from modeling.config import ModelConfig

#: Dense bf16 TFLOP/s by a part of the device's name, the more special name first. From the
#: makers' data sheets (NVIDIA states most with sparsity, twice as much).
PEAK_TFLOPS = (
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("H200 NVL", 835.0),
    ("H200", 989.0),
    ("H100 NVL", 835.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("A30", 165.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
    ("MI300X", 1307.4),
)
_GIB = 1024**3


def flops_per_token(config: ModelConfig, parameters: int, trained: int, seq_len: int) -> float:
    """Return the FLOPs of a token's forward and backward pass.

    6N + 12·L·d·T, as in "PaLM" (arXiv:2204.02311, appendix B): N parameters, L layers, d the
    width of all heads together, T positions a row. A frozen parameter takes 4 instead of 6, since
    it gets no gradient; an input embedding that the head does not share takes none, as it is a
    look-up. Packed documents attend to less than T; the convention does not take that off.

    Args:
        config: the model's shape.
        parameters: of the whole model.
        trained: of these, the ones that are not frozen.
        seq_len: positions of a row.
    """
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    width = config.num_attention_heads * config.head_dim
    dense = 4 * (parameters - looked_up) + 2 * max(0, trained - looked_up)
    return dense + 12.0 * config.num_hidden_layers * width * seq_len


def peak_flops(device: torch.device, precision: str, given_tflops: float | None) -> float | None:
    """Return the peak of one rank's device in FLOP/s, or None if it is not known.

    Args:
        device: of this rank.
        precision: ``bf16`` or ``fp32``; the table is for bf16.
        given_tflops: what the user has given, which counts first.
    """
    if given_tflops is not None:
        return given_tflops * 1e12
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for part, peak in PEAK_TFLOPS if part in name), None)


@dataclass(frozen=True)
class Throughput:
    """What a token costs, and what a device can do.

    Attributes:
        flops_per_token: forward and backward.
        peak_flops: of one rank's device, FLOP/s; None if it is not known.
    """

    flops_per_token: float
    peak_flops: float | None

    def mfu(self, tokens_per_s: float, ranks: int) -> float | None:
        """Return the share of all ranks' peak that so many tokens a second take."""
        if self.peak_flops is None:
            return None
        return round(tokens_per_s * self.flops_per_token / (self.peak_flops * ranks), 4)


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory that this rank has had: the device's on CUDA, the process's on CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / _GIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _GIB if sys.platform == "darwin" else peak * 1024 / _GIB


def count_parameters(model: Any) -> tuple[int, int]:
    """Return the parameters of a model and those of them that are trained; shared ones once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)
