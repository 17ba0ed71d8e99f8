"""The contract's columns: its own example token by token, and every rule of it at random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnprep.examples import Columns, Segments, build
from vnprep.tokenizer.special import SpecialIds

PAD, BOS, EOS, SEP = 0, 1, 2, 3
SPECIAL = SpecialIds(PAD, BOS, EOS, SEP)

#: A segment: its ids, whether it is supervised, whether it ended (False: it was cut).
Segment = tuple[list[int], bool, bool]


def columnar(records: list[list[Segment]]) -> Segments:
    parts = [segment for record in records for segment in record]
    return Segments(
        ids=np.array([token for ids, _, _ in parts for token in ids], dtype=np.int64),
        offsets=np.cumsum([0, *(len(ids) for ids, _, _ in parts)]),
        record_offsets=np.cumsum([0, *map(len, records)]),
        supervised=np.array([supervised for _, supervised, _ in parts], dtype=np.bool_),
        ended=np.array([ended for _, _, ended in parts], dtype=np.bool_),
    )


def row(columns: Columns, number: int = 0) -> tuple[list[int], list[int], list[int]]:
    part = slice(columns.offsets[number], columns.offsets[number + 1])
    return (
        columns.input[part].tolist(),
        columns.target[part].tolist(),
        columns.loss_mask[part].tolist(),
    )


def pair(request: list[int], response: list[int]) -> list[Segment]:
    return [(request, False, True), (response, True, True)]


class Words:
    """Word-level ids from 4 on, in order of appearance."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __call__(self, text: str) -> list[int]:
        return [self.ids.setdefault(word, 4 + len(self.ids)) for word in text.split()]


def test_the_example_of_the_contract() -> None:
    words = Words()
    request = words("Bật quạt phòng ngủ lên mức 2")
    response = words("Đã bật quạt phòng ngủ lên mức 2")
    assert (len(request), len(response)) == (7, 8)
    tokens, target, loss_mask = row(build(columnar([pair(request, response)]), SPECIAL))
    assert tokens == [BOS, *request, SEP, *response]
    assert target == [PAD] * 8 + [*response, EOS]
    assert loss_mask == [0] * 8 + [1] * 9
    assert len(tokens) == len(target) == len(loss_mask) == 17
    # The position whose input is [SEP] predicts the first token of the answer and carries loss.
    seam = tokens.index(SEP)
    assert (target[seam], loss_mask[seam]) == (response[0], 1)


def test_the_example_without_eos_in_the_loss() -> None:
    columns = build(columnar([pair([4, 5], [6, 7])]), SPECIAL, eos_loss=False)
    assert row(columns) == ([1, 4, 5, 3, 6, 7], [0, 0, 0, 6, 7, EOS], [0, 0, 0, 1, 1, 0])


def test_a_document() -> None:
    records: list[list[Segment]] = [[([4, 5, 6, 7], True, True)]]
    columns = build(columnar(records), SPECIAL, keep_targets=True)
    assert row(columns) == ([BOS, 4, 5, 6, 7], [4, 5, 6, 7, EOS], [1, 1, 1, 1, 1])
    columns = build(columnar(records), SPECIAL, keep_targets=True, eos_loss=False)
    assert row(columns) == ([BOS, 4, 5, 6, 7], [4, 5, 6, 7, EOS], [1, 1, 1, 1, 0])


def test_several_turns() -> None:
    record = pair([4, 5], [6]) + pair([7], [8, 9])
    assert row(build(columnar([record]), SPECIAL)) == (
        [BOS, 4, 5, SEP, 6, EOS, 7, SEP, 8, 9],
        [0, 0, 0, 6, EOS, 0, 0, 8, 9, EOS],
        [0, 0, 0, 1, 1, 0, 0, 1, 1, 1],
    )
    assert row(build(columnar([record]), SPECIAL, eos_loss=False)) == (
        [BOS, 4, 5, SEP, 6, EOS, 7, SEP, 8, 9],
        [0, 0, 0, 6, EOS, 0, 0, 8, 9, EOS],
        [0, 0, 0, 1, 0, 0, 0, 1, 1, 0],
    )


def test_an_answer_that_was_cut_does_not_pretend_to_end() -> None:
    record: list[Segment] = [([4], False, True), ([5, 6], True, False)]
    assert row(build(columnar([record]), SPECIAL)) == ([1, 4, 3, 5], [0, 0, 5, 6], [0, 0, 1, 1])


