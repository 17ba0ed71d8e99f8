"""Hugging Face's own library reads shards and exports; transformers' own loss is the contract's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vnprep.export.huggingface import IGNORED, HuggingFace
from vnprep.shards.read import ShardSet

datasets = pytest.importorskip(
    "datasets", reason="datasets is not installed (pip install datasets)"
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def test_load_dataset_reads_the_shards_as_they_are(prepare: Any, tmp_path: Path) -> None:
    prepared = prepare()
    files = [str(path) for path in sorted(prepared.folder.glob("*.arrow"))]
    assert len(files) == 3
    rows = datasets.load_dataset(
        "arrow", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    shards = ShardSet.open(prepared.folder)
    assert len(rows) == len(shards) == 57
    for theirs, ours in zip(rows, shards, strict=True):
        assert theirs["input"] == ours.input.tolist()
        assert theirs["target"] == ours.target.tolist()
        assert theirs["loss_mask"] == ours.loss_mask.tolist()
        assert (theirs["source"], theirs["line"]) == (ours.origin.source, ours.origin.line)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("words", [96, 70_000], ids=["uint16", "int32"])
@pytest.mark.parametrize("eos_loss", [True, False])
def test_load_from_disk_gives_every_token_of_every_row(
    prepare: Any, run_export: Any, tmp_path: Path, stage: str, words: int, eos_loss: bool
) -> None:
    prepared = prepare(stage, words=words, eos_loss=eos_loss)
    # One byte, so that every record batch gets a file of its own.
    run_export(prepared.folder, HuggingFace(file_bytes=1), tmp_path / "hf")
    assert len(list((tmp_path / "hf").glob("data-*.arrow"))) == 3
    rows = datasets.load_from_disk(str(tmp_path / "hf"))
    assert rows.column_names == ["input_ids", "labels"]
    assert list(rows["input_ids"]) == prepared.sequences
    assert list(rows["labels"]) == [
        [token if learnt else IGNORED for token, learnt in zip(*pair, strict=True)]
        for pair in zip(prepared.sequences, prepared.learnt, strict=True)
    ]


def test_shifted_gives_the_columns_as_stored(prepare: Any, run_export: Any, tmp_path: Path) -> None:
    prepared = prepare()
    run_export(prepared.folder, HuggingFace(shifted=True), tmp_path / "hf")
    rows = datasets.load_from_disk(str(tmp_path / "hf"))
    for theirs, ours in zip(rows, ShardSet.open(prepared.folder), strict=True):
        assert theirs["input_ids"] == ours.input.tolist()
        labels = zip(ours.target.tolist(), ours.loss_mask.tolist(), strict=True)
        assert theirs["labels"] == [target if mask else IGNORED for target, mask in labels]


def test_load_dataset_streams_the_export(prepare: Any, run_export: Any, tmp_path: Path) -> None:
    prepared = prepare()
    run_export(prepared.folder, HuggingFace(file_bytes=1), tmp_path / "hf")
    rows = datasets.load_dataset(
        "arrow",
        data_files=str(tmp_path / "hf" / "data-*.arrow"),
        split="train",
        streaming=True,
        cache_dir=str(tmp_path / "cache"),
    )
    assert [row["input_ids"] for row in rows] == prepared.sequences


@pytest.fixture
def tiny_model() -> Callable[[int], Any]:
    """Return ``make(vocab_size)`` → a small causal model of transformers with random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def make(vocab_size: int) -> Any:
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
        return transformers.LlamaForCausalLM(config).eval()

    return make


def test_the_loss_of_transformers_is_the_loss_of_the_stored_columns(
    prepare: Any, run_export: Any, tiny_model: Any, tmp_path: Path
) -> None:
    import torch
    from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

    prepared = prepare()
    run_export(prepared.folder, HuggingFace(), tmp_path / "hf")
    shards = ShardSet.open(prepared.folder)
    model = tiny_model(shards.manifest.tokenizer.vocab_size)
    rows = datasets.load_from_disk(str(tmp_path / "hf")).select(range(8))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "hf" / "tokenizer.json"), pad_token="[PAD]"
    )
    batch = DataCollatorForSeq2Seq(tokenizer)([dict(row) for row in rows])
    assert batch["attention_mask"].sum() == sum(map(len, prepared.sequences[:8]))
    with torch.no_grad():
        theirs = model(**batch).loss.item()
        total, count = 0.0, 0
        for number in range(8):
            ids, target, mask = (torch.tensor(part.tolist()) for part in shards.arrays(number))
            logits = model(input_ids=ids[None]).logits[0]
            loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
            total += float((loss * mask).sum())
            count += int(mask.sum())
    assert math.isclose(theirs, total / count, rel_tol=1e-5)
