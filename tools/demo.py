"""The whole way on the samples in data/: text and pairs in, a model that answers out.

Exits 1 if the model misses what it must reach on requests it was never trained on.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from steps import LAUNCH, main, run, validation_curve

OUT = Path("demo")
MIN_EXACT, MIN_STOP = 95, 99
SEED_REQUEST = "Bật quạt phòng ngủ lên mức 2"
ASK = (
    SEED_REQUEST,
    "Hãy làm ngược lại: bật quạt phòng học",
    "Quạt phòng khách đang tắt. Quạt phòng khách đang bật đúng không?",
)


def prepare() -> None:
    """Text and pairs → tokenizer and verified shards."""
    tokenizer = OUT / "tokenizer.json"
    corpus = ("data/pretrain.tsv", "data/smarthome_train.tsv")
    run("vnprep", "tokenizer", "train", *corpus, "--vocab-size", "2000", "--out", tokenizer)
    for name in ("pretrain", "pretrain_valid"):
        source, out = f"data/{name}.tsv", OUT / "data" / name
        run("vnprep", "pretrain-tsv", source, "--tokenizer", tokenizer, "--out", out)
    pairs = OUT / "data" / "pairs"
    source = "data/smarthome_train.tsv"
    run("vnprep", "finetune-pairs", source, "--tokenizer", tokenizer, "--out", pairs)
    for folder in ("pretrain", "pretrain_valid", "pairs"):
        run("vnprep", "verify", OUT / "data" / folder)
    run("vnprep", "inspect", pairs, "--sample", "3")


def train() -> None:
    """Shards → a pretrained and a fine-tuned model, on two DeepSpeed ranks."""
    config = ("--deepspeed_config", "ds_configs/cpu.json")
    run(
        *(*LAUNCH, "train/pretrain.py", "--data", OUT / "data/pretrain", "--model", "tiny"),
        *("--valid", OUT / "data/pretrain_valid", "--eval-every", "40"),
        *(*config, "--out", OUT / "runs/pre", "--steps", "80"),
    )
    run(
        *(*LAUNCH, "train/finetune.py", "--data", OUT / "data/pairs", "--init", OUT / "runs/pre"),
        *(*config, "--out", OUT / "runs/ft", "--epochs", "7"),
        *("--lr", "3e-3", "--micro-batch", "16"),
    )


def answer() -> bool:
    """Ask the model; return whether it reached what it must."""
    run("python", "train/generate.py", OUT / "runs/ft", *ASK)
    run(
        *("python", "train/evaluate.py", OUT / "runs/ft", "--pairs", "data/smarthome_heldout.tsv"),
        *("--min-exact", str(MIN_EXACT), "--min-stop", str(MIN_STOP)),
    )
    curve = validation_curve(Path(OUT / "runs/pre"))
    steps = "  ".join(f"step {step}: {perplexity:.1f}" for step, perplexity in curve)
    print(f"\nperplexity on sentences never trained on:  {steps}")
    return len(curve) > 1 and curve[-1][1] < curve[0][1]


def demo() -> int:
    """Run everything; return the exit code."""
    began = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    prepare()
    train()
    fell = answer()
    minutes = (time.monotonic() - began) / 60
    if not fell:
        print("missed: the perplexity did not fall", file=sys.stderr)
        return 1
    print(
        f"\nReached on requests never trained on: exact match >= {MIN_EXACT} %, "
        f"[EOS] >= {MIN_STOP} %. {minutes:.1f} minutes. Everything is in {OUT}/"
    )
    return 0


if __name__ == "__main__":
    main(demo)
