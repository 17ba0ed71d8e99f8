"""Several data sets by weight: the right shares, each set's own epochs, no row lost or doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vnprep.errors import TrainingError
from vnprep.loading.loader import PackedLoader
from vnprep.loading.mixture import MixedLoader
from vnprep.packing.file import pack_shards, write_pack
from vnprep.shards.read import ShardSet

MakeData = Callable[..., Path]
SEQ_LEN = 8


@pytest.fixture(scope="module")
def sets(make_data: MakeData, tmp_path_factory: pytest.TempPathFactory) -> list[ShardSet]:
    """Give data sets of 10, 4 and 7 packed rows, each row one document with tokens of its own."""
    folder = tmp_path_factory.mktemp("sets")
    rows = [[[[4 + start + n] * 7] for n in range(count)] for start, count in STARTS]
    return [
        ShardSet.open(make_data(folder / str(number), data, "pretrain", shard_rows=3))
        for number, data in enumerate(rows)
    ]


STARTS = ((0, 10), (20, 4), (40, 7))


def mixed(sets: list[ShardSet], weights: list[float], **options: Any) -> MixedLoader:
    return MixedLoader(sets, weights, **({"seq_len": SEQ_LEN, "micro_batch": 4} | options))


def rows(loader: MixedLoader, steps: range) -> list[tuple[int, int]]:
    """Return sample number and token of the rows of some steps."""
    return [
        (sample, int(row[1]))
        for step in steps
        for batch in loader.step(step)
        for sample, row in zip(batch.sample_ids, batch.input_ids, strict=True)
    ]


def set_of(sample: int) -> int:
    return int(np.searchsorted([10, 14, 21], sample, side="right"))


def test_each_data_set_has_its_share_at_every_moment(sets: list[ShardSet]) -> None:
    shown = [set_of(sample) for sample, _ in rows(mixed(sets, [0.5, 0.3, 0.2]), range(100))]
    for number, share in enumerate((0.5, 0.3, 0.2)):
        count = np.cumsum(np.array(shown) == number)
        assert np.abs(count - share * np.arange(1, 401)).max() <= 1
    assert Counter(shown) == {0: 200, 1: 120, 2: 80}


def test_each_data_set_goes_through_epochs_of_its_own(sets: list[ShardSet]) -> None:
    shown = rows(mixed(sets, [1, 2, 1]), range(70))
    for number, size in enumerate((10, 4, 7)):
        mine = [sample for sample, _ in shown if set_of(sample) == number]
        epochs = [mine[at : at + size] for at in range(0, len(mine) - size + 1, size)]
        assert len(epochs) >= 7
        assert all(len(set(epoch)) == size for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 3  # each in another order


def test_rows_are_those_of_their_data_set(sets: list[ShardSet]) -> None:
    loader = mixed(sets, [1, 1, 1])
    tokens = dict(rows(loader, range(30)))
    assert len(tokens) == 21
    for sample, token in tokens.items():
        start, count = STARTS[set_of(sample)]
        assert 4 + start <= token < 4 + start + count
    assert len(set(tokens.values())) == 21
    for batch in loader.step(2):
        assert (batch.labels[:, :7] == np.roll(batch.input_ids, -1, axis=1)[:, :7]).all()
        assert (batch.labels[:, 7] == 2).all()


def test_one_data_set_alone_is_as_without_a_mixture(sets: list[ShardSet]) -> None:
    one = mixed(sets[:1], [3.0], micro_batch=5, seed=8)
    plain = PackedLoader(sets[0], seq_len=SEQ_LEN, micro_batch=5, seed=8)
    for step in range(6):
        assert one.step(step)[0].sample_ids == plain.step(step)[0].sample_ids
    assert one.steps_per_epoch == plain.steps_per_epoch == 2


def test_the_stream_does_not_depend_on_how_it_is_split(sets: list[ShardSet]) -> None:
    whole = [sample for sample, _ in rows(mixed(sets, [3, 1, 1], micro_batch=8), range(9))]
    for micro_batch, accumulation, world in ((2, 4, 1), (2, 1, 4), (4, 1, 2), (1, 2, 4)):
        options = {"micro_batch": micro_batch, "accumulation": accumulation, "world": world}
        ranks = [mixed(sets, [3, 1, 1], rank=rank, **options) for rank in range(world)]
        seen = []
        for step in range(9):
            parts = [loader.step(step) for loader in ranks]
            for part in range(accumulation):
                seen += [n for rank in range(world) for n in parts[rank][part].sample_ids]
        assert seen == whole


def test_any_step_is_there_at_once_and_a_state_goes_on(sets: list[ShardSet]) -> None:
    loader, other = mixed(sets, [3, 1, 1], seed=2), mixed(sets, [3, 1, 1], seed=7)
    far = 10**12 + 1
    assert other.load_state(loader.state_at(far)) == far
    (expected,), (got,) = loader.step(far), next(iter(other))
    assert got.sample_ids == expected.sample_ids
    assert np.array_equal(got.input_ids, expected.input_ids)


def test_data_sets_of_one_size_have_orders_of_their_own(sets: list[ShardSet]) -> None:
    loader = mixed([sets[0], sets[0]], [1, 1], micro_batch=20)
    shown = [sample for sample, _ in rows(loader, range(1))]
    first = [sample for sample in shown if sample < 10]
    second = [sample - 10 for sample in shown if sample >= 10]
    assert sorted(first) == sorted(second) and first != second


def test_pack_indexes_are_used_and_change_nothing(
    make_data: MakeData, sets: list[ShardSet], tmp_path: Path
) -> None:
    data = [[[4 + 20 + n] * 7] for n in range(4)]
    indexed = ShardSet.open(make_data(tmp_path / "set", data, "pretrain", shard_rows=3))
    write_pack(indexed, pack_shards(indexed, SEQ_LEN))
    one = rows(mixed([sets[0], sets[1]], [1, 1]), range(10))
    assert one == rows(mixed([sets[0], indexed], [1, 1]), range(10))


def test_two_tokenizers_are_refused(
    sets: list[ShardSet], make_data: MakeData, tmp_path: Path
) -> None:
    other = ShardSet.open(make_data(tmp_path / "other", [[[5, 6]]], "pretrain", words=50))
    with pytest.raises(TrainingError, match="another tokenizer") as caught:
        mixed([*sets, other], [1, 1, 1, 1])
    assert caught.value.place == str(other.folder)


def test_which_program_applied_the_tokenizer_makes_no_difference(sets: list[ShardSet]) -> None:
    manifest = sets[1].manifest
    applied = replace(manifest.tokenizer, encoder="gigatoken+tokenizers")
    assert applied != manifest.tokenizer
    other = ShardSet(sets[1].folder, replace(manifest, tokenizer=applied))
    weights = [1.0, 1.0]
    assert rows(mixed([sets[0], other], weights), range(5)) == rows(
        mixed(sets[:2], weights), range(5)
    )


def test_as_many_weights_as_data_sets(sets: list[ShardSet]) -> None:
    with pytest.raises(TrainingError, match="the number of weights is 2"):
        mixed(sets, [1, 1])
    with pytest.raises(TrainingError, match="no data set"):
        mixed([], [])
