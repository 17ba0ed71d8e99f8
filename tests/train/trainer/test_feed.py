"""Batches made ahead: the same ones, in order, and errors where they belong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.feed import AHEAD, Feed
from vnprep.loading.loader import Batch, PackedLoader
from vnprep.shards.read import ShardSet

CPU = torch.device("cpu")


@pytest.fixture
def loader(make_data: Callable[..., Path], tmp_path: Path) -> PackedLoader:
    rows = [[[4 + n] * (1 + n % 5), [50 + n] * (1 + n % 3)] for n in range(30)]
    shards = ShardSet.open(make_data(tmp_path / "data", rows))
    return PackedLoader(shards, seq_len=16, micro_batch=2, accumulation=2, rank=1, world=2)


def test_the_same_steps_come_in_order(loader: PackedLoader) -> None:
    with Feed(loader, range(3, 12), CPU) as feed:
        for step in range(3, 12):
            data = feed.next()
            assert data is not None
            for tensors, batch in zip(data.batches, loader.step(step), strict=True):
                assert np.array_equal(tensors["labels"].numpy(), batch.labels)
                assert np.array_equal(tensors["input_ids"].numpy(), batch.input_ids)
            assert data.sample_ids == loader.sample_ids(step)
            assert (data.tokens, data.supervised) == loader.counts(step)
        assert feed.next() is None and feed.next() is None


class Slow(PackedLoader):
    """Says which steps it was asked for, and fails at step 4."""

    asked: list[int]

    def step(self, step: int) -> list[Batch]:
        self.asked.append(step)
        if step == 4:
            raise OSError("the disk is gone")
        return super().step(step)


@pytest.fixture
def slow(loader: PackedLoader) -> Slow:
    loader.__class__ = Slow
    assert isinstance(loader, Slow)
    loader.asked = []
    return loader


def test_an_error_of_the_thread_comes_at_its_step(slow: Slow) -> None:
    with Feed(slow, range(2, 9), CPU) as feed:
        assert feed.next() is not None and feed.next() is not None
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is gone"):
                feed.next()


def test_it_does_not_run_far_ahead_and_ends_when_closed(slow: Slow) -> None:
    before = threading.active_count()
    feed = Feed(slow, range(100, 10**9), CPU)
    end = time.monotonic() + 10
    while len(slow.asked) < AHEAD + 1 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    assert slow.asked == list(range(100, 100 + AHEAD + 1))
    feed.close()
    assert threading.active_count() == before


def test_the_wait_is_measured(loader: PackedLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = loader.counts
    monkeypatch.setattr(loader, "counts", lambda step: time.sleep(0.3) or counts(step))
    with Feed(loader, range(2), CPU) as feed:
        feed.next()
        assert feed.waited > 0.2
        time.sleep(0.5)
        feed.next()
        assert feed.waited < 0.1
