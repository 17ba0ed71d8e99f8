"""Training gives exactly the tokenizer that the trainer of ``tokenizers`` gives."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vnprep.errors import TokenizerError
from vnprep.tokenizer.special import SPECIAL_TOKENS
from vnprep.tokenizer.train import to_text, train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = [
    line.split("\t")[1]
    for line in (ROOT / "data" / "pretrain.tsv").read_text(encoding="utf-8").splitlines()[1:]
]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_result_is_that_of_tokenizers_itself(form: str) -> None:
    texts = [unicodedata.normalize(form, sentence) for sentence in SENTENCES]
    ours = train_tokenizer(texts, 600)
    theirs = Tokenizer(models.BPE())
    theirs.normalizer = normalizers.NFC()
    theirs.pre_tokenizer = ours.pre_tokenizer
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    theirs.train_from_iterator(texts, trainer=trainer)
    assert json.loads(to_text(ours)) == json.loads(theirs.to_str())
    assert ours.get_vocab_size() == 600


def test_a_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    with pytest.raises(TokenizerError, match="--vocab-size 260 or more"):
        train_tokenizer(["a"], 259)
    assert train_tokenizer(["a"], 260).get_vocab_size() == 260