def test_records_do_not_touch_each_other() -> None:
    columns = build(columnar([pair([4], [5]), pair([6, 7], [8]), pair([], [9])]), SPECIAL)
    assert row(columns, 0) == ([1, 4, 3, 5], [0, 0, 5, 2], [0, 0, 1, 1])
    assert row(columns, 1) == ([1, 6, 7, 3, 8], [0, 0, 0, 8, 2], [0, 0, 0, 1, 1])
    assert row(columns, 2) == ([1, 3, 9], [0, 9, 2], [0, 1, 1])
    assert columns.lengths.tolist() == [4, 5, 3]
    assert columns.supervised_tokens().tolist() == [2, 2, 2]


def test_no_records() -> None:
    columns = build(columnar([]), SPECIAL)
    assert len(columns.input) == len(columns.target) == len(columns.loss_mask) == 0
    assert columns.lengths.tolist() == [] == columns.supervised_tokens().tolist()


def test_the_special_ids_of_a_foreign_tokenizer() -> None:
    special = SpecialIds(pad=900, bos=50, eos=7, sep=123_456)
    columns = build(columnar([pair([4, 5], [6])]), special)
    assert row(columns) == ([50, 4, 5, 123_456, 6], [900, 900, 900, 6, 7], [0, 0, 0, 1, 1])


def plain(
    record: list[Segment], eos_loss: bool, keep_targets: bool
) -> tuple[list[int], list[int], list[int]]:
    """Write the sequence and its loss flags token by token, then shift: the contract as it reads.

    A flag is ``loss``, ``end`` (an answer's ``[EOS]``) or None.
    """
    sequence: list[tuple[int, str | None]] = [(BOS, None)]
    for ids, supervised, ended in record:
        sequence += [(token, "loss" if supervised else None) for token in ids]
        if not supervised:
            sequence.append((SEP, None))
        elif ended:
            sequence.append((EOS, "end"))
    tokens = [token for token, _ in sequence[:-1]]
    target, loss_mask = [], []
    for token, flag in sequence[1:]:
        loss_mask.append(int(flag == "loss" or (flag == "end" and eos_loss)))
        target.append(token if flag or keep_targets else PAD)
    return tokens, target, loss_mask


id_lists = st.lists(st.integers(4, 99), max_size=6)
turns = st.lists(st.tuples(id_lists, id_lists), min_size=1, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[Segment]:
    """Draw turns, of which the last answer may be cut, though not to nothing."""
    record = [segment for request, response in draw(turns) for segment in pair(request, response)]
    ids, supervised, _ = record[-1]
    return [*record[:-1], (ids, supervised, not ids or draw(st.booleans()))]


@given(st.lists(conversations(), max_size=6), st.booleans())
def test_conversations_as_the_contract_reads(records: list[list[Segment]], eos_loss: bool) -> None:
    columns = build(columnar(records), SPECIAL, eos_loss=eos_loss)
    assert len(columns.offsets) == len(records) + 1
    for number, record in enumerate(records):
        got = tokens, target, loss_mask = row(columns, number)
        assert got == plain(record, eos_loss, keep_targets=False)
        assert len(tokens) == len(target) == len(loss_mask)
        assert sum(loss_mask) == columns.supervised_tokens()[number]
        for token, mask in zip(target, loss_mask, strict=True):
            assert not (mask and token == PAD)
            assert mask or token == PAD or (token == EOS and not eos_loss)
        # input and target are one sequence: where a target is kept, it is the next input.
        for following, token in zip(tokens[1:], target[:-1], strict=True):
            assert token in (PAD, following)


@given(st.lists(st.tuples(id_lists, st.booleans()), max_size=6), st.booleans())
def test_documents_as_the_contract_reads(
    documents: list[tuple[list[int], bool]], eos_loss: bool
) -> None:
    records: list[list[Segment]] = [[(ids, True, ended or not ids)] for ids, ended in documents]
    columns = build(columnar(records), SPECIAL, eos_loss=eos_loss, keep_targets=True)
    for number, record in enumerate(records):
        assert row(columns, number) == plain(record, eos_loss, keep_targets=True)
        tokens, target, _ = row(columns, number)
        assert tokens[1:] == target[:-1]


def test_the_mask_is_stored_as_bytes() -> None:
    columns = build(columnar([pair([4], [5])]), SPECIAL)
    assert columns.loss_mask.dtype == np.uint8
    assert columns.input.dtype == columns.target.dtype == np.int64


@pytest.mark.parametrize("eos_loss", [True, False])
def test_the_labels_of_hugging_face(eos_loss: bool) -> None:
    columns = build(columnar([pair([4], [5])]), SPECIAL, eos_loss=eos_loss)
    labels = np.where(columns.loss_mask, columns.target, -100)
    assert labels.tolist() == [-100, -100, 5, EOS if eos_loss else -100]
