"""What a rank sees, position by position, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vnprep.errors import TrainingError
from vnprep.loading.loader import Batch, LoaderState, PackedLoader, PaddedLoader
from vnprep.shards.read import ShardSet

MakeData = Callable[..., Path]

X = -100


@pytest.fixture(scope="module")
def pairs(make_data: MakeData, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Give 30 pairs of 4 to 9 positions over five shards."""
    rows = [[[4 + i] * (1 + i % 3), [40 + i] * (1 + i % 4)] for i in range(30)]
    return ShardSet.open(make_data(tmp_path_factory.mktemp("pairs"), rows, shard_rows=7))


def sample_ids(loader: PackedLoader, steps: range) -> list[int]:
    return [n for step in steps for batch in loader.step(step) for n in batch.sample_ids]


def test_two_packed_pairs(make_data: MakeData, tmp_path: Path) -> None:
    shards = ShardSet.open(make_data(tmp_path, [[[10, 11], [20]], [[12], [21, 22, 23]]]))
    (batch,) = PackedLoader(shards, seq_len=12, micro_batch=1, shuffle=False).step(0)
    assert batch.input_ids.tolist() == [[1, 12, 3, 21, 22, 23, 1, 10, 11, 3, 20, 0]]
    assert batch.labels.tolist() == [[X, X, 21, 22, 23, 2, X, X, X, 20, 2, X]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0]]
    assert batch.document_ids.tolist() == [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, -1]]
    # The row's padding is a window of its own.
    assert batch.cu_seqlens.tolist() == [0, 6, 11, 12] and batch.max_seqlen == 6
    assert batch.sample_ids == (0,)
    kinds = [array.dtype for array in (batch.input_ids, batch.labels, batch.position_ids)]
    assert kinds == [np.int64] * 3
    assert batch.document_ids.dtype == batch.cu_seqlens.dtype == np.int32


def test_a_long_document_goes_on_in_the_next_window(make_data: MakeData, tmp_path: Path) -> None:
    shards = ShardSet.open(make_data(tmp_path, [[[10, 11, 12, 13, 14]], [[15]]], "pretrain"))
    (batch,) = PackedLoader(shards, seq_len=4, micro_batch=2, shuffle=False).step(0)
    assert batch.input_ids.tolist() == [[1, 10, 11, 12], [13, 14, 1, 15]]
    assert batch.labels.tolist() == [[10, 11, 12, 13], [14, 2, 15, 2]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3], [0, 1, 0, 1]]
    assert batch.document_ids.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]
    assert batch.cu_seqlens.tolist() == [0, 4, 6, 8] and batch.max_seqlen == 4


def test_an_answer_without_eos_in_the_loss(make_data: MakeData, tmp_path: Path) -> None:
    shards = ShardSet.open(make_data(tmp_path, [[[10], [20, 21]]], eos_loss=False))
    (batch,) = PackedLoader(shards, seq_len=5, micro_batch=1).step(0)
    assert batch.labels.tolist() == [[X, X, 20, 21, X]]  # the mask decides, not the target's [EOS]


def test_the_last_step_of_an_epoch_is_filled_up_with_empty_rows(
    make_data: MakeData, tmp_path: Path
) -> None:
    shards = ShardSet.open(make_data(tmp_path, [[[10], [20]]] * 5))
    loader = PackedLoader(shards, seq_len=4, micro_batch=2, accumulation=2)
    assert (loader.packed_rows, loader.steps_per_epoch) == (5, 2)
    assert loader.fill == 1.0
    one, two = loader.step(1)
    assert one.sample_ids[1] == -1 and two.sample_ids == (-1, -1)
    for array, value in (
        (two.input_ids, 0),
        (two.labels, X),
        (two.position_ids, 0),
        (two.document_ids, -1),
    ):
        assert array.shape == (2, 4) and (array == value).all()
    assert sorted(sample_ids(loader, range(2))) == [-1, -1, -1, 0, 1, 2, 3, 4]


