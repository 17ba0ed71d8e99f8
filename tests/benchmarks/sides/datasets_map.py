"""The other side: ``datasets.map``, batched, with the same tokenizer and the same three columns.

Usage: datasets_map.py INPUT.jsonl TOKENIZER OUT PROCESSES pretrain|finetune
"""

from __future__ import annotations

import os
import sys
from typing import Any

# Processes are the parallelism, as on our side.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
from tokenizers import Tokenizer

PAD, BOS, EOS, SEP = range(4)

source, tokenizer_path, out, processes, stage = sys.argv[1:]
tokenizer = Tokenizer.from_file(tokenizer_path)
tokenizer.encode_special_tokens = True


def encode(texts: list[str]) -> list[list[int]]:
    return [item.ids for item in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def pretrain(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
    ids = encode(batch["text"])
    return {
        "input": [[BOS, *row] for row in ids],
        "target": [[*row, EOS] for row in ids],
        "loss_mask": [[1] * (len(row) + 1) for row in ids],
    }


def finetune(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
    requests, responses = encode(batch["request"]), encode(batch["response"])
    both = list(zip(requests, responses, strict=True))
    return {
        "input": [[BOS, *request, SEP, *response] for request, response in both],
        "target": [[PAD] * (len(request) + 1) + [*response, EOS] for request, response in both],
        "loss_mask": [
            [0] * (len(request) + 1) + [1] * (len(response) + 1) for request, response in both
        ],
    }


ids = datasets.List(datasets.Value("uint16"))
features = datasets.Features(
    {"input": ids, "target": ids, "loss_mask": datasets.List(datasets.Value("uint8"))}
)
data = datasets.load_dataset("json", data_files=source, split="train", cache_dir=f"{out}.cache")
mapped = data.map(
    pretrain if stage == "pretrain" else finetune,
    batched=True,
    num_proc=int(processes),
    remove_columns=data.column_names,
    features=features,
)
mapped.save_to_disk(out)
