"""A tokenizer that loses Vietnamese letters is found out, and what it loses is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from vnprep.config import PrepareConfig, ReadOptions
from vnprep.run.estimate import estimate
from vnprep.run.prepare import prepare
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer, parse_tokenizer
from vnprep.tokenizer.probe import lost_letters, vietnamese_letters, warning
from vnprep.tokenizer.special import SPECIAL_TOKENS


@pytest.fixture
def poor() -> LoadedTokenizer:
    """Give a BPE tokenizer of characters that has no đ, and takes accents off."""
    letters = [*"abcdeghiklmnopqrstuvxy "]
    vocabulary = {text: number for number, text in enumerate([*SPECIAL_TOKENS, "?", *letters])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="?"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return parse_tokenizer(backend.to_str())


def test_there_are_all_letters() -> None:
    letters = vietnamese_letters()
    assert len(letters) == len(set(letters)) == 2 * (12 * 6 + 17)
    assert {"ộ", "Ặ", "đ", "Đ", "ỹ", "y"} <= set(letters)


def test_our_own_lose_nothing(bpe_path: Path) -> None:
    assert lost_letters(load_tokenizer(bpe_path)) == []
    assert warning(load_tokenizer(bpe_path)) == ""


def test_a_poor_one_is_told_and_its_losses_are_counted(
    tmp_path: Path, poor: LoadedTokenizer
) -> None:
    lost = lost_letters(poor)
    assert {"đ", "ộ", "A"} <= set(lost) and "a" not in lost
    path = tmp_path / "a.txt"
    path.write_text("an co\nđi đâu\nba\nđen\n", encoding="utf-8")
    told: list[str] = []
    config = PrepareConfig("pretrain", ReadOptions("text", text_split="line"))
    manifest = prepare([str(path)], tmp_path / "out", config, poor, tell=told.append).manifest
    assert told[0] == warning(poor)
    assert "loses 156 of the 178 letters of Vietnamese (à á ã ả ạ ă ằ ắ …)" in told[0]
    assert manifest.ledger.noted["unknown-token"] == 2
    assert manifest.ledger.kept == 4
    short = replace(config, max_len=5)  # what is dropped anyway is no loss of the tokenizer's
    manifest = prepare([str(path)], tmp_path / "short", short, poor).manifest
    assert manifest.ledger.dropped == {"too-long": 1}
    assert manifest.ledger.noted["unknown-token"] == 1
    foretold: list[str] = []
    estimate([str(path)], tmp_path / "other", config, poor, tell=foretold.append)
    assert foretold == told[:1]
