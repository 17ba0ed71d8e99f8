"""Training a tokenizer: ours against the trainer of ``tokenizers``, in one run.

    python tests/benchmarks/bench_tokenizer_train.py TEXT.jsonl [--mb 60] [--vocab-size 16000]

The documents of a JSONL file with a field ``text`` are laid out once as .txt files and once as
JSONL. Both sides get the same text, pre-tokenizer, normalizer and vocabulary size; every run is a
process of its own, start-up included, and the sides take turns. Times are medians, of the clock
and of the processors together, each beside its ratio; memory is the largest peak (RSS). A ratio
below 1 means that we are quicker; where other work disturbs the clock, the processors tell more.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

_VNPREP = "from vnprep.cli import main; main()"

# What a user of tokenizers writes, with the parts of our tokenizer.
_THEIRS = """
import glob, json, sys
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from vnprep.tokenizer.special import SPECIAL_TOKENS
from vnprep.tokenizer.train import train_tokenizer
how, source, vocab_size, out = sys.argv[1:]
tokenizer = Tokenizer(models.BPE())
tokenizer.normalizer = normalizers.NFC()
tokenizer.pre_tokenizer = train_tokenizer([], 260).pre_tokenizer
trainer = trainers.BpeTrainer(
    vocab_size=int(vocab_size), special_tokens=list(SPECIAL_TOKENS), show_progress=False,
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
if how == "files":
    tokenizer.train(sorted(glob.glob(source + "/*.txt")), trainer=trainer)
else:
    with open(source, encoding="utf-8") as lines:
        texts = (json.loads(line)["text"] for line in lines)
        tokenizer.train_from_iterator(texts, trainer=trainer)
tokenizer.save(out)
"""

_READING = """
import sys
from vnprep.config import ReadOptions
from vnprep.sources.plan import find_inputs
from vnprep.tokenizer.corpus import Corpus
from vnprep.tokenizer.sample import draw_sample
draw_sample(Corpus(find_inputs(sys.argv[1:], None), ReadOptions("text")), 1 << 40)
"""


@dataclass
class Side:
    """A command, and what its runs took."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Run it once."""
        began = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-c", *self.command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert child.stderr is not None
        errors = child.stderr.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{self.name} failed:\n{errors}")
        self.seconds.append(time.monotonic() - began)
        self.processor.append(usage.ru_utime + usage.ru_stime)
        self.peaks.append(usage.ru_maxrss / 1024)

    def line(self, first: Side, size: int) -> str:
        """Return a row of the table, with ratios to the first side."""
        seconds, processor = statistics.median(self.seconds), statistics.median(self.processor)
        ratio = seconds / statistics.median(first.seconds)
        processor_ratio = processor / statistics.median(first.processor)
        return (
            f"{self.name:<28} {size / 1e6 / seconds:6.1f} MB/s  {seconds:6.2f} s {ratio:5.2f} ×  "
            f"cpu {processor:6.2f} s {processor_ratio:5.2f} ×  peak {max(self.peaks):5.0f} MiB"
        )


def _documents(path: Path, limit: int) -> Iterator[dict[str, str]]:
    """Yield documents until they have ``limit`` bytes."""
    kind = "zstd" if path.suffix == ".zst" else None
    # By lines: what this process holds would count in the peaks of its children.
    with io.BufferedReader(pa.input_stream(str(path), compression=kind)) as lines:
        for line in lines:
            if limit <= 0:
                return
            text = json.loads(line)["text"].replace("\r\n", "\n")
            limit -= len(text.encode())
            yield {"text": text}


def _lay_out(path: Path, limit: int, folder: Path) -> int:
    (folder / "txt").mkdir()
    size = 0
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as lines:
        for number, document in enumerate(_documents(path, limit)):
            size += len(document["text"].encode())
            name = folder / "txt" / f"{number:06d}.txt"
            name.write_text(document["text"], encoding="utf-8", newline="")
            lines.write(json.dumps(document, ensure_ascii=False) + "\n")
    return size


def _sides(folder: Path, vocab_size: int, sample_mb: int) -> list[tuple[Side, Side, Side]]:
    size = str(vocab_size)
    out = str(folder / "tokenizer.json")

    def ours(source: str) -> list[str]:
        train = ["tokenizer", "train", source, "--vocab-size", size, "--out", out, "--overwrite"]
        return [_VNPREP, *train, "--sample-mb", str(sample_mb)]

    files, lines = str(folder / "txt"), str(folder / "texts.jsonl")
    return [
        (
            Side("txt: Tokenizer.train(files)", [_THEIRS, "files", files, size, out]),
            Side("txt: vnprep", ours(files)),
            Side("txt: our reading alone", [_READING, files]),
        ),
        (
            Side("jsonl: train_from_iterator", [_THEIRS, "jsonl", lines, size, out]),
            Side("jsonl: vnprep", ours(lines)),
            Side("jsonl: our reading alone", [_READING, lines]),
        ),
    ]


def main() -> None:
    """Run all sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="JSONL with a field text; may be .zst")
    parser.add_argument("--mb", type=int, default=60, help="MB of text to take")
    parser.add_argument("--vocab-size", type=int, default=16_000)
    parser.add_argument("--sample-mb", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        size = _lay_out(options.text, options.mb * 1_000_000, folder)
        groups = _sides(folder, options.vocab_size, options.sample_mb)
        for _ in range(options.rounds):
            for group in groups:
                for side in group:
                    side.run()
    print(f"{size / 1e6:.1f} MB of text, vocabulary {options.vocab_size:,}, {os.cpu_count()} cores")
    for group in groups:
        for side in group:
            print(side.line(group[0], size))


if __name__ == "__main__":
    main()
