"""A model on disk: it comes back the same, or is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling.card import CARD_NAME, read_card
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from modeling.weights import load_model, write_tensors
from vnprep.durable import sha256_file
from vnprep.errors import TrainingError
from vnprep.tokenizer.load import LoadedTokenizer

MakeConfig = Callable[..., ModelConfig]
Save = Callable[..., Path]


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_comes_back(
    make_config: MakeConfig,
    save: Save,
    tokenizer_path: Path,
    tokenizer: LoadedTokenizer,
    tmp_path: Path,
    tied: bool,
) -> None:
    model = LlamaForCausalLM(make_config(vocab_size=384, tie_word_embeddings=tied))
    run = save(tmp_path, model, tokenizer_path)
    for folder in (run, run / "model"):
        loaded = load_model(folder)
        assert loaded.config == model.config
        torch.testing.assert_close(loaded.model.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert all(p.requires_grad for p in loaded.model.parameters())
    shared = loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert shared == tied
    assert (loaded.special, loaded.fingerprint) == (tokenizer.special, tokenizer.fingerprint)
    assert loaded.stage == "finetune"
    assert loaded.tokenizer().fingerprint == tokenizer.fingerprint
    assert read_card(run) == loaded.card


def test_bfloat16_weights_are_stored_as_they_are_and_loaded_as_asked(
    make_config: MakeConfig, save: Save, tokenizer_path: Path, tmp_path: Path
) -> None:
    model = LlamaForCausalLM(make_config(vocab_size=384)).bfloat16()
    run = save(tmp_path, model, tokenizer_path)
    stored = load_file(run / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert load_model(run).model.lm_head.weight.dtype == torch.float32
    again = load_model(run, dtype=torch.bfloat16).model
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_the_weights_file_is_what_the_library_would_read(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "half": torch.randn(7).half(),
        "brain": torch.randn(2, 2, 2).bfloat16(),
    }
    write_tensors(tmp_path / "ours", tensors)
    torch.testing.assert_close(load_file(tmp_path / "ours"), tensors, rtol=0, atol=0)
    header = int.from_bytes((tmp_path / "ours").read_bytes()[:8], "little")
    assert header % 8 == 0, "tensors are aligned for those who map the file"


@pytest.fixture
def run(taught: Any, tmp_path: Path) -> Path:
    """A copy of a run folder, to be damaged."""
    return Path(shutil.copytree(taught.run, tmp_path / "run"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_changed_file_is_named(run: Path, name: str) -> None:
    file = run / "model" / name
    raw = bytearray(file.read_bytes())
    raw[-2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(TrainingError) as caught:
        load_model(run)
    assert caught.value.place is not None
    assert caught.value.place.endswith(name)
    file.unlink()
    with pytest.raises(TrainingError, match=name):
        load_model(run)


def test_an_unfinished_model_is_no_model(run: Path) -> None:
    (run / "model" / CARD_NAME).unlink()
    with pytest.raises(TrainingError, match="no trained model here"):
        load_model(run)


def test_a_save_that_fails_leaves_no_model_for_whole(
    run: Path, taught: Any, save: Save, tokenizer_path: Path
) -> None:
    broken = LlamaForCausalLM(taught.model.config).double()  # not a precision that is stored
    with pytest.raises(KeyError):
        save(run, broken, tokenizer_path)
    with pytest.raises(TrainingError, match="no trained model here"):
        load_model(run)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other", "format_version": 1}'])
def test_a_damaged_record_is_refused(run: Path, content: str) -> None:
    (run / "model" / CARD_NAME).write_text(content)
    with pytest.raises(TrainingError, match="not a record"):
        load_model(run)


def rewrite(run: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights and have the record vouch for them."""
    file, card = run / "model" / "model.safetensors", run / "model" / CARD_NAME
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    body = json.loads(card.read_text())
    body["sha256"][file.name] = sha256_file(file)
    card.write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is not part of the model"),
        (
            lambda t: t.update({"model.norm.weight": torch.zeros(3)}),
            r"model.norm.weight has shape \(3,\), the model needs \(48,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    run: Path, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    rewrite(run, change)
    with pytest.raises(TrainingError, match=words):
        load_model(run)


def test_another_tokenizer_is_refused(run: Path) -> None:
    file, card = run / "model" / "tokenizer.json", run / "model" / CARD_NAME
    content = json.loads(file.read_text())
    content["model"]["merges"].pop()
    file.write_text(json.dumps(content))
    body = json.loads(card.read_text())
    body["sha256"][file.name] = sha256_file(file)
    card.write_text(json.dumps(body))
    with pytest.raises(TrainingError, match="not the one that the model was trained with"):
        load_model(run).tokenizer()
