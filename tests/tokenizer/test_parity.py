"""The fast encoder serves only where it gives the reference's ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from vnprep.errors import EncoderMismatch
from vnprep.tokenizer import parity
from vnprep.tokenizer.encode import Encoder, Offsets, ReferenceEncoder, TokenIds
from vnprep.tokenizer.fast import FastEncoder
from vnprep.tokenizer.load import LoadedTokenizer, parse_tokenizer
from vnprep.tokenizer.parity import UnitCheck, choose_encoder, first_difference, sample
from vnprep.tokenizer.special import SPECIAL_TOKENS
from vnprep.tokenizer.train import to_text, train_tokenizer
from vnprep.vietnamese.normalize import to_nfc

ROOT = Path(__file__).parents[2]


def texts_of(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, type=pa.large_string())


@pytest.fixture(scope="module")
def trained() -> LoadedTokenizer:
    """Give a tokenizer trained on the project's own sentences."""
    lines = (ROOT / "data/pretrain.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return parse_tokenizer(to_text(train_tokenizer(lines, 600)))


def changed(tokenizer: LoadedTokenizer, **parts: object) -> LoadedTokenizer:
    return parse_tokenizer(json.dumps(json.loads(tokenizer.text) | parts))


def test_the_fast_encoder_serves_our_own_tokenizers(trained: LoadedTokenizer) -> None:
    choice = choose_encoder(trained, texts_of("Bật quạt phòng ngủ"))
    assert choice.name == "gigatoken" and not choice.reason


@settings(deadline=None)
@given(st.lists(st.text(max_size=40).map(to_nfc), max_size=8))
def test_the_same_ids_for_any_text(trained: LoadedTokenizer, texts: list[str]) -> None:
    given = texts_of(*texts)
    for array in (given, given.slice(len(texts) // 2)):
        ids, offsets = FastEncoder(trained).encode(array)
        wanted, wanted_offsets = ReferenceEncoder(trained).encode(array)
        assert ids.dtype == wanted.dtype == np.uint32
        assert ids.tolist() == wanted.tolist()
        assert offsets.tolist() == wanted_offsets.tolist()


def test_special_tokens_in_a_text_are_text(trained: LoadedTokenizer) -> None:
    ids, _ = FastEncoder(trained).encode(texts_of("[EOS] [PAD][BOS]"))
    assert not set(ids.tolist()) & set(trained.special.as_dict().values())


def test_a_tokenizer_that_it_does_not_know_falls_back_and_says_so() -> None:
    words = {token: number for number, token in enumerate([*SPECIAL_TOKENS, "một", "[UNK]"])}
    whole_words = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    whole_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    choice = choose_encoder(parse_tokenizer(whole_words.to_str()), texts_of("một hai"))
    assert choice.name == "tokenizers" and "gigatoken" in choice.reason


def test_an_ordinary_added_token_counts(trained: LoadedTokenizer) -> None:
    """Both must find it in the text, or the reference serves."""
    content = json.loads(trained.text)
    token = {
        "id": 600,
        "content": "phòng ngủ",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    }
    given = changed(trained, added_tokens=[*content["added_tokens"], token])
    text = texts_of("Bật quạt phòng ngủ lên")
    wanted, _ = ReferenceEncoder(given).encode(text)
    assert 600 in wanted.tolist()
    choice = choose_encoder(given, texts_of())
    encoder = parity.make_encoder(given, choice.name)
    assert encoder.encode(text)[0].tolist() == wanted.tolist()


class Wrong:
    """An encoder that errs on one word, as a fast one might on a rare character."""

    name = "gigatoken"

    def __init__(self, tokenizer: LoadedTokenizer, word: str) -> None:
        self._real: Encoder = ReferenceEncoder(tokenizer)
        self._word = word

    def encode(self, texts: pa.LargeStringArray) -> tuple[TokenIds, Offsets]:
        ids, offsets = self._real.encode(texts)
        for number, text in enumerate(texts.to_pylist()):
            if self._word in text:
                ids[offsets[number]] += 1
        return ids, offsets


def test_a_difference_is_found_where_it_is(trained: LoadedTokenizer) -> None:
    texts = texts_of("một", "hai", "ba quạt", "quạt")
    wrong = Wrong(trained, "quạt")
    assert first_difference(ReferenceEncoder(trained), wrong, texts) == 2
    assert first_difference(ReferenceEncoder(trained), wrong, texts.slice(0, 2)) is None


def test_the_sample_of_the_input_decides(
    trained: LoadedTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "FastEncoder", lambda tokenizer: Wrong(tokenizer, "quạt trần"))
    choice = choose_encoder(trained, texts_of("đèn bàn", "quạt trần"))
    assert choice.name == "tokenizers" and "quạt trần" in choice.reason


def test_every_unit_is_checked_once(trained: LoadedTokenizer) -> None:
    check = UnitCheck(trained, Wrong(trained, "quạt"))
    with pytest.raises(EncoderMismatch, match="quạt"):
        check(texts_of("cái quạt"))
    check = UnitCheck(trained, FastEncoder(trained))
    check(texts_of())
    check(texts_of("cái quạt"))


def test_samples_are_small_and_whole_characters() -> None:
    assert sample(texts_of("ab", "cd", "ef"), 4).to_pylist() == ["ab", "cd"]
    assert sample(texts_of("đđđđ", "b"), 5).to_pylist() == ["đđ"]
    assert sample(texts_of(), 5).to_pylist() == []
    assert sample(texts_of("a", "b").slice(1), 5).to_pylist() == ["b"]
