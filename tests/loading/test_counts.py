"""What a step holds over all ranks, as each rank counts it for itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vnprep.loading.loader import Loader, PackedLoader, PaddedLoader
from vnprep.loading.mixture import MixedLoader
from vnprep.shards.read import ShardSet

MakeData = Callable[..., Path]


@pytest.fixture(scope="module")
def pairs(make_data: MakeData, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    rows = [[[4 + n] * (1 + n % 5), [50 + n] * (1 + n % 3)] for n in range(30)]
    return ShardSet.open(make_data(tmp_path_factory.mktemp("pairs"), rows, shard_rows=7))


@pytest.fixture(scope="module")
def texts(make_data: MakeData, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    rows = [[[4 + n] * (1 + n % 9 * 4)] for n in range(30)]
    return ShardSet.open(make_data(tmp_path_factory.mktemp("texts"), rows, "pretrain"))


def ranks(kind: str, pairs: ShardSet, texts: ShardSet) -> list[Loader]:
    """Return a loader of each of three ranks."""
    found: list[Loader] = []
    for rank in range(3):
        split = {"seq_len": 16, "micro_batch": 2, "accumulation": 2, "rank": rank, "world": 3}
        if kind == "padded":
            found.append(PaddedLoader(pairs, **split))  # type: ignore[arg-type]
        elif kind == "mixed":
            found.append(MixedLoader([pairs, texts], [2, 1], **split))  # type: ignore[arg-type]
        else:
            data = pairs if kind == "pairs" else texts
            found.append(PackedLoader(data, **split))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("kind", ["pairs", "texts", "padded", "mixed"])
def test_every_rank_counts_what_all_ranks_see(kind: str, pairs: ShardSet, texts: ShardSet) -> None:
    loaders = ranks(kind, pairs, texts)
    for step in range(2 * len(loaders[0])):
        batches = [batch for loader in loaders for batch in loader.step(step)]
        tokens = sum(int((batch.document_ids >= 0).sum()) for batch in batches)
        supervised = sum(int((batch.labels >= 0).sum()) for batch in batches)
        seen = sorted(n for batch in batches for n in batch.sample_ids if n >= 0)
        for loader in loaders:
            assert loader.counts(step) == (tokens, supervised)
            assert sorted(loader.sample_ids(step)) == seen
            assert loader.sample_ids(step) == loaders[0].sample_ids(step)


def test_an_epoch_has_every_sample_once(pairs: ShardSet, texts: ShardSet) -> None:
    loader = ranks("pairs", pairs, texts)[1]
    assert isinstance(loader, PackedLoader)
    ids = [n for step in range(len(loader)) for n in loader.sample_ids(step)]
    assert sorted(ids) == list(range(loader.packed_rows))
    counted = sum(loader.counts(step).supervised for step in range(len(loader)))
    assert counted == pairs.manifest.supervised_tokens


def test_a_negative_step_has_no_samples(texts: ShardSet) -> None:
    loader = PackedLoader(texts, seq_len=16, micro_batch=2)
    for ask in (loader.sample_ids, loader.counts):
        with pytest.raises(ValueError, match="negative"):
            ask(-1)
