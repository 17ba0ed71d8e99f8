"""The bytes that bits per byte are counted over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from trainer import text_bytes
from trainer.text_bytes import supervised_bytes
from vnprep.shards.read import ShardSet

RESPONSES = ["Đã bật quạt phòng ngủ", "Không, đèn đang tắt 🙂", "Chưa"]
TEXTS = ["Trời hôm nay nóng quá.", "Ừ.", "Quạt phòng ngủ đang bật"]


@pytest.fixture(params=["byte-level", "metaspace"])
def any_tokenizer(request: pytest.FixtureRequest, bpe_path: Path, tmp_path: Path) -> Path:
    """Two tokenizers that lose nothing of the texts: one counts by tokens, one must decode."""
    if request.param == "byte-level":
        return bpe_path
    letters = sorted({letter for text in [*RESPONSES, *TEXTS, "Bật Tắt Mở"] for letter in text})
    names = ["[PAD]", "[BOS]", "[EOS]", "[SEP]", "[UNK]", "▁", *letters]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    path = tmp_path / "metaspace.json"
    tokenizer.save(str(path))
    return path


def prepare(vnprep: Callable[..., object], *arguments: object) -> ShardSet:
    outcome = vnprep(*arguments)
    assert outcome.code == 0, outcome.err  # type: ignore[attr-defined]
    return ShardSet.open(Path(str(arguments[-1])))


def test_the_responses_count(
    vnprep: Callable[..., object], any_tokenizer: Path, tmp_path: Path
) -> None:
    lines = ["request\tresponse", *(f"Bật\t{response}" for response in RESPONSES)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["finetune-pairs", tmp_path / "pairs.tsv", "--tokenizer", any_tokenizer]
    shards = prepare(vnprep, *command, "--out", tmp_path / "ft")
    assert supervised_bytes(shards) == sum(len(text.encode()) for text in RESPONSES)


def test_the_documents_count(
    vnprep: Callable[..., object],
    any_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    command = ["pretrain-text", tmp_path / "text.txt", "--split", "line"]
    command += ["--tokenizer", any_tokenizer]
    shards = prepare(vnprep, *command, "--out", tmp_path / "pre")
    monkeypatch.setattr(text_bytes, "_ROWS", 2)
    assert supervised_bytes(shards) == sum(len(text.encode()) for text in TEXTS)
