"""Is [EOS] in the loss? Train both ways on the samples and print how often each model stops.

The seed's prose takes loss "up to before [EOS]", its table "up to EOS". Everything but that
choice is equal: tokenizer, data, order, model, steps.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from steps import LAUNCH, main, run

OUT = Path("demo/eos")
CONFIG = ("--deepspeed_config", "ds_configs/cpu.json")


def one_way(name: str, flag: str) -> dict[str, float]:
    """Prepare, pretrain, fine-tune and evaluate with ``flag``; return the scores."""
    folder, tokenizer = OUT / name, OUT / "tokenizer.json"
    common = ("--tokenizer", tokenizer, flag, "--out")
    run("vnprep", "pretrain-tsv", "data/pretrain.tsv", *common, folder / "pretrain")
    run("vnprep", "finetune-pairs", "data/smarthome_train.tsv", *common, folder / "pairs")
    run(
        *(*LAUNCH, "train/pretrain.py", "--data", folder / "pretrain", "--model", "tiny"),
        *(*CONFIG, "--out", folder / "pre", "--steps", "100"),
    )
    run(
        *(*LAUNCH, "train/finetune.py", "--data", folder / "pairs", "--init", folder / "pre"),
        *(*CONFIG, "--out", folder / "ft", "--epochs", "4", "--lr", "2e-3"),
    )
    heldout = ("--pairs", "data/smarthome_heldout.tsv", "--json")
    score: dict[str, float] = json.loads(
        run("python", "train/evaluate.py", folder / "ft", *heldout, capture=True)
    )
    return score


def experiment() -> int:
    """Run both ways and print the table."""
    shutil.rmtree(OUT, ignore_errors=True)
    corpus = ("data/pretrain.tsv", "data/smarthome_train.tsv")
    tokenizer = ("--vocab-size", "2000", "--out", OUT / "tokenizer.json")
    run("vnprep", "tokenizer", "train", *corpus, *tokenizer)
    scores = {flag: one_way(flag.strip("-"), flag) for flag in ("--eos-loss", "--no-eos-loss")}
    print(f"\n{'':16}{'[EOS] reached':>15}{'exact match':>13}")
    for flag, score in scores.items():
        print(f"{flag:16}{score['stopped_percent']:>13.1f} %{score['exact_percent']:>11.1f} %")
    return 0


if __name__ == "__main__":
    main(experiment)
