"""The export, read by transformers: the same logits, the same prompt, the same text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import export
from inference.sampling import Sampling, generate, request_prompts
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from vnprep.tokenizer.encode import encode
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer

MakeConfig = Callable[..., ModelConfig]
Pairs = list[tuple[str, str, str]]


def run_script(*arguments: object) -> Any:
    return CliRunner().invoke(export.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def exported(taught: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hf") / "new"
    result = run_script(taught.run, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    return out


@pytest.fixture(scope="module")
def theirs(exported: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(exported).eval()


@pytest.fixture(scope="module")
def hf_tokenizer(exported: Path) -> Any:
    return AutoTokenizer.from_pretrained(exported)


def chat(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]


def chat_ids(hf_tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    ids: list[int] = hf_tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


def test_logits_are_equal(theirs: Any, taught: Any, tokenizer: LoadedTokenizer) -> None:
    ids = torch.randint(0, tokenizer.vocab_size, (3, 30))
    with torch.no_grad():
        expected = taught.model(ids)[..., : tokenizer.vocab_size]
        got = theirs(ids).logits
    # The rows that pad our vocabulary are left out, so that nobody can choose them.
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_an_untied_model_is_exported_too(
    make_config: MakeConfig,
    save: Callable[..., Path],
    tokenizer_path: Path,
    tokenizer: LoadedTokenizer,
    tmp_path: Path,
) -> None:
    config = make_config(vocab_size=384, tie_word_embeddings=False, rope_theta=5_000.0)
    model = LlamaForCausalLM(config)
    assert (
        run_script(
            save(tmp_path / "run", model, tokenizer_path), "--out", tmp_path / "hf"
        ).exit_code
        == 0
    )
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    ids = torch.randint(0, tokenizer.vocab_size, (2, 20))
    with torch.no_grad():
        expected = model(ids)[..., : tokenizer.vocab_size]
        torch.testing.assert_close(theirs(ids).logits, expected, atol=1e-5, rtol=0)


def test_the_chat_template_gives_the_prompt_of_generation(
    hf_tokenizer: Any, tokenizer: LoadedTokenizer, pairs: Pairs
) -> None:
    requests = [request for request, _, _ in pairs]
    requests += ["  Mở rèm \n", unicodedata.normalize("NFD", "Tắt đèn bếp"), "a  b\n\nc 😀 ½"]
    for request, prompt in zip(requests, request_prompts(tokenizer, requests), strict=True):
        assert chat_ids(hf_tokenizer, chat(request)) == prompt


def test_several_turns_are_laid_out_as_in_training(
    hf_tokenizer: Any, tokenizer: LoadedTokenizer
) -> None:
    texts = ["Mở rèm", "Đã mở rèm", "Tắt đèn bếp"]
    ids, offsets = encode(tokenizer, texts)
    parts = [ids[a:b].tolist() for a, b in pairwise(offsets)]
    bos, sep, eos = tokenizer.special.bos, tokenizer.special.sep, tokenizer.special.eos
    expected = [bos, *parts[0], sep, *parts[1], eos, *parts[2], sep]
    assert chat_ids(hf_tokenizer, chat(*texts)) == expected


def test_a_system_text_joins_the_first_request(
    hf_tokenizer: Any, tokenizer: LoadedTokenizer
) -> None:
    """As the preparation of chat messages does it."""
    messages = [{"role": "system", "content": " Nhà thông minh "}, *chat("Mở rèm")]
    assert [chat_ids(hf_tokenizer, messages)] == request_prompts(
        tokenizer, ["Nhà thông minh\nMở rèm"]
    )


@pytest.mark.parametrize("name", ["[EOS]", "[SEP]", "[BOS]", "[PAD]"])
def test_the_template_refuses_special_tokens_in_a_message(hf_tokenizer: Any, name: str) -> None:
    """transformers would turn the characters into the token; our own prompts do not."""
    with pytest.raises(jinja2.TemplateError, match="may not contain"):
        chat_ids(hf_tokenizer, chat(f"tắt {name} đèn"))


@pytest.mark.parametrize("roles", [["assistant"], ["user", "user"], ["user", "system"]])
def test_the_template_refuses_turns_out_of_order(hf_tokenizer: Any, roles: list[str]) -> None:
    with pytest.raises(jinja2.TemplateError, match="in turn"):
        chat_ids(hf_tokenizer, [{"role": role, "content": "a"} for role in roles])


def test_transformers_answers_as_we_do(
    theirs: Any, hf_tokenizer: Any, taught: Any, tokenizer: LoadedTokenizer, pairs: Pairs
) -> None:
    requests = [request for request, _, _ in pairs] + ["Mở đèn phòng ngủ", "Tắt rèm"]
    ours = generate(taught.model, tokenizer, request_prompts(tokenizer, requests), Sampling(40))
    # As a batch, padded by the exported settings.
    inputs = hf_tokenizer.apply_chat_template(
        [chat(request) for request in requests],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
        padding=True,
    )
    out = theirs.generate(**inputs, max_new_tokens=40)
    new = out[:, inputs["input_ids"].shape[1] :]
    texts = hf_tokenizer.batch_decode(new, skip_special_tokens=True)
    assert texts == [answer.text for answer in ours]
    assert texts[: len(pairs)] == [response for _, response, _ in pairs]


def test_special_tokens_and_limits_are_known_to_transformers(
    theirs: Any, hf_tokenizer: Any, taught: Any, tokenizer: LoadedTokenizer
) -> None:
    special = tokenizer.special
    found = (hf_tokenizer.pad_token_id, hf_tokenizer.bos_token_id, hf_tokenizer.eos_token_id)
    assert found == (special.pad, special.bos, special.eos)
    settings = theirs.generation_config
    assert (settings.pad_token_id, settings.eos_token_id) == (special.pad, special.eos)
    assert settings.do_sample is False
    assert hf_tokenizer.model_max_length == taught.model.config.max_position_embeddings
    assert len(hf_tokenizer) == theirs.config.vocab_size == tokenizer.vocab_size


def test_plain_text_begins_as_in_pretraining(hf_tokenizer: Any, tokenizer: LoadedTokenizer) -> None:
    ids = encode(tokenizer, ["Mở rèm"])[0].tolist()
    assert hf_tokenizer("Mở rèm").input_ids == [tokenizer.special.bos, *ids]
    assert hf_tokenizer("Mở rèm", add_special_tokens=False).input_ids == ids


def test_the_exported_tokenizer_normalises_by_itself(tokenizer_path: Path, tmp_path: Path) -> None:
    content = json.loads(tokenizer_path.read_text(encoding="utf-8"))
    for normalizer in (None, {"type": "Lowercase"}):
        bare = tmp_path / "tokenizer.json"
        bare.write_text(json.dumps(content | {"normalizer": normalizer}), encoding="utf-8")
        out = tmp_path / "exported.json"
        out.write_text(export.exported_tokenizer(load_tokenizer(bare)), encoding="utf-8")
        texts = ["Tắt đèn", unicodedata.normalize("NFD", "Tắt đèn")]
        first, second = (load_tokenizer(out).backend.encode(text).ids for text in texts)
        assert first == second


def test_weights_are_stored_once_when_tied(exported: Path) -> None:
    assert "lm_head.weight" not in load_file(exported / "model.safetensors")


def test_an_earlier_export_is_replaced_and_other_folders_are_left_alone(
    taught: Any, tmp_path: Path
) -> None:
    assert run_script(taught.run, "--out", tmp_path / "hf").exit_code == 0
    assert run_script(taught.run, "--out", tmp_path / "hf").exit_code == 0
    (tmp_path / "hf" / "thesis.md").write_text("mine")
    result = run_script(taught.run, "--out", tmp_path / "hf")
    assert result.exit_code == 1
    assert "thesis.md" in result.stderr
    assert "remedy" in result.stderr


def test_a_run_without_a_model_writes_nothing(tmp_path: Path) -> None:
    result = run_script(tmp_path, "--out", tmp_path / "hf")
    assert result.exit_code == 1
    assert "no trained model here" in result.stderr
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_weights_of_less_precision(taught: Any, tmp_path: Path, dtype: str, kind: Any) -> None:
    assert run_script(taught.run, "--out", tmp_path / "hf", "--dtype", dtype).exit_code == 0
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {kind}
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == str(kind).removeprefix("torch.")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert theirs.dtype == kind
    for name, ours in taught.model.state_dict().items():
        if "norm" in name:
            torch.testing.assert_close(theirs.state_dict()[name], ours.to(kind), atol=0, rtol=0)


def test_a_value_beyond_float16_is_not_made_infinite(
    make_config: MakeConfig, save: Callable[..., Path], tokenizer_path: Path, tmp_path: Path
) -> None:
    model = LlamaForCausalLM(make_config(vocab_size=384))
    with torch.no_grad():
        model.model.norm.weight[3] = 70_000
    run = save(tmp_path / "run", model, tokenizer_path)
    result = run_script(run, "--out", tmp_path / "hf", "--dtype", "fp16")
    assert result.exit_code == 1
    assert "model.norm.weight" in result.stderr
    assert "bf16" in result.stderr
    assert run_script(run, "--out", tmp_path / "hf", "--dtype", "bf16").exit_code == 0


def test_large_weights_are_split_over_files(
    taught: Any, tokenizer: LoadedTokenizer, tmp_path: Path
) -> None:
    out = tmp_path / "hf"
    assert run_script(taught.run, "--out", out, "--max-shard-gb", 0.00006).exit_code == 0
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert len(files) > 2
    assert files == sorted(set(index["weight_map"].values()))
    stored = {file: load_file(out / file) for file in files}
    assert {name: file for file in files for name in stored[file]} == index["weight_map"]
    total = sum(t.nbytes for tensors in stored.values() for t in tensors.values())
    assert index["metadata"]["total_size"] == total
    for file, tensors in stored.items():
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 60_000, file
    theirs = AutoModelForCausalLM.from_pretrained(out)
    ids = torch.randint(0, tokenizer.vocab_size, (2, 20))
    with torch.no_grad():
        expected = taught.model(ids)[..., : tokenizer.vocab_size]
        torch.testing.assert_close(theirs(ids).logits, expected, atol=1e-5, rtol=0)
    # Exported again whole, nothing of the pieces is left.
    assert run_script(taught.run, "--out", out).exit_code == 0
    assert [path.name for path in out.glob("*safetensors*")] == ["model.safetensors"]


def test_what_servers_need_is_there(exported: Path, hf_tokenizer: Any, taught: Any) -> None:
    """vLLM cannot be run in these tests; these are the keys that it reads."""
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    for name in ("num_key_value_heads", "head_dim", "max_position_embeddings", "rope_theta"):
        assert config[name] == getattr(taught.model.config, name)
    assert config["tie_word_embeddings"] is True
    generation = json.loads((exported / "generation_config.json").read_text())
    assert generation["eos_token_id"] == config["eos_token_id"] == hf_tokenizer.eos_token_id
    texts = [
        hf_tokenizer.apply_chat_template(
            chat("Mở rèm"), tokenize=False, add_generation_prompt=prompt
        )
        for prompt in (True, False)
    ]
    assert texts == ["[BOS]Mở rèm[SEP]"] * 2
