"""A sample is bounded, spread over all that was read, and the same every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnprep.tokenizer.sample import RUN_BYTES, draw_sample

_any_text = st.text(st.characters(exclude_categories=["Cs"]))
_long_text = st.builds(
    lambda part, times: part * times,
    st.sampled_from(["ầ", "a b ", "x\n", "😀"]),
    st.integers(0, 50_000),
)
batches_of_texts = st.lists(st.lists(_any_text | _long_text, max_size=5), max_size=4)


def _arrays(batches: Sequence[Sequence[str]]) -> list[pa.LargeStringArray]:
    return [pa.array(batch, type=pa.large_string()) for batch in batches]


@settings(deadline=None)
@given(batches_of_texts)
def test_texts_that_fit_are_all_used_and_not_a_letter_is_lost(batches: list[list[str]]) -> None:
    sample = draw_sample(_arrays(batches), 1 << 30)
    texts = [text for batch in batches for text in batch]
    assert "".join(sample) == "".join(texts)
    assert sample.is_all
    assert sample.texts_read == sample.texts_used == len(texts)
    assert sample.bytes_read == sample.bytes_used == len("".join(texts).encode())
    assert all(len(text.encode()) <= RUN_BYTES for text in sample)


@settings(deadline=None)
@given(batches_of_texts, st.integers(1, 200_000))
def test_counts_are_those_of_the_texts_that_come_out(batches: list[list[str]], limit: int) -> None:
    sample = draw_sample(_arrays(batches), limit)
    assert sample.bytes_used == len("".join(sample).encode())
    assert sample.bytes_used <= limit or len(sample.runs) == 1
    assert sample.bytes_read == sum(len(text.encode()) for batch in batches for text in batch)
    assert list(draw_sample(_arrays(batches), limit)) == list(sample)


@settings(deadline=None)
@given(st.lists(st.text("ab ầ", max_size=50)))
def test_short_texts_stay_apart(texts: list[str]) -> None:
    whole = pa.array(["before", *texts, "after"], type=pa.large_string())
    assert list(draw_sample([whole[1:-1]], 1 << 30)) == texts


def _numbered(count: int) -> Iterator[pa.LargeStringArray]:
    for start in range(0, count, 2_000):
        numbers = range(start, min(start + 2_000, count))
        texts = [f"{number:09d} " + "một hai ba bốn " * 5 for number in numbers]
        yield pa.array(texts, type=pa.large_string())


@pytest.mark.parametrize("count", [20_000, 200_000])
def test_every_part_of_the_input_is_in_the_sample_and_in_order(count: int) -> None:
    sample = draw_sample(_numbered(count), 1_000_000)
    assert (sample.texts_read, sample.is_all) == (count, False)
    assert 0.9e6 < sample.bytes_used <= 1e6
    numbers = [int(text[:9]) for text in sample]
    assert numbers == sorted(numbers)
    assert len(numbers) == sample.texts_used
    for quarter in range(4):
        inside = sum(quarter <= 4 * number / count < quarter + 1 for number in numbers)
        assert 0.05 < inside / len(numbers) < 0.6


def test_memory_is_the_limit_whatever_the_input() -> None:
    limit = 500_000

    def held(count: int) -> int:
        sample = draw_sample(_numbered(count), limit)
        return sum(len(run.data) + run.offsets.nbytes for run in sample.runs)

    assert 0.9 * limit < held(20_000) < 1.2 * limit
    assert 0.9 * limit < held(100_000) < 1.2 * limit


def test_long_texts_are_cut_where_a_word_ends() -> None:
    spaces, lines = "một hai " * 20_000, "một dòng\n" * 20_000
    pieces = list(draw_sample(_arrays([[spaces]]), 1 << 30))
    assert len(pieces) > 1
    assert all(piece.startswith(" ") for piece in pieces[1:])
    assert all(piece.endswith("\n") for piece in draw_sample(_arrays([[lines]]), 1 << 30))
