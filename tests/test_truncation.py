"""Each policy cuts what its name says, never more than it must, and never pretends an end."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnprep.config import Truncation
from vnprep.examples import Segments, build
from vnprep.tokenizer.special import SpecialIds
from vnprep.truncation import row_lengths, truncate

SPECIAL = SpecialIds(0, 1, 2, 3)


def _segments(records: list[list[list[int]]], finetune: bool = True) -> Segments:
    parts = [part for record in records for part in record]
    roles = [
        place % 2 == 1 if finetune else True for record in records for place in range(len(record))
    ]
    return Segments(
        np.array([token for part in parts for token in part], dtype=np.int64),
        np.cumsum([0, *map(len, parts)]),
        np.cumsum([0, *map(len, records)]),
        np.array(roles, dtype=np.bool_),
        np.ones(len(parts), dtype=np.bool_),
    )


def _inputs(segments: Segments) -> list[list[int]]:
    columns = build(segments, SPECIAL)
    return [
        columns.input[start:end].tolist()
        for start, end in zip(columns.offsets, columns.offsets[1:], strict=False)
    ]


PAIR = [[10, 11, 12, 13], [20, 21, 22]]  # 1 + 4 + 1 + 3 = 9 positions


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("request-left", [1, 12, 13, 3, 20, 21, 22]),
        ("request-right", [1, 10, 11, 3, 20, 21, 22]),
        ("response-right", [1, 10, 11, 12, 13, 3, 20]),
    ],
)
def test_what_each_policy_keeps(policy: Truncation, expected: list[int]) -> None:
    result = truncate(_segments([PAIR]), 7, policy)
    assert _inputs(result.segments) == [expected]
    assert result.cut.tolist() == [True]
    assert result.too_long.tolist() == [False]


def test_a_cut_response_gets_no_eos() -> None:
    columns = build(truncate(_segments([PAIR]), 7, "response-right").segments, SPECIAL)
    assert columns.target.tolist() == [0, 0, 0, 0, 0, 20, 21]
    assert SPECIAL.eos not in columns.target


def test_drop_cuts_nothing() -> None:
    result = truncate(_segments([PAIR, [[10], [20]]]), 7, "drop")
    assert result.too_long.tolist() == [True, False]
    assert not result.cut.any()
    assert row_lengths(result.segments).tolist() == [9, 4]


def test_a_record_that_would_lose_a_whole_segment_is_too_long() -> None:
    result = truncate(_segments([PAIR]), 5, "request-left")
    assert result.too_long.tolist() == [True]
    assert not result.cut.any()


@given(
    records=st.lists(
        st.lists(st.lists(st.integers(10, 99), min_size=1, max_size=9), min_size=2, max_size=4).map(
            lambda parts: parts[: len(parts) // 2 * 2]
        ),
        min_size=1,
        max_size=6,
    ),
    max_len=st.integers(2, 30),
    policy=st.sampled_from(get_args(Truncation)),
)
def test_rows_fit_and_rows_that_fitted_are_untouched(
    records: list[list[list[int]]], max_len: int, policy: Truncation
) -> None:
    before = _segments(records)
    result = truncate(before, max_len, policy)
    old, new = row_lengths(before), row_lengths(result.segments)
    fitted = old <= max_len
    assert not (result.cut & result.too_long).any()
    assert ((result.cut | result.too_long) == ~fitted).all()
    assert (new[~result.too_long] <= max_len).all()
    # Not one token more than needed: a cut row is full, or one short for its lost [EOS].
    assert (new[result.cut] >= max_len - 1).all()
    unchanged = [row for row, fit in zip(_inputs(before), fitted, strict=True) if fit]
    assert [
        row for row, fit in zip(_inputs(result.segments), fitted, strict=True) if fit
    ] == unchanged
