"""Models of others: the same logits, every id as it was, rows for new tokens, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from adopt import complete_tokenizer
from adopt import main as adopt_command
from modeling.huggingface import INDEX_NAME, is_huggingface, weights_identity
from modeling.start import adopt, load_start, start_config, start_identity
from modeling.vocabulary import check_extends, choose_tokens
from modeling.weights import load_model
from tests.train.foreign import END, foreign_tokenizer, hf_config, write_hf, write_tokenizer
from vnprep.errors import TrainingError
from vnprep.tokenizer.encode import encode
from vnprep.tokenizer.load import load_tokenizer, parse_tokenizer


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out = model(ids)
    return out.logits if hasattr(out, "logits") else out


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["5GB", "40KB"])
def test_a_model_of_others_gives_the_logits_that_transformers_gives(
    tmp_path: Path, tied: bool, shard: str
) -> None:
    theirs = write_hf(tmp_path, hf_config(tie_word_embeddings=tied), shard=shard)
    assert (tmp_path / INDEX_NAME).exists() == (shard == "40KB")
    tokenizer, _ = complete_tokenizer(tmp_path, {})
    ours = adopt(tmp_path, tokenizer)
    known = theirs.config.vocab_size
    ids = torch.randint(0, 301, (2, 24))
    got = logits(ours, ids)
    assert got.shape[-1] == 384, "a multiple of 128 that holds 310 rows"
    new = [tokenizer.special.bos, tokenizer.special.pad, tokenizer.special.sep]
    kept = [number for number in range(known) if number not in new]
    torch.testing.assert_close(got[..., kept], logits(theirs, ids)[..., kept], rtol=0, atol=1e-5)
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == tied


def test_new_tokens_get_the_mean_of_the_known_rows_and_the_others_stay(tmp_path: Path) -> None:
    # 310 rows for 301 tokens: rows that nothing has trained stand where the new ids go.
    theirs = write_hf(tmp_path, hf_config(tie_word_embeddings=False))
    known = len(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]) + 1
    tokenizer, tokens = complete_tokenizer(tmp_path, {})
    assert tokens["eos"] == END, "pad names it too, but it is the end that was learned"
    assert (tokenizer.special.eos, tokenizer.special.bos) == (known - 1, known)
    assert sorted(tokenizer.special.as_dict().values()) == list(range(known - 1, known + 3))
    ours = adopt(tmp_path, tokenizer)
    for mine, original in (
        (ours.model.embed_tokens.weight, theirs.model.embed_tokens.weight),
        (ours.lm_head.weight, theirs.lm_head.weight),
    ):
        torch.testing.assert_close(mine[:known], original[:known], rtol=0, atol=0)
        mean = original[:known].mean(0)
        for number in (known, known + 1, known + 2, 383):
            torch.testing.assert_close(mine[number], mean)
        torch.testing.assert_close(mine[known + 3 : 310], original[known + 3 :], rtol=0, atol=0)


def test_text_is_cut_as_before_and_the_letters_of_new_tokens_are_text(tmp_path: Path) -> None:
    write_hf(tmp_path, hf_config())
    old = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer, _ = complete_tokenizer(tmp_path, {})
    texts = ["Bật quạt phòng ngủ", "[SEP] [BOS] ở giữa"]
    ids, offsets = encode(tokenizer, texts)
    for text, start, end in zip(texts, offsets[:-1], offsets[1:], strict=True):
        assert ids[start:end].tolist() == old.encode(text).ids


def test_tokens_that_the_files_name_are_kept_when_they_are_distinct() -> None:
    vocabulary = {"<s>": 0, "</s>": 1, "<pad>": 2, "x": 3}
    stated = {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}
    assert choose_tokens(vocabulary, stated, {}) == stated | {"sep": "[SEP]"}
    asked = choose_tokens(vocabulary, stated, {"sep": "<pad>"})
    assert (asked["sep"], asked["pad"]) == ("<pad>", "[PAD]")
    shared = choose_tokens(vocabulary, {"bos": "</s>", "eos": "</s>", "pad": "gone"}, {})
    assert shared == {"eos": "</s>", "bos": "[BOS]", "pad": "[PAD]", "sep": "[SEP]"}
    with pytest.raises(TrainingError, match="two roles have one token"):
        choose_tokens(vocabulary, stated, {"sep": "<pad>", "pad": "<pad>"})


def test_a_tokenizer_with_tokens_added_by_others_will_do_another_will_not(tmp_path: Path) -> None:
    base = foreign_tokenizer(END)
    added = write_tokenizer(tmp_path / "added.json", base, "<a>", "<b>")
    assert check_extends(base, base) == []
    assert check_extends(base, added) == [301, 302]
    with pytest.raises(TrainingError, match=r"'<a>', id 301 .* is missing"):
        check_extends(added, base)
    moved = json.loads(base)
    vocabulary = moved["model"]["vocab"]
    vocabulary["!"], vocabulary['"'] = vocabulary['"'], vocabulary["!"]
    with pytest.raises(TrainingError, match=r"token '!', id 0 in the model's tokenizer, has id 1"):
        check_extends(base, json.dumps(moved))
    other = json.loads(base)
    other["pre_tokenizer"]["add_prefix_space"] = True
    with pytest.raises(TrainingError, match="its pre-tokenizer differs"):
        check_extends(base, json.dumps(other))
    fewer = json.loads(base)
    fewer["model"]["merges"] = fewer["model"]["merges"][:-1]
    with pytest.raises(TrainingError, match="its model differs"):
        check_extends(base, json.dumps(fewer))


@pytest.mark.parametrize("tied", [True, False])
def test_adopting_writes_a_model_that_starts_as_the_folder_itself_does(
    tmp_path: Path, tied: bool
) -> None:
    source, out = tmp_path / "hf", tmp_path / "out"
    config = hf_config(tie_word_embeddings=tied, dtype="bfloat16")
    write_hf(source, config)
    result = CliRunner().invoke(adopt_command, [str(source), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "sep      303  [SEP]  (new)" in result.output
    assert f"--special 'eos={END}'" in result.output
    loaded = load_model(out)
    tokenizer = load_tokenizer(out, {"eos": END})
    assert loaded.fingerprint == tokenizer.fingerprint
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {
        torch.bfloat16
    }
    direct = load_start(source, tokenizer)
    torch.testing.assert_close(loaded.model.state_dict(), direct.state_dict(), rtol=0, atol=0)
    assert start_config(out, tokenizer) == start_config(source, tokenizer) == direct.config
    again = CliRunner().invoke(adopt_command, [str(source), "--out", str(out)])
    assert again.exit_code == 1 and "is not empty" in again.output


def test_the_tokenizer_alone(tmp_path: Path) -> None:
    write_hf(tmp_path / "hf", hf_config())
    arguments = [str(tmp_path / "hf"), "--out", str(tmp_path / "t"), "--tokenizer-only"]
    result = CliRunner().invoke(adopt_command, [*arguments, "--special", "sep=<|im_sep|>"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["tokenizer.json"]
    tokenizer = load_tokenizer(tmp_path / "t", {"eos": END, "sep": "<|im_sep|>"})
    assert adopt(tmp_path / "hf", tokenizer).config.eos_token_id == tokenizer.special.eos
    assert f"--init {tmp_path / 'hf'}" in result.output


def test_the_identity_of_a_start_is_its_weights(tmp_path: Path) -> None:
    write_hf(tmp_path, hf_config())
    assert is_huggingface(tmp_path)
    before = weights_identity(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"] += 1e-3
    save_file(tensors, tmp_path / "model.safetensors")
    assert start_identity(tmp_path) != before


def damage(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights) if weights.exists() else {}
    if how == "no weights":
        weights.unlink()
    elif how == "a shard is missing":
        next(folder.glob("model-00002*")).unlink()
    elif how == "an index that leads out":
        (folder / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
        weights.unlink()
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "a tensor is missing":
        del tensors["model.norm.weight"]
        save_file(tensors, weights)
    elif how == "quantised":
        tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
        save_file(tensors, weights)
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no weights", "no model.safetensors and no"),
        ("a shard is missing", r"1 of \d+ shards are missing: model-00002"),
        ("an index that leads out", "names no files of this folder"),
        ("cut", "cannot be read"),
        ("a tensor is missing", "model.norm.weight is missing"),
        ("quantised", "stored as int8: a quantised model"),
        ("no tokenizer", r"no tokenizer\.json here"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_by_name(
    tmp_path: Path, how: str, message: str
) -> None:
    write_hf(tmp_path, hf_config(), shard="40KB" if "shard" in how else "5GB")
    tokenizer, _ = complete_tokenizer(tmp_path, {})
    damage(tmp_path, how)
    with pytest.raises(TrainingError, match=message):
        adopt(tmp_path, tokenizer)


def test_another_architecture_and_another_tokenizer_are_refused(tmp_path: Path) -> None:
    write_hf(tmp_path, hf_config())
    names = {"pad": "<p>", "bos": "<b>", "eos": END, "sep": "<s>"}
    other = parse_tokenizer(foreign_tokenizer(*names.values()), names)
    with pytest.raises(TrainingError, match="not that of the model with tokens added"):
        start_config(tmp_path, other)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"model_type": "mamba"}))
    tokenizer, _ = complete_tokenizer(tmp_path, {})
    with pytest.raises(TrainingError, match="mamba"):
        adopt(tmp_path, tokenizer)
