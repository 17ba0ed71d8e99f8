"""What a tokenizer must offer, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from vnprep.errors import TokenizerError
from vnprep.tokenizer.encode import ReferenceEncoder, encode, holds_special
from vnprep.tokenizer.fast import FastEncoder
from vnprep.tokenizer.load import load_tokenizer, parse_tokenizer
from vnprep.tokenizer.special import SpecialIds, find_special_ids
from vnprep.tokenizer.train import to_text, train_tokenizer


def test_a_trained_tokenizer_has_the_special_tokens_first(bpe_path: Path) -> None:
    loaded = load_tokenizer(bpe_path)
    assert loaded.special == SpecialIds(pad=0, bos=1, eos=2, sep=3)
    assert loaded.vocab_size == loaded.backend.get_vocab_size()


def test_transformers_loads_it_as_it_is(bpe_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_file=str(bpe_path))
    text = "Bật quạt phòng ngủ, 25 độ!"
    ids = load_tokenizer(bpe_path).backend.encode(text, add_special_tokens=False).ids
    assert fast.encode(text, add_special_tokens=False) == ids
    assert fast.decode(ids) == text


def test_training_is_deterministic() -> None:
    texts = [f"câu số {number} về thời tiết" for number in range(200)]
    assert to_text(train_tokenizer(texts, 400)) == to_text(train_tokenizer(texts, 400))


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_nfc_text_comes_back(bpe_path: Path, text: str) -> None:
    import unicodedata

    loaded = load_tokenizer(bpe_path)
    text = unicodedata.normalize("NFC", text)
    ids, offsets = encode(loaded, [text, text])
    assert offsets.tolist() == [0, len(ids) // 2, len(ids)]
    assert loaded.backend.decode(ids[: offsets[1]].tolist(), skip_special_tokens=False) == text
    assert not holds_special(ids, offsets, loaded).any()


def test_pad_that_is_eos_is_refused(bpe_path: Path) -> None:
    with pytest.raises(TokenizerError, match="never learns to stop"):
        load_tokenizer(bpe_path, {"pad": "[EOS]"})
    with pytest.raises(TokenizerError, match="share an id"):
        SpecialIds(0, 1, 2, 1)


def test_missing_special_tokens_are_named(tmp_path: Path) -> None:
    content = json.loads(to_text(train_tokenizer(["a"], 300)))
    content["added_tokens"] = []
    content["model"]["vocab"].pop("[SEP]")
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=r"no token for sep \(\[SEP\]\)") as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)
    assert "--special" in caught.value.remedy


def test_other_names_can_be_given() -> None:
    vocabulary = {"<pad>": 5, "<s>": 6, "</s>": 7, "<sep>": 8}
    names = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "sep": "<sep>"}
    assert find_special_ids(vocabulary, names) == SpecialIds(5, 6, 7, 8)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such tokenizer file"):
        load_tokenizer(tmp_path / "t.json")
    (tmp_path / "t.json").write_text('{"a": 1}')
    with pytest.raises(TokenizerError, match=r"not a tokenizer\.json"):
        load_tokenizer(tmp_path / "t.json")


def test_the_fingerprint_is_of_the_content_not_the_layout(bpe_path: Path) -> None:
    text = bpe_path.read_text(encoding="utf-8")
    loaded = parse_tokenizer(text)
    assert parse_tokenizer(json.dumps(json.loads(text))).fingerprint == loaded.fingerprint
    changed = json.loads(text)
    changed["normalizer"] = None
    assert parse_tokenizer(json.dumps(changed)).fingerprint != loaded.fingerprint
    special = SpecialIds(pad=0, bos=1, eos=3, sep=2)
    assert parse_tokenizer(text, special=special).fingerprint != loaded.fingerprint


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(TokenizerError, match="cannot hold the 256 bytes"):
        train_tokenizer(["a"], 100)


def test_a_foreign_template_or_truncation_in_the_file_has_no_effect(bpe_path: Path) -> None:
    foreign = Tokenizer.from_file(str(bpe_path))
    foreign.enable_truncation(2)
    foreign.enable_padding(length=50)
    ids, _ = encode(parse_tokenizer(foreign.to_str()), ["Bật quạt phòng ngủ lên mức 2"])
    plain, _ = encode(load_tokenizer(bpe_path), ["Bật quạt phòng ngủ lên mức 2"])
    assert ids.tolist() == plain.tolist()


def test_a_tokenizer_that_drops_merges_at_random_gives_the_same_ids_every_time(
    bpe_path: Path,
) -> None:
    content = json.loads(bpe_path.read_text(encoding="utf-8"))
    content["model"]["dropout"] = 0.5
    tokenizer = parse_tokenizer(json.dumps(content))
    plain = parse_tokenizer(bpe_path.read_text(encoding="utf-8"))
    text = pa.array(["Bật quạt phòng ngủ lên mức hai " * 20], type=pa.large_string())
    wanted = ReferenceEncoder(plain).encode(text)[0].tolist()
    for encoder in (ReferenceEncoder(tokenizer), FastEncoder(tokenizer)):
        assert all(encoder.encode(text)[0].tolist() == wanted for _ in range(5))
