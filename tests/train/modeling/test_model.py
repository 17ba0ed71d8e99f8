"""The model against transformers' Llama and Qwen3; its configuration and presets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from modeling.config import ModelConfig
from modeling.hf_names import from_hf, to_hf
from modeling.layers import RMSNorm
from modeling.model import LlamaForCausalLM
from modeling.presets import PRESETS, load_config, padded_vocab_size
from modeling.rope import RopeScaling
from vnprep.errors import TrainingError
from vnprep.tokenizer.special import SpecialIds

MakeConfig = Callable[..., ModelConfig]
SPECIAL = SpecialIds(0, 1, 2, 3)


def oracle(config: ModelConfig) -> Any:
    """Return transformers' model of the same shape, with weights of its own."""
    content = config.to_hf()
    own = transformers.AutoConfig.for_model(content.pop("model_type"), **content)
    return transformers.AutoModelForCausalLM.from_config(own).eval()


#: What of the two families makes the arithmetic another.
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-wide-heads": {"head_dim": 16},
    "llama-linear": {"rope_scaling": RopeScaling("linear", 4.0)},
    "llama3": {"rope_scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 32)},
    "qwen3": {"model_type": "qwen3", "head_dim": 16, "rope_theta": 1e6},
    "qwen3-untied": {"model_type": "qwen3", "tie_word_embeddings": False},
}


def ids(rows: int = 2, tokens: int = 40) -> torch.Tensor:
    # Without [PAD], to whose embedding transformers gives no gradient.
    return torch.randint(4, 128, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
def test_logits_are_those_of_transformers(
    make_config: MakeConfig, tied: bool, key_value_heads: int
) -> None:
    config = make_config(
        tie_word_embeddings=tied, num_key_value_heads=key_value_heads, rope_theta=500.0
    )
    ours, theirs = LlamaForCausalLM(config), oracle(config)
    theirs.load_state_dict(to_hf(ours.state_dict(), config))
    assert_same_logits(ours, theirs)
    # And the other way, with weights that transformers drew.
    theirs = oracle(config)
    ours.load_state_dict(from_hf(theirs.state_dict()))
    assert_same_logits(ours, theirs)


def assert_same_logits(ours: LlamaForCausalLM, theirs: Any) -> None:
    with torch.no_grad():
        expected, got = theirs(ids()).logits, ours(ids())
    assert expected.std() > 0.5, "logits near zero would agree whatever the model does"
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_that_of_transformers(make_config: MakeConfig, name: str) -> None:
    torch.manual_seed(0)
    config = make_config(**VARIANTS[name])
    ours, theirs = LlamaForCausalLM(config), oracle(config)
    for norm in (module for module in ours.modules() if isinstance(module, RMSNorm)):
        torch.nn.init.normal_(norm.weight, 1.0, 0.3)  # or a forgotten norm would not be seen
    theirs.load_state_dict(to_hf(ours.state_dict(), config))
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize("name", ["llama", "qwen3", "qwen3-untied"])
def test_gradients_are_those_of_transformers(make_config: MakeConfig, name: str) -> None:
    config = make_config(**VARIANTS[name])
    ours, theirs = LlamaForCausalLM(config), oracle(config)
    theirs.load_state_dict(to_hf(ours.state_dict(), config))
    inputs, labels = ids()[:, :-1], ids()[:, 1:]
    ours(inputs, labels=labels).backward()
    logits = theirs(inputs).logits
    torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="sum"
    ).backward()
    found = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    split = to_hf(found, config)
    assert split.keys() == dict(theirs.named_parameters()).keys()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(split[name], parameter.grad, atol=1e-3, rtol=1e-4, msg=name)


def test_nothing_is_rounded_but_the_weights(make_config: MakeConfig) -> None:
    """Rotary frequencies kept in a buffer would lose their precision in a bfloat16 model."""
    config = make_config()
    model = LlamaForCausalLM(config).bfloat16().float()
    theirs = oracle(config)
    theirs.load_state_dict(to_hf(model.state_dict(), config))
    with torch.no_grad():
        torch.testing.assert_close(model(ids()), theirs(ids()).logits, atol=1e-5, rtol=0)


def test_a_fresh_model_knows_nothing(make_config: MakeConfig) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(make_config(initializer_range=0.02))
    loss = model(ids(), labels=ids().roll(-1, 1)).item() / ids().numel()
    assert loss == pytest.approx(math.log(128), abs=0.1)
    assert model.model.layers[0].mlp.down_proj.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert model.model.layers[0].mlp.gate_up_proj.weight.std().item() == pytest.approx(
        0.02, rel=0.1
    )


