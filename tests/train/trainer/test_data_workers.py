"""torch's DataLoader over a loader: any number of workers, the same batches in the same order."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from vnprep.loading.loader import Batch, Loader, PackedLoader, PaddedLoader
from vnprep.loading.mixture import MixedLoader
from vnprep.shards.read import ShardSet


@pytest.fixture
def data(make_data: Callable[..., Path], tmp_path: Path) -> Path:
    """Give 50 documents of 2 to 481 tokens."""
    rows = [[[4 + n] * (1 + n % 9 * 60)] for n in range(50)]
    return make_data(tmp_path / "data", rows, "pretrain", shard_rows=20)


@pytest.fixture
def loaders(data: Path) -> list[Loader]:
    """Give each kind of loader over the same documents."""
    shards = ShardSet.open(data)
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


def test_a_spawned_worker_maps_the_files_itself(data: Path, loaders: list[Loader]) -> None:
    stored = sum(path.stat().st_size for path in data.glob("*.arrow"))
    for loader in loaders:
        packed = pickle.dumps(loader)
        assert same(pickle.loads(packed).step(5), loader.step(5))
        assert len(packed) < stored / 2
