"""Packing against its plain definition; the loader against the rows that are stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnprep.loading.loader import Batch, PackedLoader
from vnprep.packing.bins import best_fit_decreasing, windows
from vnprep.shards.read import ShardSet

EOS = 2

item_lengths = st.integers(1, 60).flatmap(
    lambda most: st.tuples(st.lists(st.integers(1, most), max_size=80), st.integers(most, 80))
)


def plain_best_fit_decreasing(lengths: list[int], capacity: int) -> list[list[int]]:
    """One item at a time: the definition in the docstring, without any shortcut."""
    bins: list[list[int]] = []
    state: list[tuple[int, int]] = []  # room left, and the moment since which it is so
    ordered = sorted(range(len(lengths)), key=lambda item: (-lengths[item], item))
    for moment, item in enumerate(ordered):
        fitting = [number for number, (room, _) in enumerate(state) if room >= lengths[item]]
        if fitting:
            number = min(fitting, key=lambda number: state[number])
        else:
            number = len(bins)
            bins.append([])
            state.append((capacity, moment))
        bins[number].append(item)
        state[number] = (state[number][0] - lengths[item], moment)
    return bins


@settings(max_examples=300)
@given(item_lengths)
def test_bins_are_those_of_the_plain_definition(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    bins = best_fit_decreasing(lengths, capacity)
    got = [bins[number].tolist() for number in range(len(bins))]
    assert got == plain_best_fit_decreasing(lengths, capacity)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 20))
def test_windows_cover_every_position_once(lengths: list[int], seq_len: int) -> None:
    cut = windows(lengths, seq_len)
    covered = [
        (row, start + place)
        for row, start, length in zip(cut.row, cut.start, cut.length, strict=True)
        for place in range(length)
    ]
    assert covered == [(row, place) for row, n in enumerate(lengths) for place in range(n)]
    assert len(cut) == sum(-(-length // seq_len) for length in lengths)
    assert cut.length.max(initial=1) <= seq_len


@pytest.fixture(scope="module", params=["pretrain", "finetune"])
def shards(
    request: pytest.FixtureRequest,
    make_data: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> ShardSet:
    """Give 25 rows of 3 to 24 positions in which every text token is one of its kind."""
    fresh = iter(range(4, 1000))
    lengths = np.random.default_rng(5).integers(1, 12, (25, 2)).tolist()
    stage: str = request.param
    rows = [[[next(fresh) for _ in range(n)] for n in pair] for pair in lengths]
    if stage == "pretrain":
        rows = [[first + second] for first, second in rows]
    folder = tmp_path_factory.mktemp(stage)
    return ShardSet.open(make_data(folder, rows, stage, shard_rows=6, words=996))


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, int, int]:
    """Draw micro_batch, accumulation and world."""
    return draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 4))


def epoch(
    shards: ShardSet, seq_len: int, split: tuple[int, int, int], seed: int, number: int
) -> list[Batch]:
    """Give all batches of an epoch as the ranks get them: by step, micro-batch, rank."""
    micro_batch, accumulation, world = split
    ranks = [
        PackedLoader(
            shards,
            seq_len=seq_len,
            micro_batch=micro_batch,
            accumulation=accumulation,
            rank=rank,
            world=world,
            seed=seed,
        )
        for rank in range(world)
    ]
    each = ranks[0].steps_per_epoch
    batches = []
    for step in range(number * each, (number + 1) * each):
        parts = [loader.step(step) for loader in ranks]
        assert [len(part) for part in parts] == [accumulation] * world
        batches += [parts[rank][part] for part in range(accumulation) for rank in range(world)]
    return batches


def stored(shards: ShardSet) -> list[tuple[int, int, int]]:
    """List input, label and place in its row of every stored position."""
    return [
        (int(token), int(target) if mask else -100, place)
        for row in shards
        for place, (token, target, mask) in enumerate(
            zip(row.input, row.target, row.loss_mask, strict=True)
        )
    ]


@settings(max_examples=40, deadline=None)
@given(
    splits(), st.integers(24, 70), st.integers(1, 23), st.integers(0, 2**64 - 1), st.integers(0, 9)
)
def test_an_epoch_is_the_stored_positions_each_once(
    shards: ShardSet, split: tuple[int, int, int], long: int, short: int, seed: int, number: int
) -> None:
    whole = shards.manifest.stage == "finetune"
    seq_len = long if whole else short  # only documents may be cut
    batches = epoch(shards, seq_len, split, seed, number)
    bins = [sample for batch in batches for sample in batch.sample_ids if sample >= 0]
    assert sorted(bins) == list(range(len(bins)))
    seen: list[tuple[int, int, int]] = []
    for batch in batches:
        assert batch.input_ids.shape == (split[0], seq_len) == batch.labels.shape
        used = batch.document_ids >= 0
        assert (batch.input_ids[~used] == 0).all()
        assert (batch.labels[~used] == -100).all()
        assert (batch.position_ids[~used] == 0).all()
        seen += zip(
            batch.input_ids[used].tolist(),
            batch.labels[used].tolist(),
            batch.position_ids[used].tolist(),
            strict=True,
        )
    expected = [(token, label, place % seq_len) for token, label, place in stored(shards)]
    assert sorted(seen) == sorted(expected)
    supervised = sum(label != -100 for _, label, _ in seen)
    assert supervised == shards.manifest.supervised_tokens


@settings(max_examples=30, deadline=None)
@given(splits(), st.integers(24, 70))
def test_documents_lie_side_by_side_and_count_from_zero(
    shards: ShardSet, split: tuple[int, int, int], seq_len: int
) -> None:
    for batch in epoch(shards, seq_len, split, 0, 0):
        spans = np.diff(batch.cu_seqlens)
        assert spans.sum() == batch.input_ids.size and batch.cu_seqlens[0] == 0
        assert (spans.min(), spans.max()) >= (1, 1) and spans.max() == batch.max_seqlen
        # One line of positions counts from zero at each of them, padding apart.
        line = np.arange(batch.input_ids.size) - np.repeat(batch.cu_seqlens[:-1], spans)
        assert (line == batch.position_ids.ravel())[batch.document_ids.ravel() >= 0].all()
        for number in range(len(batch.sample_ids)):
            documents, positions = batch.document_ids[number], batch.position_ids[number]
            tokens, labels = batch.input_ids[number], batch.labels[number]
            used = int((documents >= 0).sum())
            assert (used == 0) == (batch.sample_ids[number] == -1)
            assert (documents[:used] >= 0).all() and (documents[used:] == -1).all()
            if not used:
                continue
            steps = np.diff(documents[:used], prepend=-1)
            assert set(steps.tolist()) <= {0, 1}
            assert (positions[:used] == 0).tolist() == (steps == 1).tolist()
            assert (np.diff(positions[:used])[steps[1:] == 0] == 1).all()
            # Within a document the label, where there is one, is the next input.
            goes_on = (steps[1:] == 0) & (labels[: used - 1] != -100)
            assert (labels[: used - 1][goes_on] == tokens[1:used][goes_on]).all()
            cuts = number * seq_len + np.append(np.flatnonzero(steps == 1), used)
            assert set(cuts.tolist()) <= set(batch.cu_seqlens.tolist())
            ends = np.append(steps[1:] == 1, True)
            assert (labels[:used][ends] == EOS).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(24, 70), st.integers(0, 9), st.integers(0, 3))
def test_the_global_batch_does_not_depend_on_how_it_is_split(
    shards: ShardSet, micro_batch: int, seq_len: int, seed: int, number: int
) -> None:
    def rows(split: tuple[int, int, int]) -> tuple[list[int], np.ndarray]:
        batches = epoch(shards, seq_len, split, seed, number)
        return (
            [sample for batch in batches for sample in batch.sample_ids],
            np.concatenate([batch.input_ids for batch in batches]),
        )

    ids, tokens = rows((micro_batch, 4, 1))
    for split in ((micro_batch, 2, 2), (micro_batch, 1, 4), (2 * micro_batch, 1, 2)):
        other_ids, other_tokens = rows(split)
        assert other_ids == ids
        assert np.array_equal(other_tokens, tokens)