def test_the_order_is_pinned(pairs: ShardSet) -> None:
    """A run that was begun with one version is resumed with the next: the order must stay."""
    loader = PackedLoader(pairs, seq_len=12, micro_batch=1, seed=7)
    assert sample_ids(loader, range(6)) == [8, 16, 4, 1, 6, 3]


def test_epochs_have_orders_of_their_own_and_seeds_too(pairs: ShardSet) -> None:
    loader = PackedLoader(pairs, seq_len=12, micro_batch=1, seed=7)
    other = PackedLoader(pairs, seq_len=12, micro_batch=1, seed=8)
    each = loader.steps_per_epoch
    epochs = [sample_ids(loader, range(each * n, each * (n + 1))) for n in range(3)]
    epochs.append(sample_ids(other, range(each)))
    assert all(sorted(epoch) == list(range(each)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_without_shuffling_every_epoch_has_the_order_of_the_bins(pairs: ShardSet) -> None:
    loader = PackedLoader(pairs, seq_len=12, micro_batch=1, shuffle=False)
    each = loader.steps_per_epoch
    assert sample_ids(loader, range(2 * each)) == [*range(each), *range(each)]


def same(left: list[Batch], right: list[Batch]) -> bool:
    names = ("input_ids", "labels", "position_ids", "document_ids", "sample_ids")
    return len(left) == len(right) and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(left, right, strict=True)
        for name in names
    )


def test_a_step_does_not_depend_on_the_steps_before_it(pairs: ShardSet) -> None:
    options: dict[str, Any] = {"seq_len": 12, "micro_batch": 2, "accumulation": 2, "seed": 3}
    loader = PackedLoader(pairs, **options)
    for step in (0, 10**9, 3, loader.steps_per_epoch, 1, 10**9 + 1):
        assert same(loader.step(step), PackedLoader(pairs, **options).step(step))
    assert not same(loader.step(0), loader.step(1))


def test_a_batch_does_not_change_when_its_like_is_made_again(pairs: ShardSet) -> None:
    loader = PackedLoader(pairs, seq_len=12, micro_batch=2)
    first = loader.step(0)
    first[0].input_ids[:] = 99
    assert not (loader.step(0)[0].input_ids == 99).any()


def test_an_answer_is_never_cut(pairs: ShardSet) -> None:
    with pytest.raises(TrainingError) as caught:
        PackedLoader(pairs, seq_len=8, micro_batch=1)
    # 2 of 30 rows have 3 + 4 tokens and 2 specials
    assert caught.value.cause.startswith("2 rows are longer than seq_len 8 (the longest has 9 ")
    assert "9 or more" in caught.value.remedy
    assert caught.value.place == str(pairs.folder)
    PackedLoader(pairs, seq_len=9, micro_batch=1)


@pytest.mark.parametrize("rows", [[], [[[10, 11], []]]])
def test_data_that_teaches_nothing_is_refused(
    make_data: MakeData, tmp_path: Path, rows: list[list[list[int]]]
) -> None:
    shards = ShardSet.open(make_data(tmp_path, rows, eos_loss=False))
    with pytest.raises(TrainingError, match="nothing can be learned"):
        PackedLoader(shards, seq_len=8, micro_batch=1)


@pytest.mark.parametrize(
    "options",
    [
        {"seq_len": 0},
        {"micro_batch": 0},
        {"accumulation": 0},
        {"world": 0},
        {"rank": 2, "world": 2},
        {"rank": -1},
        {"seed": -1},
        {"seed": 2**64},
    ],
)
def test_an_option_out_of_range_is_named(pairs: ShardSet, options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(TrainingError, match=rf"^{name} is -?\d+\n  remedy: it must be"):
        PackedLoader(pairs, **({"seq_len": 12, "micro_batch": 1} | options))


def test_a_negative_step_is_refused(pairs: ShardSet) -> None:
    with pytest.raises(ValueError, match="negative"):
        PackedLoader(pairs, seq_len=12, micro_batch=1).step(-1)


def test_padded_to_the_longest_of_the_batch(make_data: MakeData, tmp_path: Path) -> None:
    shards = ShardSet.open(make_data(tmp_path, [[[10], [20]], [[11], [21, 22]], [[12], [23]]]))
    loader = PaddedLoader(shards, seq_len=9, micro_batch=2, shuffle=False)
    first, last = (batch for step in range(2) for batch in loader.step(step))
    assert first.input_ids.tolist() == [[1, 10, 3, 20, 0], [1, 11, 3, 21, 22]]
    assert first.labels.tolist() == [[X, X, 20, 2, X], [X, X, 21, 22, 2]]
    assert first.attention_mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert first.position_ids.tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 3, 4]]
    assert first.cu_seqlens.tolist() == [0, 4, 5, 10]
    assert last.input_ids.tolist() == [[1, 12, 3, 23], [0, 0, 0, 0]]
    assert last.attention_mask.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert (first.sample_ids, last.sample_ids) == ((0, 1), (2, -1))


