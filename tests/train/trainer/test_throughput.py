"""FLOPs a token by hand, and what a peak is taken from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from trainer.throughput import (
    Throughput,
    count_parameters,
    flops_per_token,
    peak_flops,
    peak_memory_gib,
)

MakeConfig = Callable[..., ModelConfig]


@pytest.mark.parametrize("tied", [True, False])
def test_the_flops_are_those_of_the_matrix_products(make_config: MakeConfig, tied: bool) -> None:
    config = make_config(tie_word_embeddings=tied)
    parameters, trained = count_parameters(LlamaForCausalLM(config))
    assert parameters == trained
    matrices = 2 * (48 * (48 + 24 + 24 + 48) + 3 * 48 * 96) + 128 * 48
    norms = 5 * 48
    expected = 6 * (matrices + norms) + 12 * 2 * 48 * 64
    assert flops_per_token(config, parameters, trained, 64) == expected
    # A frozen weight gets no gradient: a third of its FLOPs is saved.
    frozen = flops_per_token(config, parameters, 1000, 64)
    assert frozen == 4 * (matrices + norms) + (2 * 1000 if tied else 0) + 12 * 2 * 48 * 64


def test_the_share_of_the_peak() -> None:
    assert Throughput(1e9, 1e15).mfu(1e6, 2) == 0.5
    assert Throughput(1e9, None).mfu(1e6, 2) is None


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA B200", 2250.0),
        ("Another One", None),
    ],
)
def test_the_peak_by_name(monkeypatch: pytest.MonkeyPatch, name: str, tflops: float | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    cuda = torch.device("cuda", 0)
    peak = None if tflops is None else tflops * 1e12
    assert peak_flops(cuda, "bf16", None) == peak
    assert peak_flops(cuda, "fp32", None) is None
    assert peak_flops(cuda, "fp32", 67.0) == 67e12
    assert peak_flops(torch.device("cpu"), "bf16", None) is None


def test_the_memory_of_this_process() -> None:
    assert 0.05 < peak_memory_gib(torch.device("cpu")) < 64  # torch alone takes 0.2
