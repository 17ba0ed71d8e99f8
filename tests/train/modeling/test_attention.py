"""Documents packed into a row stay apart; a cache changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from modeling.attention import KVCache, document_mask
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM

MakeConfig = Callable[..., ModelConfig]
LENGTHS = (5, 11, 1, 9)
PADDING = 6


@pytest.fixture
def model(make_config: MakeConfig) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(make_config()).eval()


def packed_row() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, positions and documents, each [1, tokens], padded at the end."""
    total = sum(LENGTHS)
    ids = torch.randint(4, 128, (1, total + PADDING), generator=torch.Generator().manual_seed(3))
    ids[:, total:] = 0
    positions = torch.cat([torch.arange(n) for n in (*LENGTHS, PADDING)])[None]
    documents = [torch.full((n,), number) for number, n in enumerate(LENGTHS)]
    return ids, positions, torch.cat([*documents, torch.full((PADDING,), -1)])[None].int()


def starts() -> list[int]:
    return [sum(LENGTHS[:number]) for number in range(len(LENGTHS))]


@torch.no_grad()
@pytest.mark.parametrize("restart", [True, False])
def test_a_packed_document_has_the_logits_it_has_alone(
    model: LlamaForCausalLM, restart: bool
) -> None:
    """Also when positions run on: rotary positions are relative."""
    ids, positions, documents = packed_row()
    packed = model(ids, positions if restart else None, documents)
    for start, length in zip(starts(), LENGTHS, strict=True):
        alone = model(ids[:, start : start + length])
        torch.testing.assert_close(packed[:, start : start + length], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_document_ids_documents_leak(model: LlamaForCausalLM) -> None:
    """The test above can fail: it compares something that depends on the mask."""
    ids, positions, _ = packed_row()
    leaking = model(ids, positions)
    start, length = starts()[1], LENGTHS[1]
    alone = model(ids[:, start : start + length])
    assert (leaking[:, start : start + length] - alone).abs().max() > 0.1


def test_padding_makes_no_nan(model: LlamaForCausalLM) -> None:
    ids, positions, documents = packed_row()
    # The loader fills the last step of an epoch with rows that are padding altogether.
    ids = torch.cat([ids, torch.zeros_like(ids)])
    positions = torch.cat([positions, torch.zeros_like(positions)])
    documents = torch.cat([documents, torch.full_like(documents, -1)])
    labels = torch.where(documents >= 0, ids, -100)
    assert model(ids, positions, documents).isfinite().all()
    model(ids, positions, documents, labels).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_padding_changes_no_gradient(model: LlamaForCausalLM) -> None:
    ids, positions, documents = packed_row()
    labels = torch.where(documents >= 0, ids.roll(-1, 1), -100)
    gradients = []
    for stop in (sum(LENGTHS), None):
        model.zero_grad()
        parts = [tensor[:, :stop] for tensor in (ids, positions, documents, labels)]
        model(*parts).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_the_mask_is_block_diagonal_and_causal() -> None:
    documents = torch.tensor([[0, 0, 1, -1, -1]])
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    assert document_mask(documents, documents).int().tolist() == [[expected]]
    last = document_mask(documents[:, 3:], documents)
    assert last.int().tolist() == [[expected[3:]]]


@torch.no_grad()
@pytest.mark.parametrize("steps", [(12, 1, 1, 1, 1), (5, 7, 4), (1,) * 16])
def test_a_cache_changes_no_logits(model: LlamaForCausalLM, steps: tuple[int, ...]) -> None:
    ids = packed_row()[0][:, :16]
    cache = KVCache(model.config, 1, 16, like=model.lm_head.weight)
    parts, start = [], 0
    for tokens in steps:
        parts.append(model(ids[:, start : start + tokens], cache=cache))
        start += tokens
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_cache_keeps_left_padding_out(model: LlamaForCausalLM) -> None:
    ids = packed_row()[0][:, :10]
    pad = 4
    padded = torch.cat([torch.zeros(1, pad, dtype=torch.long), ids], 1)
    documents = torch.tensor([[-1] * pad + [0] * 10], dtype=torch.int32)
    positions = torch.tensor([[0] * pad + list(range(10))])
    cache = KVCache(model.config, 1, pad + 10, like=model.lm_head.weight)
    parts = [
        model(padded[:, part], positions[:, part], documents[:, part], cache=cache)
        for part in (slice(0, pad + 6), slice(pad + 6, pad + 7), slice(pad + 7, pad + 10))
    ]
    got = torch.cat(parts, 1)[:, pad:]
    torch.testing.assert_close(got, model(ids), atol=1e-5, rtol=0)
