"""torch's DataLoader over a loader: any number of workers, the same batches in the same order."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from vnprep.loader import Batch, Loader, PackedLoader, PaddedLoader
from vnprep.mixture import MixedLoader
from vnprep.shards.read import ShardSet


@pytest.fixture
def loaders(make_data: Callable[..., Path], tmp_path: Path) -> list[Loader]:
    """Give each kind of loader over the same 50 documents."""
    rows = [[[4 + n] * (1 + n % 9)] for n in range(50)]
    shards = ShardSet.open(make_data(tmp_path / "data", rows, "pretrain", shard_rows=20))
    return [
        PackedLoader(shards, seq_len=16, micro_batch=2, accumulation=2, rank=1, world=2),
        PaddedLoader(shards, seq_len=16, micro_batch=2),
        MixedLoader([shards, shards], [2, 1], seq_len=16, micro_batch=2),
    ]


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        a.sample_ids == b.sample_ids and np.array_equal(a.labels, b.labels)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_change_nothing(loaders: list[Loader], workers: int) -> None:
    for loader in loaders:
        steps = range(3, 3 + len(loader))
        batches = list(DataLoader(loader, batch_size=None, sampler=steps, num_workers=workers))
        assert len(batches) == len(loader)
        for step, got in zip(steps, batches, strict=True):
            assert same(got, loader.step(step))


def test_a_spawned_worker_maps_the_files_itself(loaders: list[Loader]) -> None:
    for loader in loaders:
        packed = pickle.dumps(loader)
        assert same(pickle.loads(packed).step(5), loader.step(5))
        assert b"w4" not in packed and len(packed) < 20_000
