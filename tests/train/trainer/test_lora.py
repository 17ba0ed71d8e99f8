"""Adapters: nothing changes at first, the base never does, and merging loses nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from finetune import finetune
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from modeling.start import adopt
from pretrain import pretrain
from tests.train.foreign import hf_config, write_hf
from trainer.lora import LoraSettings, add_adapters, linear_names, merged, save_adapter
from trainer.optimizers import parameter_groups

MakeConfig = Callable[..., ModelConfig]

IDS = torch.arange(48).reshape(2, 24) * 7 % 128
REQUIRED = ["--data", "d", "--init", "i", "--out", "o", "--deepspeed_config", "c"]


def settings_for(model: LlamaForCausalLM, **changes: Any) -> LoraSettings:
    values: dict[str, Any] = {
        "rank": 4,
        "alpha": 6.0,
        "targets": tuple(sorted(linear_names(model))),
        "dropout": 0.0,
        "embeddings": False,
    }
    return LoraSettings(**(values | changes))


def train(model: LlamaForCausalLM, steps: int = 30) -> list[float]:
    """Learn what follows each token; the losses."""
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.0), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(IDS[:, :-1], labels=IDS[:, 1:]) / IDS[:, 1:].numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("embeddings", [True, False])
def test_adapters_learn_the_base_stays_and_the_merged_model_is_the_same(
    make_config: MakeConfig, tied: bool, embeddings: bool
) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(make_config(tie_word_embeddings=tied, initializer_range=0.1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = model(IDS).detach()
    settings = settings_for(model, embeddings=embeddings)
    add_adapters(model, settings, seed=3)
    torch.testing.assert_close(model(IDS), first, rtol=0, atol=0)
    losses = train(model)
    assert losses[-1] < losses[0] / 2
    after = merged(model.state_dict(), settings)
    assert after.keys() == before.keys()
    for name, tensor in model.state_dict().items():
        if name.endswith(".base_layer.weight"):
            torch.testing.assert_close(tensor, before[name.replace(".base_layer", "")])
    vocabulary = ("embed_tokens.weight", "lm_head.weight", "norm.weight")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in changed if name.endswith(vocabulary)} == (
        {"model.embed_tokens.weight", "lm_head.weight"} if embeddings else set()
    )
    assert len(changed) == 8 + 2 * embeddings, "four linear layers in each of two"
    plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(after)
    got, wanted = plain(IDS), model(IDS)
    assert (wanted - first).abs().max() > 0.1
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


def test_only_the_layers_that_were_named_get_adapters(make_config: MakeConfig) -> None:
    model = LlamaForCausalLM(make_config())
    add_adapters(model, settings_for(model, targets=("o_proj",)), seed=0)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all(".o_proj.lora_" in name for name in trained)
    assert len(trained) == 4


def test_peft_loads_the_adapter_onto_transformers_model(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    folder = tmp_path / "hf"
    theirs = write_hf(folder, hf_config(vocab_size=384, tie_word_embeddings=False))
    from adopt import complete_tokenizer

    tokenizer, _ = complete_tokenizer(folder, {})
    model = adopt(folder, tokenizer)
    settings = settings_for(model, embeddings=True)
    add_adapters(model, settings, seed=1)
    train(model, 5)
    save_adapter(tmp_path / "adapter", model.state_dict(), settings, model.config, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, model(IDS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lora-alpha", "8"], "--lora-alpha means something with --lora only"),
        (["--no-lora-embeddings"], "--lora-embeddings means something with --lora only"),
        (["--lora", "0"], "Invalid value for '--lora'"),
        (["--lora", "4", "--lora-targets", "q_proj,,"], "has an empty name"),
    ],
)
def test_options_that_mean_nothing_are_refused(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(finetune, [*REQUIRED, *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_pretraining_starts_from_one_thing() -> None:
    for arguments in (["--model", "tiny", *REQUIRED], REQUIRED[:2] + REQUIRED[4:]):
        result = CliRunner().invoke(pretrain, arguments)
        assert result.exit_code == 2
        assert "give one of --model" in result.output