def test_activation_checkpointing_changes_no_gradient(make_config: MakeConfig) -> None:
    model = LlamaForCausalLM(make_config())
    gradients = []
    for on in (False, True):
        model.model.activation_checkpointing = on
        model.zero_grad()
        model(ids(), labels=ids().roll(-1, 1)).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_survives_the_way_to_hugging_face(make_config: MakeConfig, name: str) -> None:
    config = make_config(**VARIANTS[name])
    assert ModelConfig.from_hf(config.to_hf()) == config
    theirs = transformers.AutoConfig.for_model(**config.to_hf())
    assert ModelConfig.from_hf(theirs.to_dict()) == config


def test_what_is_fused_is_split_again(make_config: MakeConfig) -> None:
    config = make_config()
    state = LlamaForCausalLM(config).state_dict()
    split = to_hf(state, config)
    assert not any("qkv" in name or "gate_up" in name for name in split)
    back = from_hf(split)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert to_hf(split, config).keys() == split.keys()


def test_configuration_survives_the_way_to_hugging_face_and_back(make_config: MakeConfig) -> None:
    config = make_config(rope_theta=500_000.0, tie_word_embeddings=False, eos_token_id=7)
    assert ModelConfig.from_hf(config.to_hf()) == config
    theirs = transformers.LlamaConfig(**config.to_hf())
    assert theirs.rope_parameters["rope_theta"] == 500_000.0
    assert ModelConfig.from_hf(theirs.to_dict()) == config
    assert "rope_theta" not in theirs.to_dict(), "the newer form was read above"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "RoPE scaling 'yarn'"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_attention_heads": 5, "head_dim": None}, "cannot be divided"),
        ({"num_key_value_heads": 3}, "cannot be divided"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_what_this_model_is_not_is_refused(
    make_config: MakeConfig, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(TrainingError, match=words):
        ModelConfig.from_hf(make_config().to_hf() | change)


def test_what_a_config_file_may_leave_out_has_transformers_defaults(
    make_config: MakeConfig,
) -> None:
    content = make_config(num_key_value_heads=4).to_hf() | {"eos_token_id": [7, 9]}
    optional = ("num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "rope_theta")
    for name in optional:
        del content[name]
    theirs = transformers.LlamaConfig(**content)
    expected = ModelConfig.from_hf(theirs.to_dict())
    assert ModelConfig.from_hf(content | {"pad_token_id": None}) == expected
    assert expected.eos_token_id == 7


def test_a_missing_size_is_named(make_config: MakeConfig) -> None:
    content = make_config().to_hf()
    del content["intermediate_size"]
    with pytest.raises(TrainingError, match="lacks intermediate_size"):
        ModelConfig.from_hf(content)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tiny", 2.90), ("small", 15.6), ("110m", 110), ("350m", 335), ("1b", 1034)],
)
def test_presets_have_the_size_they_state(name: str, millions: float) -> None:
    vocab_size = 16_000 if name in ("tiny", "small") else 32_000
    with torch.device("meta"):
        model = LlamaForCausalLM(load_config(name, vocab_size, SPECIAL))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_preset_takes_the_tokenizers_vocabulary_and_special_ids() -> None:
    config = load_config("tiny", 5_001, SpecialIds(pad=9, bos=8, eos=7, sep=6))
    assert config == replace(
        PRESETS["tiny"], vocab_size=5_120, pad_token_id=9, bos_token_id=8, eos_token_id=7
    )
    assert [padded_vocab_size(n) for n in (1, 128, 129)] == [128, 128, 256]


def test_a_config_file_gives_the_shape(make_config: MakeConfig, tmp_path: Path) -> None:
    wanted = make_config(vocab_size=50_000, hidden_size=64)
    (tmp_path / "config.json").write_text(json.dumps(wanted.to_hf()))
    expected = replace(wanted, vocab_size=384)
    assert load_config(tmp_path / "config.json", 300, SPECIAL) == expected
    assert load_config(str(tmp_path), 300, SPECIAL) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a model configuration"),
        ("[]", "not a JSON object"),
        ('{"model_type": "gpt2"}', "gpt2"),
    ],
)
def test_a_bad_config_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(TrainingError, match=words) as caught:
        load_config(path, 300, SPECIAL)
    assert caught.value.place == str(path)


def test_an_unknown_preset_is_told_of_the_others() -> None:
    with pytest.raises(TrainingError, match="did you mean 'tiny'"):
        load_config("tinny", 300, SPECIAL)
