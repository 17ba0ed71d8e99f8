"""A sample is bounded, spread over all that was read, and the same every time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnprep.tokenizer.sample import BLOCK_CHARACTERS, draw_sample

texts_without_nul = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    | st.builds(
        lambda part, times: part * times,
        st.sampled_from(["ầ", "a b ", "x\n"]),
        st.integers(0, 50_000),
    ),
    max_size=8,
)


@given(texts_without_nul)
def test_texts_that_fit_are_all_used_and_not_a_letter_is_lost(texts: list[str]) -> None:
    sample = draw_sample(texts, 1 << 30)
    assert "".join(sample) == "".join(texts)
    assert sample.is_all
    assert sample.texts_read == sample.texts_used == len(texts)
    assert sample.bytes_read == sample.bytes_used == len("".join(texts).encode())
    assert all(len(text) <= BLOCK_CHARACTERS for text in sample)


@given(texts_without_nul, st.integers(1, 200_000))
def test_counts_are_those_of_the_texts_that_come_out(texts: list[str], limit: int) -> None:
    sample = draw_sample(texts, limit)
    assert sample.bytes_used == len("".join(sample).encode())
    assert sample.bytes_used <= limit or len(sample.blocks) == 1
    assert sample.bytes_read == len("".join(texts).encode())
    assert list(draw_sample(iter(texts), limit)) == list(sample)


def _numbered(count: int) -> Iterator[str]:
    return (f"{number:09d} " + "một hai ba bốn " * 5 for number in range(count))


@pytest.mark.parametrize("count", [20_000, 200_000])
def test_every_part_of_the_input_is_in_the_sample_and_in_order(count: int) -> None:
    sample = draw_sample(_numbered(count), 1_000_000)
    numbers = [int(text[:9]) for text in sample]
    assert numbers == sorted(numbers)
    assert 0.9e6 < sample.bytes_used <= 1e6
    quarters = [
        sum(part <= 4 * number / count < part + 1 for number in numbers) for part in range(4)
    ]
    assert min(quarters) > 0.08 * len(numbers), quarters


def test_a_shorter_input_gives_no_head_of_the_longer_one() -> None:
    """The last run is as likely to be drawn as the first."""
    chosen = [
        int(text[:9]) for text in draw_sample(_numbered(100_000), 500_000) if text[:9].isdigit()
    ]
    middle = sum(chosen) / len(chosen)
    assert 30_000 < middle < 70_000


def test_memory_is_the_limit_whatever_the_input() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        draw_sample(_numbered(count), 500_000)
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    small, large = peak(20_000), peak(80_000)
    assert large < 1.1 * small
    assert large < 2 * 500_000


def test_long_texts_are_cut_where_a_word_ends() -> None:
    text = "một hai " * 20_000
    pieces = list(draw_sample([text], 1 << 30))
    assert len(pieces) > 1
    assert all(piece.startswith(" ") for piece in pieces[1:])
    lines = "một dòng\n" * 20_000
    assert all(piece.endswith("\n") for piece in draw_sample([lines], 1 << 30))
