"""Data sets to export, and what their rows must come out as, told from the rows alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vnprep.export.run import Exported, export
from vnprep.export.target import Target

BOS, EOS, SEP = 1, 2, 3
Rows = list[list[list[int]]]


@dataclass(frozen=True)
class Prepared:
    """A data folder and its rows: whole sequences, and which of their tokens carry loss."""

    folder: Path
    sequences: list[list[int]]
    learnt: list[list[int]]


def _sequence(row: list[list[int]], stage: str, eos_loss: bool) -> tuple[list[int], list[int]]:
    sequence, learnt = [BOS], [0]
    for place, segment in enumerate(row):
        answers = stage == "pretrain" or place % 2 == 1
        sequence += [*segment, EOS if answers else SEP]
        learnt += [int(answers)] * len(segment) + [int(answers and eos_loss)]
    return sequence, learnt


@pytest.fixture
def prepare(make_data: Any, tmp_path: Path) -> Callable[..., Prepared]:
    """Return ``prepare(stage, count=…, words=…, eos_loss=…)``: random rows in several shards."""

    def make(
        stage: str = "finetune",
        *,
        count: int = 57,
        words: int = 96,
        eos_loss: bool = True,
        name: str = "data",
    ) -> Prepared:
        draw = random.Random(f"{stage} {count}")

        def segment() -> list[int]:
            return [draw.randrange(4, words + 4) for _ in range(draw.randint(1, 30))]

        turns = 1 if stage == "pretrain" else 2
        rows = [[segment() for _ in range(turns * draw.randint(1, turns))] for _ in range(count)]
        rows[-1][-1][-1] = words + 3  # the largest id there is
        folder = make_data(
            tmp_path / name, rows, stage, shard_rows=20, words=words, eos_loss=eos_loss
        )
        made = [_sequence(row, stage, eos_loss) for row in rows]
        return Prepared(folder, [tokens for tokens, _ in made], [mask for _, mask in made])

    return make


@pytest.fixture
def run_export() -> Callable[..., Exported]:
    """Return ``run(folder, target, out)``, which shows no progress."""

    def run(folder: Path, target: Target, out: Path) -> Exported:
        return export(folder, target, out, lambda _phase, _done, _total: None)

    return run
