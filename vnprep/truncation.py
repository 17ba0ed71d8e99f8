"""What happens to an example that is longer than allowed: by name, and counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vnprep.config import Truncation
from vnprep.examples import Mask, Offsets, Segments


@dataclass(frozen=True)
class Truncated:
    """The segments after cutting.

    Attributes:
        segments: all records still there, some shorter.
        too_long: records that must be dropped, [records].
        cut: records that lost tokens, [records].
    """

    segments: Segments
    too_long: Mask
    cut: Mask


def row_lengths(segments: Segments) -> Offsets:
    """Return how many positions each record's row will have, [records]."""
    lengths = np.diff(segments.offsets)
    ended = segments.ended | ~segments.supervised
    totals = np.concatenate(([0], np.cumsum(lengths + ended)))
    # [BOS] adds one position, the shift takes one away.
    return totals[segments.record_offsets[1:]] - totals[segments.record_offsets[:-1]]


def truncate(segments: Segments, max_len: int | None, policy: Truncation) -> Truncated:
    """Cut the records whose row would be longer than ``max_len`` positions.

    ``right`` and ``response-right`` shorten the last segment at its end, which then gets no
    ``[EOS]``; ``request-left`` and ``request-right`` shorten the first. A segment keeps at least
    one token: a record that would need more cut than that is too long and must be dropped.
    """
    records = len(segments.record_offsets) - 1
    cut = np.zeros(records, dtype=np.bool_)
    if max_len is None:
        return Truncated(segments, cut, cut)
    excess = row_lengths(segments) - max_len
    too_long = excess > 0
    if policy == "drop" or not too_long.any():
        return Truncated(segments, too_long, cut)

    from_end = policy in ("right", "response-right")
    places = segments.record_offsets[1:] - 1 if from_end else segments.record_offsets[:-1]
    lengths = np.diff(segments.offsets)
    # Losing its [EOS] already shortens a cut row by one position.
    surplus = np.maximum(excess - 1, 0) if from_end else excess
    cut = too_long & (surplus < lengths[places])
    too_long &= ~cut

    keep = np.ones(len(segments.ids), dtype=np.bool_)
    ended = segments.ended.copy()
    for record in np.flatnonzero(cut):
        segment, count = places[record], int(surplus[record])
        start, end = int(segments.offsets[segment]), int(segments.offsets[segment + 1])
        if policy == "request-left":
            keep[start : start + count] = False
        else:
            keep[end - count : end] = False
        if from_end:
            ended[segment] = False
    totals = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))
    shorter = Segments(
        segments.ids[keep],
        totals[segments.offsets],
        segments.record_offsets,
        segments.supervised,
        ended,
    )
    return Truncated(shorter, too_long, cut)