def test_padded_to_one_length_and_long_documents_in_windows(
    make_data: MakeData, tmp_path: Path
) -> None:
    shards = ShardSet.open(make_data(tmp_path, [[[10, 11, 12, 13, 14]], [[15]]], "pretrain"))
    loader = PaddedLoader(shards, seq_len=4, micro_batch=3, shuffle=False, pad_to="seq_len")
    (batch,) = loader.step(0)
    assert batch.input_ids.tolist() == [[1, 10, 11, 12], [13, 14, 0, 0], [1, 15, 0, 0]]
    assert batch.labels.tolist() == [[10, 11, 12, 13], [14, 2, X, X], [15, 2, X, X]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_a_padded_micro_batch_of_empty_rows_alone(pairs: ShardSet) -> None:
    batches = PaddedLoader(pairs, seq_len=12, micro_batch=10, accumulation=4).step(0)
    assert batches[3].sample_ids == (-1,) * 10
    assert batches[3].input_ids.tolist() == [[0]] * 10


def test_padding_never_cuts_an_answer(pairs: ShardSet) -> None:
    with pytest.raises(TrainingError, match="2 rows are longer than seq_len 8"):
        PaddedLoader(pairs, seq_len=8, micro_batch=1)


LOADERS: list[type[PackedLoader | PaddedLoader]] = [PackedLoader, PaddedLoader]


@pytest.mark.parametrize("kind", LOADERS)
def test_iteration_goes_on_from_every_state(
    pairs: ShardSet, kind: type[PackedLoader | PaddedLoader]
) -> None:
    loader = kind(pairs, seq_len=12, micro_batch=2, seed=5)
    count = 2 * loader.steps_per_epoch + 1
    states, batches = [], []
    for _, given in zip(range(count), loader, strict=False):
        batches.append(given)
        states.append(loader.state)
    assert [len(state) for state in states] == [3] * count
    assert states[loader.steps_per_epoch - 1] == LoaderState(5, 1, 0)
    for done, state in enumerate(states[:-1]):
        other = kind(pairs, seq_len=12, micro_batch=2, seed=99)
        assert other.load_state(tuple(state)) == done + 1
        assert other.state == state == loader.state_at(done + 1)
        assert same(next(iter(other)), batches[done + 1])


def test_a_state_goes_on_in_another_world(pairs: ShardSet) -> None:
    one = PackedLoader(pairs, seq_len=12, micro_batch=4, seed=5)
    state = one.state_at(3)
    parts = []
    for rank in range(2):
        other = PackedLoader(pairs, seq_len=12, micro_batch=2, rank=rank, world=2)
        other.load_state(state)
        parts += next(iter(other))
    assert tuple(n for part in parts for n in part.sample_ids) == one.step(3)[0].sample_ids


@pytest.mark.parametrize("state", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 10**6)])
def test_a_state_that_cannot_be_is_refused(pairs: ShardSet, state: tuple[int, int, int]) -> None:
    with pytest.raises(TrainingError, match="the state's"):
        PackedLoader(pairs, seq_len=12, micro_batch=1).load_state(state)
