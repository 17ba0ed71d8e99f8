"""The loss against a plain cross entropy, gradients included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from modeling import loss as loss_module
from modeling.config import ModelConfig
from modeling.loss import OutputHead, softmax_in_passes, softmax_in_place
from modeling.model import LlamaForCausalLM

MakeConfig = Callable[..., ModelConfig]
ROWS, TOKENS = 3, 17


def batch(share: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return input_ids and labels, of which about ``share`` are supervised."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 128, (ROWS, TOKENS + 1), generator=generator)
    kept = torch.rand(ROWS, TOKENS, generator=generator) < share
    return ids[:, :-1], torch.where(kept, ids[:, 1:], -100)


def plain(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    logits = model(ids).float().flatten(0, 1)
    return F.cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="sum")


def gradients(model: LlamaForCausalLM, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("chunk", [7, 2048])
def test_loss_and_gradients_are_the_plain_ones(
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    tied: bool,
    share: float,
    chunk: int,
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_TOKENS", {"cpu": chunk})
    model = LlamaForCausalLM(make_config(tie_word_embeddings=tied))
    ids, labels = batch(share)
    ours, expected = model(ids, labels=labels), plain(model, ids, labels)
    assert ours.dtype == torch.float32
    assert ours.shape == ()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
    # Scaled, as training scales it: the gradient must follow.
    torch.testing.assert_close(
        gradients(model, ours * 0.01), gradients(model, expected * 0.01), rtol=1e-4, atol=1e-5
    )


# torch 2.13's compiler makes an instance of every autograd function, which torch itself deprecates.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_without_picking_positions_it_is_the_same(make_config: MakeConfig) -> None:
    model = LlamaForCausalLM(make_config())
    ids, labels = batch()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    ours, expected = compiled(ids, labels=labels), plain(model, ids, labels)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        gradients(model, ours), gradients(model, expected), rtol=1e-4, atol=1e-4
    )


def test_sums_over_micro_batches_are_the_sum_over_the_batch(make_config: MakeConfig) -> None:
    model = LlamaForCausalLM(make_config())
    ids, labels = batch()
    labels[0, :] = -100  # ragged: one micro-batch has none
    parts = [model(ids[row : row + 1], labels=labels[row : row + 1]) for row in range(ROWS)]
    torch.testing.assert_close(sum(parts), model(ids, labels=labels), rtol=1e-5, atol=0)


def test_a_batch_without_labels_has_loss_zero_and_gradients_zero(make_config: MakeConfig) -> None:
    """Every rank must go through the backward pass, also with an empty row."""
    model = LlamaForCausalLM(make_config(tie_word_embeddings=False))
    ids, labels = batch(share=0.0)
    loss = model(ids, labels=labels)
    assert loss.item() == 0
    found = gradients(model, loss)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all((gradient == 0).all() for gradient in found.values())


def test_bfloat16_is_close_to_float32(make_config: MakeConfig) -> None:
    model = LlamaForCausalLM(make_config(initializer_range=0.05))
    ids, labels = batch()
    expected = gradients(model, model(ids, labels=labels))
    model = model.bfloat16()
    loss = model(ids, labels=labels)
    assert loss.dtype == torch.float32
    for name, gradient in gradients(model, loss).items():
        cosine = F.cosine_similarity(gradient.float().flatten(), expected[name].flatten(), dim=0)
        assert cosine > 0.99, name


def test_autocast_is_close_to_float32(make_config: MakeConfig) -> None:
    model = LlamaForCausalLM(make_config(initializer_range=0.05))
    ids, labels = batch()
    expected = gradients(model, model(ids, labels=labels))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(ids, labels=labels)
    for name, gradient in gradients(model, loss).items():
        assert gradient.dtype == torch.float32
        cosine = F.cosine_similarity(gradient.flatten(), expected[name].flatten(), dim=0)
        assert cosine > 0.99, name


def test_evaluation_makes_no_gradient(make_config: MakeConfig) -> None:
    model = LlamaForCausalLM(make_config())
    ids, labels = batch()
    with torch.no_grad():
        loss = model(ids, labels=labels)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, model(ids, labels=labels).detach())


def test_evaluation_does_not_work_on_gradients(make_config: MakeConfig) -> None:
    """They would cost as much again, and a float32 copy of the head."""
    made: list[str] = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made.append(func.__name__)
            return func(*args, **(kwargs or {}))

    model = LlamaForCausalLM(make_config())
    ids, labels = batch()
    with Spy(), torch.no_grad():
        model(ids, labels=labels)
    assert "amax.default" in made and not [name for name in made if "scatter" in name]


def test_frozen_hidden_states_still_teach_the_head() -> None:
    head = OutputHead(8, 128, std=0.1)
    hidden, (_, labels) = torch.randn(ROWS, TOKENS, 8), batch()
    head(hidden, labels).backward()
    ours = head.weight.grad
    head.weight.grad = None
    logits = head(hidden).flatten(0, 1)
    F.cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="sum").backward()
    torch.testing.assert_close(ours, head.weight.grad, rtol=1e-4, atol=1e-5)


def test_only_supervised_positions_reach_the_head(make_config: MakeConfig) -> None:
    """What makes fine-tuning cheap on a CPU."""
    seen: list[int] = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.mm.default and out.shape[-1] == 128 and out.shape[0] != 48:
                seen.append(out.shape[0])
            return out

    model = LlamaForCausalLM(make_config())
    ids, labels = batch(share=0.2)
    with Spy(), torch.no_grad():
        model(ids, labels=labels)
    assert seen == [int((labels != -100).sum())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compilers_softmax_is_the_plain_one(dtype: torch.dtype) -> None:
    logits = torch.randn(40, 300, generator=torch.Generator().manual_seed(2)).mul(9).to(dtype)
    targets = torch.arange(40).mul(7)
    targets[::3] = -100
    expected = softmax_in_place(logits.clone(), targets, True)
    ours = softmax_in_passes(logits, targets, True)
    assert ours[1] is not None and ours[1].dtype == dtype
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert (ours[1][::3] == 0).all()
    alone, nothing = softmax_in_passes(logits, targets, False)
    torch.testing.assert_close(alone, expected[0])
    assert nothing is None


def test_a_compiled_loss_is_the_plain_one_for_any_number_of_labels(make_config: MakeConfig) -> None:
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model = LlamaForCausalLM(make_config())
    model.lm_head.compile_loss(counter)
    for share in (1.0, 0.7, 0.5, 0.3):
        ids, labels = batch(share)
        ours, expected = model(ids, labels=labels), plain(model, ids, labels)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(
            gradients(model, ours), gradients(model, expected), rtol=1e-4, atol=1e-5
        )
    # One for the first number, one for any.
    assert counter.frame_count == 2
