"""The data of a run: opened, checked against its stage, and put in one stream of batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from trainer.engine import BatchShape
from trainer.options import Stage, TrainOptions
from vnprep.durable import sha256_file
from vnprep.errors import TrainingError
from vnprep.loading.loader import PackedLoader
from vnprep.loading.mixture import MixedLoader
from vnprep.shards.manifest import MANIFEST_NAME
from vnprep.shards.read import ShardSet

_STAGE_WORDS: dict[Stage, str] = {"pretrain": "pretraining", "finetune": "fine-tuning"}


def open_data(folder: Path, stage: Stage, check: Literal["full", "sizes"]) -> ShardSet:
    """Open a data folder that was prepared for a stage.

    Raises:
        ShardError: it is damaged or no data folder.
        TrainingError: it was prepared for the other stage.
    """
    shards = ShardSet.open(folder, check=check)
    if shards.manifest.stage != stage:
        script = f"train/{shards.manifest.stage}.py"
        raise TrainingError(
            f"holds {_STAGE_WORDS[shards.manifest.stage]} data, this is {_STAGE_WORDS[stage]}",
            place=folder,
            remedy=f"use {script}, or give data that vnprep prepared for {_STAGE_WORDS[stage]}",
        )
    return shards


def check_same_tokenizer(shards: ShardSet, fingerprint: str, of: str) -> None:
    """See that data was made with a certain tokenizer.

    Args:
        shards: the data.
        fingerprint: the tokenizer's.
        of: whose tokenizer that is, for the message.

    Raises:
        TrainingError: it was made with another one.
    """
    ours = shards.manifest.tokenizer.fingerprint
    if ours != fingerprint:
        raise TrainingError(
            f"was made with another tokenizer ({ours[:12]}…) than {of} ({fingerprint[:12]}…)",
            place=shards.folder,
            remedy="prepare the data again with --tokenizer and the tokenizer.json of "
            f"{of.removeprefix('the ')}",
        )


def open_all(options: TrainOptions, check: Literal["full", "sizes"]) -> tuple[ShardSet, ...]:
    """Open every ``--data``.

    Raises:
        ShardError: one is damaged or no data folder.
        TrainingError: one was prepared for the other stage, or with another tokenizer.
    """
    sets = tuple(open_data(folder, options.stage, check) for folder in options.data)
    for shards in sets[1:]:
        check_same_tokenizer(shards, sets[0].manifest.tokenizer.fingerprint, "the first --data")
    return sets


def training_loader(
    sets: Sequence[ShardSet],
    options: TrainOptions,
    seq_len: int,
    shape: BatchShape,
    rank: int,
    world_size: int,
) -> PackedLoader | MixedLoader:
    """Return this rank's batches: of the one data set, or of several by ``--mix``."""
    settings: dict[str, Any] = {
        "seq_len": seq_len,
        "micro_batch": shape.micro_batch,
        "accumulation": shape.accumulation,
        "rank": rank,
        "world": world_size,
        "seed": options.seed,
    }
    if options.mix is None:
        return PackedLoader(sets[0], **settings)
    return MixedLoader(sets, options.mix, **settings)


def data_identity(sets: Sequence[ShardSet], mix: tuple[float, ...] | None) -> dict[str, Any]:
    """Return what of the data decides the run's curve, as plain JSON."""
    hashes = [sha256_file(shards.folder / MANIFEST_NAME) for shards in sets]
    return {"data": hashes[0]} if mix is None else {"data": hashes, "mix": list(mix)}
