"""Columns of texts → a batch: rows that are as they should be pass as they are, others with care.

Care means the functions of ``records``, which take one row at a time and know every rule. The
vector tests of ``quick_check`` tell which rows need it; they never miss one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import NO_OFFSET, Origin
from vnprep.sources.batch import TextBatch, of_records, splice
from vnprep.sources.lines import Line
from vnprep.sources.records import Record, conversation, document
from vnprep.sources.text import one_line
from vnprep.texts import text_bytes, text_offsets
from vnprep.vietnamese.normalize import is_clean_around
from vnprep.vietnamese.quick_check import spaced, spaced_starts, suspects

Ints = NDArray[np.int64]

# With more suspicious places than this, a text is looked at as a whole.
_MANY = 100


@dataclass(frozen=True)
class Rows:
    """Rows of one source, not yet cleaned.

    Attributes:
        columns: the documents; or requests and responses (large_string without nulls, [rows]).
        line: each row's 1-based line or row number, [rows].
        byte_offset: its first byte, or ``NO_OFFSET``, [rows].
        stripped: whether white space at the ends of a document is removed: its line ends are
            those of the file, not the author's.
    """

    columns: tuple[pa.LargeStringArray, ...]
    line: Ints
    byte_offset: Ints
    stripped: bool = False


def assemble(
    rows: Rows,
    source: int,
    name: str,
    others: Sequence[Record | Excluded] = (),
    blank_lines: int = 0,
) -> TextBatch:
    """Make a batch of rows.

    Args:
        rows: what a fast reader found.
        source: the source's place in the unit's list of sources.
        name: the source's name, for rejects.
        others: rows of the same lines that were read with care.
        blank_lines: lines with nothing in them.
    """
    width = len(rows.columns)
    texts = rows.columns[0] if width == 1 else _interleave(rows.columns)
    careful = _needs_care(texts, width, both_ends=width > 1 or rows.stripped)
    read = [*others, *(_with_care(rows, int(row), name) for row in np.flatnonzero(careful))]
    batch = TextBatch(
        texts,
        np.arange(len(rows.line) + 1, dtype=np.int64) * width,
        np.full(len(rows.line), source, dtype=np.int64),
        rows.line,
        rows.byte_offset,
        blank_lines=blank_lines,
    )
    if not read:
        return batch
    by_hand = of_records(
        [item for item in read if isinstance(item, Record)],
        [item for item in read if isinstance(item, Excluded)],
        source,
    )
    plain = batch.take(~careful)
    return splice(plain, by_hand, blank_lines)


def _interleave(columns: Sequence[pa.LargeStringArray]) -> pa.LargeStringArray:
    width, rows = len(columns), len(columns[0])
    order = np.arange(width * rows).reshape(width, rows).T.reshape(-1)
    return pa.concat_arrays(list(columns)).take(pa.array(order))


def _needs_care(texts: pa.LargeStringArray, width: int, *, both_ends: bool) -> NDArray[np.bool_]:
    """Tell which rows hold a text that is not NFC, holds NUL, is blank or has to be stripped."""
    if not len(texts):
        return np.zeros(0, dtype=np.bool_)
    data, offsets = text_bytes(texts), text_offsets(texts)
    careful = spaced(data, offsets) if both_ends else spaced_starts(data, offsets)
    places = suspects(data, offsets)
    numbers = np.searchsorted(offsets, places, side="right") - 1
    for number, those in zip(*_grouped(numbers, places), strict=True):
        careful[number] = careful[number] or not _is_clean(
            data[offsets[number] : offsets[number + 1]], those - offsets[number]
        )
    return np.asarray(careful.reshape(-1, width).any(axis=1))


def _grouped(numbers: Ints, places: Ints) -> tuple[list[int], list[Ints]]:
    """Group places by the number of their text; both are in rising order."""
    different, starts = np.unique(numbers, return_index=True)
    return different.tolist(), np.split(places, starts)[1:]


def _is_clean(text: NDArray[np.uint8], places: Ints) -> bool:
    """Tell whether a text is NFC and without NUL, given the places where it may not be."""
    raw = text.data
    if len(places) > _MANY:
        whole = str(raw, "utf-8")
        return "\0" not in whole and unicodedata.is_normalized("NFC", whole)
    return all(is_clean_around(raw, place) for place in places.tolist())


def _with_care(rows: Rows, row: int, name: str) -> Record | Excluded:
    offset = int(rows.byte_offset[row])
    origin = Origin(name, int(rows.line[row]), None if offset == NO_OFFSET else offset)
    texts = [str(column[row].as_py()) for column in rows.columns]
    if len(texts) > 1:
        return conversation(list(zip(("request", "response"), texts, strict=True)), origin)
    return one_line(Line(texts[0], origin)) if rows.stripped else document(texts[0], origin)
