"""Preparing data: vnprep, ``datasets.map``, gigatoken alone, and the ceiling of our own parts.

All sides run in one go, start-up included, on the same file with the same tokenizer; medians.

Usage:
  python tests/benchmarks/bench_prepare.py TEXT.jsonl --tokenizer tokenizer.json --megabytes 1000
  python tests/benchmarks/bench_prepare.py PAIRS.jsonl --stage finetune --tokenizer tokenizer.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from parts import measure
from running import Side, run_rounds

DATA = Path(__file__).parents[2] / "data"
SIDES = Path(__file__).parent / "sides"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        help="JSON Lines with text, or request and response  [default: the samples in data/]",
    )
    parser.add_argument("--tokenizer", type=Path, help="[default: trained on the source]")
    parser.add_argument("--stage", choices=["pretrain", "finetune"], default="pretrain")
    parser.add_argument("--megabytes", type=int, default=200, help="grow the input to this size")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip", default="", help="sides to leave out, e.g. datasets")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "input.jsonl"
        given.source = given.source or samples(given.stage, Path(folder))
        given.tokenizer = given.tokenizer or train(given.source, Path(folder))
        size = grow(given.source, source, given.megabytes * 1_000_000)
        sides = [
            side for side in make_sides(given, source) if side.name.split()[0] not in given.skip
        ]
        run_rounds(sides, given.rounds)
        parts = measure(source, given.tokenizer, given.stage)
    print_table(given, size, sides, parts)


def samples(stage: str, folder: Path) -> Path:
    """Write the project's samples as JSON Lines."""
    path = folder / "samples.jsonl"
    with path.open("w", encoding="utf-8") as out:
        if stage == "finetune":
            lines = (DATA / "smarthome_train.tsv").read_text(encoding="utf-8").splitlines()[1:]
            for request, response, *_ in (line.split("\t") for line in lines):
                out.write(json.dumps({"request": request, "response": response}) + "\n")
            return path
        lines = (DATA / "pretrain.tsv").read_text(encoding="utf-8").splitlines()[1:]
        sentences = [line.split("\t")[0].removeprefix("[BOS] ") for line in lines]
        for start in range(0, len(sentences), 20):  # documents of some length
            text = " ".join(sentences[start : start + 20])
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return path


def train(source: Path, folder: Path) -> Path:
    """Train a tokenizer on the source."""
    path = folder / "tokenizer.json"
    command = [sys.executable, "-m", "vnprep", "tokenizer", "train", str(source)]
    command += ["--vocab-size", "32000", "--out", str(path)]
    subprocess.run(command, check=True)
    return path


def grow(given: Path, wanted: Path, size: int) -> int:
    """Repeat a file of JSON Lines up to a size; each round's texts end in its number."""
    lines = given.read_bytes().splitlines()
    written = number = 0
    with wanted.open("wb") as out:
        while written < size:
            for line in lines:
                # Before the closing quote of the last string: every repetition is other text.
                head, quote, tail = line.rpartition(b'"')
                written += out.write(head + b" %d" % number + quote + tail + b"\n")
                if written >= size:
                    break
            number += 1
    return written


def make_sides(given: argparse.Namespace, source: Path) -> list[Side]:
    """Return the sides, ours first."""
    command = "pretrain-text" if given.stage == "pretrain" else "finetune-pairs"
    python, workers = sys.executable, str(given.workers)
    tokenizer = str(given.tokenizer)
    ours = [python, "-m", "vnprep", command, str(source)]
    ours += ["--tokenizer", tokenizer, "--out", "{out}", "--workers", workers]
    theirs = [python, str(SIDES / "datasets_map.py"), str(source), tokenizer, "{out}", workers]
    sides = [Side("vnprep", ours), Side("datasets.map", [*theirs, given.stage])]
    if given.stage == "pretrain":
        alone = [python, str(SIDES / "gigatoken_files.py"), str(source), tokenizer, "{out}"]
        sides.append(Side("gigatoken alone", alone))
    return sides


def print_table(
    given: argparse.Namespace, size: int, sides: list[Side], parts: dict[str, float]
) -> None:
    """Print sides, parts and ratios."""
    ours = sides[0]
    print(f"{size / 1e6:,.0f} MB of {given.source.name}, {given.workers} workers, ", end="")
    print(f"{os.cpu_count()} CPUs seen, medians of {given.rounds}\n")
    print(f"{'':24}{'s':>9}{'MB/s':>9}{'ours is':>10}{'peak MiB a process':>22}")
    for side in sides:
        ratio = "" if side is ours else f"{side.median / ours.median:.1f} ×"
        rate = size / 1e6 / side.median
        print(f"{side.name:24}{side.median:9.1f}{rate:9.1f}{ratio:>10}{max(side.peak_mib):22,.0f}")
    print("\nparts, one core            ns/byte     MB/s")
    for name, nanoseconds in parts.items():
        print(f"  {name:24}{nanoseconds:8.2f}{1e3 / nanoseconds:9.0f}")
    series = sum(parts.values())
    ceiling = given.workers * 1e3 / series
    print(f"  {'in series':24}{series:8.2f}{1e3 / series:9.0f}")
    reached = size / 1e6 / ours.median / ceiling
    print(f"\nceiling on {given.workers} cores: {ceiling:.0f} MB/s", end="; ")
    print(f"vnprep reaches {reached:.0%} of it")


if __name__ == "__main__":
    main()
