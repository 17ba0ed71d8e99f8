"""Data for measuring training: the sample sentences, strung together to documents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vnprep.config import PrepareConfig, ReadOptions
from vnprep.run.prepare import prepare
from vnprep.shards.read import ShardSet
from vnprep.tokenizer.load import parse_tokenizer
from vnprep.tokenizer.train import to_text, train_tokenizer

ROOT = Path(__file__).resolve().parents[3]


def make_data(folder: Path, tokens: int, supervised: float, longest: int) -> ShardSet:
    """Prepare documents of lognormal length, as texts on the web have; the same each time.

    Args:
        folder: an empty one.
        tokens: at least so many.
        supervised: share of them that carries loss: 1 makes pretraining data, less pairs whose
            response has that share.
        longest: tokens of a pair, at most; it is never cut.
    """
    rng = np.random.default_rng(0)
    lines = (ROOT / "data/pretrain.tsv").read_text(encoding="utf-8").splitlines()[1:]
    sentences = [line.split("\t")[0].removeprefix("[BOS] ") for line in lines]
    tokenizer = parse_tokenizer(to_text(train_tokenizer(sentences, 2000)))
    written, path = 0, folder / "documents.jsonl"
    with path.open("w", encoding="utf-8") as file:
        while written < tokens:
            count = max(2, int(rng.lognormal(2.5, 1.0)))
            if supervised < 1:
                count = min(count, max(2, longest // 40))
            chosen = [sentences[at] for at in rng.integers(len(sentences), size=count)]
            cut = max(1, round(count * (1 - supervised)))
            asked, answered = " ".join(chosen[:cut]), " ".join(chosen[cut:])
            pair = {"request": asked, "response": answered}
            row = {"text": " ".join(chosen)} if supervised == 1 else pair
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 16 * count  # a sentence has some 16 tokens
    config = PrepareConfig(
        "pretrain" if supervised == 1 else "finetune",
        ReadOptions("text" if supervised == 1 else "pairs"),
    )
    prepare([str(path)], folder / "data", config, tokenizer)
    return ShardSet.open(folder / "data")
