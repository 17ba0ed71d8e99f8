"""Documents packed into a row stay apart; a cache changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from modeling import layout
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


def ends(*lengths: int) -> torch.Tensor:
    """Return ``cu_seqlens``."""
    return torch.tensor([0, *lengths]).cumsum(0).int()


#: Every way to attend within documents, as ``use_path`` arranges it.
PATHS = ("masked", "documents", "varlen")


def use_path(path: str, monkeypatch: pytest.MonkeyPatch, *lengths: int) -> torch.Tensor | None:
    """Have the model take a path; return the ``cu_seqlens`` to give it.

    Of ``varlen`` everything is the real thing but the CUDA kernel: in its place stands a plain
    attention that obeys its contract, so what surrounds it is tested where there is no GPU.
    """
    if path == "masked":
        return None
    if path == "varlen":
        end_to_end = layout.Varlen(ends(*lengths), sum(lengths))
        monkeypatch.setattr("modeling.model.packed_layout", lambda *_: end_to_end)
        monkeypatch.setattr(layout, "varlen_attn", plain_varlen)
    return ends(*lengths)


def plain_varlen(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    key_starts: torch.Tensor,
    longest: int,
    longest_keys: int,
    *,
    window_size: tuple[int, int],
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``varlen_attn``'s contract, document by document: [tokens, heads, head_dim]."""
    assert window_size == (-1, 0) and starts is key_starts and longest == longest_keys
    assert enable_gqa or queries.shape[1] == keys.shape[1]
    assert starts.dtype == torch.int32 and int(starts.diff().max()) <= longest
    parts = []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        own = (part[begin:end].transpose(0, 1)[None] for part in (queries, keys, values))
        mixed = torch.nn.functional.scaled_dot_product_attention(
            *own, is_causal=True, enable_gqa=True
        )
        parts.append(mixed[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("path", PATHS)
def test_a_packed_document_is_what_it_is_alone(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, path: str, family: str, restart: bool
) -> None:
    """Logits, the loss of every token and all gradients; also when positions run on."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(make_config(model_type=family))
    ids, positions, documents = packed_row()
    ids, documents = torch.cat([ids, ids.flip(1)]), documents.expand(2, -1)
    places = positions.expand(2, -1) if restart else None
    lengths = (*LENGTHS, PADDING) * 2
    alone = [
        model(ids[row : row + 1, start : start + length])
        for row in range(2)
        for start, length in zip(starts(), LENGTHS, strict=True)
    ]
    targets = ids.roll(-1, 1)
    labels = torch.where(documents >= 0, targets, -100)
    real = documents[0] >= 0
    losses = torch.nn.functional.cross_entropy(
        torch.cat(alone, 1)[0], targets[:, real].flatten(), reduction="none"
    )
    losses.sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()

    seqlens = use_path(path, monkeypatch, *lengths)
    packed = model(ids, places, documents, cu_seqlens=seqlens)[:, real]
    torch.testing.assert_close(packed.flatten(0, 1)[None], torch.cat(alone, 1), atol=1e-5, rtol=0)
    own = torch.nn.functional.cross_entropy(
        packed.flatten(0, 1), targets[:, real].flatten(), reduction="none"
    )
    torch.testing.assert_close(own, losses, atol=1e-5, rtol=0)
    model(ids, places, documents, labels, cu_seqlens=seqlens).backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("path", ["none", "documents", "varlen"])
def test_without_the_borders_documents_leak(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The test above can fail: it compares something that depends on the borders."""
    ids, positions, documents = packed_row()
    seqlens = None if path == "none" else use_path(path, monkeypatch, ids.shape[1])
    leaking = model(ids, positions, None if path == "none" else documents, cu_seqlens=seqlens)
    start, length = starts()[1], LENGTHS[1]
    alone = model(ids[:, start : start + length])
    assert (leaking[:, start : start + length] - alone).abs().max() > 0.1


@pytest.mark.parametrize("seed", range(8))
def test_any_documents_are_attended_as_the_mask_has_it(model: LlamaForCausalLM, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, tokens = 3, 24
    begins = torch.rand(rows, tokens, generator=generator) < (0.02, 0.2, 0.7, 0.0)[seed % 4]
    begins[:, 0] = True
    documents = begins.cumsum(1).int() - 1
    documents[1, 20:] = -1  # and padding, from where no document begins
    begins[1, 20:] = False
    begins[1, 20] = True
    seqlens = torch.cat([begins.flatten().nonzero().squeeze(1), torch.tensor([rows * tokens])])
    places = torch.arange(rows * tokens)
    firsts = torch.where(begins.flatten(), places, 0).cummax(0).values
    positions = (places - firsts).view(rows, tokens)
    ids = torch.randint(4, 128, (rows, tokens), generator=generator)
    with torch.no_grad():
        expected = model(ids, positions, documents)
        found = model(ids, positions, documents, cu_seqlens=seqlens.int())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_whole_rows_need_no_sorting() -> None:
    angles = (torch.ones(2, 8, 1, 4), torch.ones(2, 8, 1, 4))
    seqlens = torch.tensor([0, 8, 16], dtype=torch.int32)
    assert layout.packed_layout(seqlens, 2, 8, angles, torch.float32) == layout.Causal()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flash attention runs on CUDA")
def test_flash_attention_keeps_documents_apart(make_config: MakeConfig) -> None:
    """The real kernel, in bf16: as near to the mask as bf16 is to itself."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(make_config(hidden_size=128)).cuda().bfloat16()
    ids, positions, documents = (tensor.cuda() for tensor in packed_row())
    seqlens = ends(*LENGTHS, PADDING).cuda()
    angles = (torch.ones(1, 1, 1, 1).cuda(),) * 2
    chosen = layout.packed_layout(seqlens, 1, ids.shape[1], angles, torch.bfloat16)
    assert isinstance(chosen, layout.Varlen)
    labels = torch.where(documents >= 0, ids.roll(-1, 1), -100)
    gradients = []
    for borders in (seqlens, None):
        model.zero_grad()
        model(ids, positions, documents, labels, cu_seqlens=borders).backward()
        gradients.append(model.model.embed_tokens.weight.grad.float())
    assert torch.nn.functional.cosine_similarity(*map(torch.flatten, gradients), dim=0) > 0.99


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
