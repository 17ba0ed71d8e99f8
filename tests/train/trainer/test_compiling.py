"""Compiled decoder layers: one graph for all, the same loss and gradients, the same names."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from modeling import attention, layout
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from trainer.compiling import check_compile, compile_layers, should_compile
from vnprep.errors import TrainingError

# torch's tracing looks at every input's .grad, and warns of its own look.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONFIG = ModelConfig(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def batch(*lengths: int) -> dict[str, Tensor]:
    """One row of documents, with labels at every place."""
    tokens = sum(lengths)
    made = torch.Generator().manual_seed(tokens + len(lengths))
    ids = torch.randint(4, 128, (1, tokens), generator=made)
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    ends = torch.tensor([0, *lengths]).cumsum(0).int()
    return {
        "input_ids": ids,
        "labels": ids,
        "position_ids": positions,
        "document_ids": numbers.int(),
        "cu_seqlens": ends,
    }


def two_models() -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    torch.manual_seed(0)
    plain = LlamaForCausalLM(CONFIG)
    other = LlamaForCausalLM(CONFIG)
    other.load_state_dict(plain.state_dict())
    return plain, other


def test_the_same_loss_and_gradients_from_one_graph_for_all_layers() -> None:
    plain, compiled = two_models()
    counter: Any = CompileCounterWithBackend("aot_eager")
    compile_layers(compiled, counter)
    assert list(dict(compiled.named_parameters())) == list(dict(plain.named_parameters()))
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for lengths in ((16, 8, 8), (4, 28), (1, 1, 30), (32,), (5,) * 6 + (2,)):
        losses = []
        for model in (plain, compiled):
            model.zero_grad()
            losses.append(model(**batch(*lengths)))
            losses[-1].backward()
        torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-6)
        for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)
    # A graph a layer, or one a batch, would be 3 or 5.
    assert counter.frame_count == 1


def test_documents_end_to_end_do_not_break_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, with the kernel alone replaced: it does not run here."""

    def kernel(queries: Tensor, keys: Tensor, values: Tensor, where: layout.Varlen) -> Tensor:
        groups = queries.shape[1] // keys.shape[1]
        values = values.repeat_interleave(groups, dim=1)
        return values + where.cu_seqlens[-1] / where.max_seqlen + queries * 0

    monkeypatch.setattr(attention, "varlen_attention", kernel)
    _, model = two_models()
    counter: Any = CompileCounterWithBackend("aot_eager")
    layer = model.model.layers[0]
    layer.compile(backend=counter, fullgraph=True)
    angles = (torch.ones(1, 32, 1, 4), torch.zeros(1, 32, 1, 4))
    hidden = torch.randn(1, 32, 32)
    for places in (64, 64, 128, 192, 256):
        where = layout.Varlen(torch.full((places,), 32, dtype=torch.int32), 32)
        got = layer(hidden, angles, where, None)
        expected = layer.forward(hidden, angles, where, None)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    # One for the first length, one for any.
    assert counter.frame_count == 2


def options(compile: bool | None, backend: str = "inductor") -> Any:
    return SimpleNamespace(compile=compile, compile_backend=backend)


def zero(stage: int) -> dict[str, Any]:
    return {"zero_optimization": {"stage": stage}}


def test_where_layers_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.compiling._has_tools", lambda: True)
    assert [should_compile(options(None), zero(stage), CUDA) for stage in range(4)] == [
        True,
        True,
        True,
        False,
    ]
    assert not should_compile(options(None), zero(1), CPU)
    assert should_compile(options(True), zero(1), CPU)
    assert not should_compile(options(False), zero(1), CUDA)
    monkeypatch.setattr("trainer.compiling._has_tools", lambda: False)
    assert not should_compile(options(None), zero(1), CUDA)


def test_what_cannot_be_compiled_is_refused() -> None:
    check_compile(options(None), zero(3))
    check_compile(options(True, "aot_eager"), zero(2))
    with pytest.raises(TrainingError, match="ZeRO 3 fetches"):
        check_compile(options(True), zero(3))
    with pytest.raises(TrainingError, match=r"no backend of torch.compile is called 'fast'"):
        check_compile(options(True, "fast"), zero(1))
