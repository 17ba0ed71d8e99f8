"""Tokens and packed rows a second, in order and collated: ``vnprep`` beside torch's DataLoader.

    python tests/benchmarks/bench_loader.py [DIR] [--seq-len 2048] [--micro-batch 8] [--rounds 5]

Each side reads the same shards in random order and makes ``input_ids`` and ``labels`` (and
``position_ids``, ``cu_seqlens`` or ``attention_mask``) for micro-batches of about the same number
of tokens:

    packed         PackedLoader, one process
    padded         PaddedLoader, one process: a row an example, padded to the longest
    DataLoader     torch's, a row an example, padded to the longest by its collate_fn
    DataLoader, 2  the same with two worker processes, their start not counted
    plain loop     the same packed rows and arrays, filled by a loop over rows in Python

The sides take turns; medians of tokens a second are printed, padding not counted as tokens.
Without DIR, the samples in data/ are prepared in a temporary folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from vnprep.config import PrepareConfig, ReadOptions
from vnprep.loading.loader import IGNORED, PackedLoader, PaddedLoader
from vnprep.packing.bins import best_fit_decreasing, windows
from vnprep.run.prepare import prepare
from vnprep.shards.read import ShardSet
from vnprep.tokenizer.load import parse_tokenizer
from vnprep.tokenizer.train import to_text, train_tokenizer

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "smarthome_train.tsv"

#: Tokens and rows of a micro-batch.
Counts = tuple[int, int]


class Rows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Stored rows, or the windows of longer ones, as a tensor of ids and one of labels."""

    def __init__(self, shards: ShardSet, seq_len: int) -> None:
        self._shards = shards
        self._cut = windows(shards.lengths, seq_len)

    def __len__(self) -> int:
        return len(self._cut)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = int(self._cut.start[number])
        part = slice(start, start + int(self._cut.length[number]))
        ids, target, mask = self._shards.arrays(int(self._cut.row[number]))
        labels = np.where(mask[part] != 0, target[part].astype(np.int64), IGNORED)
        return torch.from_numpy(ids[part].astype(np.int64)), torch.from_numpy(labels)


def collate(rows: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Pad to the longest."""
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    input_ids = pad_sequence([ids for ids, _ in rows], batch_first=True)
    return {
        "input_ids": input_ids,
        "labels": pad_sequence([labels for _, labels in rows], True, IGNORED),
        "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
    }


def torch_loader(shards: ShardSet, seq_len: int, rows: int, workers: int) -> Iterator[Counts]:
    """Give the micro-batches of torch's DataLoader."""
    data = Rows(shards, seq_len)
    loader = DataLoader(data, rows, shuffle=True, collate_fn=collate, num_workers=workers)
    for batch in loader:
        yield int(batch["attention_mask"].sum()), len(batch["input_ids"])


def vnprep_loader(loader: PackedLoader | PaddedLoader) -> Iterator[Counts]:
    """Give the micro-batches of one of ours."""
    for step in range(loader.steps_per_epoch):
        for batch in loader.step(step):
            yield int((batch.document_ids >= 0).sum()), batch.input_ids.shape[0]


def plain_loop(shards: ShardSet, seq_len: int, micro_batch: int) -> Iterator[Counts]:
    """Fill packed rows row by row."""
    cut = windows(shards.lengths, seq_len)
    bins = best_fit_decreasing(cut.length, seq_len)
    order = np.random.default_rng(0).permutation(len(bins))
    for start in range(0, len(order), micro_batch):
        numbers = order[start : start + micro_batch]
        input_ids = np.zeros((len(numbers), seq_len), dtype=np.int64)
        labels = np.full_like(input_ids, IGNORED)
        position_ids = np.zeros_like(input_ids)
        document_ids = np.full(input_ids.shape, -1, dtype=np.int32)
        cu_seqlens = [0]
        for place, number in enumerate(numbers):
            at = 0
            for document, item in enumerate(bins[int(number)]):
                begin, length = int(cut.start[item]), int(cut.length[item])
                ids, target, mask = shards.arrays(int(cut.row[item]))
                part, to = slice(begin, begin + length), slice(at, at + length)
                input_ids[place, to] = ids[part]
                labels[place, to] = np.where(mask[part] != 0, target[part].astype(int), IGNORED)
                position_ids[place, to] = np.arange(length)
                document_ids[place, to] = document
                cu_seqlens.append(cu_seqlens[-1] + length)
                at += length
            if at < seq_len:
                cu_seqlens.append(cu_seqlens[-1] + seq_len - at)
        np.array(cu_seqlens, dtype=np.int32)
        yield int((document_ids >= 0).sum()), len(numbers)


def rate(batches: Iterator[Counts], seconds: float) -> tuple[float, float]:
    """Return tokens and rows a second, from the second micro-batch on, for some seconds."""
    next(batches)  # workers have started, and files are mapped
    tokens = rows = 0
    started = time.perf_counter()
    for more_tokens, more_rows in batches:
        tokens, rows = tokens + more_tokens, rows + more_rows
        if time.perf_counter() - started > seconds:
            break
    spent = time.perf_counter() - started
    return tokens / spent, rows / spent


def samples(folder: Path) -> Path:
    """Prepare the samples of the project."""
    text = to_text(train_tokenizer(SAMPLES.read_text(encoding="utf-8").splitlines(), 2_000))
    config = PrepareConfig("finetune", ReadOptions("pairs"))
    prepare([str(SAMPLES)], folder / "ft", config, parse_tokenizer(text))
    return folder / "ft"


def main() -> None:
    """Run all sides and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, help="a data folder")
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in each round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        shards = ShardSet.open(options.data or samples(Path(temporary)), check="sizes")
        _compare(shards, options)


def _compare(shards: ShardSet, options: argparse.Namespace) -> None:
    seq_len, micro_batch = options.seq_len, options.micro_batch
    average = int(np.minimum(shards.lengths, seq_len).mean())
    rows = max(1, micro_batch * seq_len // average)
    packed = PackedLoader(shards, seq_len=seq_len, micro_batch=micro_batch)
    padded = PaddedLoader(shards, seq_len=seq_len, micro_batch=rows)
    sides = {
        "packed": lambda: vnprep_loader(packed),
        "padded": lambda: vnprep_loader(padded),
        "DataLoader": lambda: torch_loader(shards, seq_len, rows, 0),
        "DataLoader, 2": lambda: torch_loader(shards, seq_len, rows, 2),
        "plain loop": lambda: plain_loop(shards, seq_len, micro_batch),
    }
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            results[name].append(rate(side(), options.seconds))
    tokens = shards.manifest.tokens
    print(f"{len(shards):,} rows, {tokens:,} tokens; micro-batch {micro_batch} × {seq_len:,}")
    print(f"packed rows are {packed.fill:.2%} full; a padded micro-batch has {rows} rows")
    print(f"{'':<15}{'M tokens/s':>12}{'rows/s':>12}{'packed is … times':>20}")
    medians = {
        name: (statistics.median(t for t, _ in found), statistics.median(r for _, r in found))
        for name, found in results.items()
    }
    for name, (token_rate, row_rate) in medians.items():
        ratio = medians["packed"][0] / token_rate
        print(f"{name:<15}{token_rate / 1e6:>12.2f}{row_rate:>12,.0f}{ratio:>20.1f}")


if __name__ == "__main__":
    main()
