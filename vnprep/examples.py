"""Token ids → ``input``, ``target``, ``loss_mask``: the one rule for both stages.

A record is a run of *segments*, each followed by one special token::

    pretrain    [BOS] DOC [EOS]                                 DOC is supervised
    fine-tune   [BOS] REQ [SEP] RES [EOS] REQ [SEP] RES [EOS]   every RES is supervised

The whole sequence counts as written first and then shifted: ``input = seq[:-1]``,
``target = seq[1:]``. A position carries loss when its target belongs to a supervised segment or is
the ``[EOS]`` that ends one; in fine-tuning every other target is ``[PAD]``.

Pure and columnar: numpy in, numpy out, no Python per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vnprep.tokenizer.special import SpecialIds

Ids = NDArray[np.unsignedinteger | np.signedinteger]
Offsets = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Segments:
    """Encoded records.

    Attributes:
        ids: all token ids, one segment after another, of the type that is to be stored, [tokens].
        offsets: where each segment starts in ``ids``, and the end of the last, [segments + 1].
        record_offsets: where each record starts among the segments, [records + 1].
        supervised: whether a segment carries loss, [segments].
        ended: whether a supervised segment is followed by [EOS]; False for an answer that was
            cut, which must not pretend that it ended there. Only a record's last segment may be
            cut, and not to nothing, [segments].
    """

    ids: Ids
    offsets: Offsets
    record_offsets: Offsets
    supervised: Mask
    ended: Mask


@dataclass(frozen=True)
class Columns:
    """Examples in columnar form: row ``i`` is ``offsets[i]:offsets[i + 1]`` of each array."""

    input: Ids
    target: Ids
    loss_mask: NDArray[np.uint8]
    offsets: Offsets

    @property
    def lengths(self) -> Offsets:
        """Tokens in each row, [rows]."""
        return np.diff(self.offsets)

    def supervised_tokens(self) -> Offsets:
        """Positions that carry loss in each row, [rows]."""
        if not len(self.loss_mask):
            return np.zeros(len(self.offsets) - 1, dtype=np.int64)
        # reduceat gives an empty row its first neighbour's value.
        starts = np.minimum(self.offsets[:-1], len(self.loss_mask) - 1)
        sums = np.add.reduceat(self.loss_mask, starts, dtype=np.int64)
        return np.where(self.lengths > 0, sums, 0)


def build(
    segments: Segments, special: SpecialIds, *, eos_loss: bool = True, keep_targets: bool = False
) -> Columns:
    """Build the three columns of every record.

    Args:
        segments: the encoded records; each has at least one segment.
        special: ids of the special tokens.
        eos_loss: whether predicting ``[EOS]`` carries loss. If not, the target keeps its
            ``[EOS]`` with mask 0.
        keep_targets: pretraining, where a target is the next token everywhere; in fine-tuning a
            target without loss is ``[PAD]``.
    """
    layout = _Layout(segments)
    tokens = _input(segments, layout, special)
    # The target is the input one place on; the last of each row is what the input leaves out.
    target = np.empty_like(tokens)
    target[:-1] = tokens[1:]
    ends = layout.offsets[1:] - 1
    target[ends] = np.where(segments.supervised[layout.last], special.eos, special.sep)
    target[ends[layout.cut]] = segments.ids[layout.last_ids[layout.cut]]
    mask = _loss_mask(segments, layout)
    answers_end = _answer_ends(segments, layout)
    if not eos_loss:
        mask[answers_end] = 0
    if not keep_targets:
        silent = mask == 0
        silent[answers_end] = False
        target[silent] = special.pad
    return Columns(tokens, target, mask, layout.offsets)


class _Layout:
    """Where everything lies.

    Attributes:
        lengths: tokens of each segment, [segments].
        first, last: each record's first and last segment, [records].
        cut: whether the record's last segment has no [EOS], [records].
        last_ids: where in ``ids`` each record's last token lies, [records].
        offsets: where each row starts among the positions, [records + 1].
        starts: the position whose input is a segment's first token, [segments].
    """

    def __init__(self, segments: Segments) -> None:
        self.lengths = np.diff(segments.offsets)
        self.first = segments.record_offsets[:-1]
        self.last = segments.record_offsets[1:] - 1
        self.cut = segments.supervised[self.last] & ~segments.ended[self.last]
        self.last_ids = segments.offsets[1:][self.last] - 1
        # A segment and the special token before it; the final [EOS], or the last token of an
        # answer that was cut, is no input.
        sizes = self.lengths + 1
        sizes[self.last] -= self.cut
        ends = np.cumsum(sizes)
        self.starts = ends - sizes + 1
        self.offsets = np.concatenate(([0], ends[self.last]))


def _input(segments: Segments, layout: _Layout, special: SpecialIds) -> Ids:
    """Lay out ``[BOS] segment special segment …``, without the last token of each sequence."""
    ids = segments.ids
    if layout.cut.any():
        ids = np.delete(ids, layout.last_ids[layout.cut])
    tokens = np.empty(int(layout.offsets[-1]), dtype=ids.dtype)
    ordinary = np.ones(len(tokens), dtype=np.bool_)
    before = layout.starts - 1
    ordinary[before] = False
    tokens[ordinary] = ids
    # Before a segment stands what ended the one before it, or [BOS].
    tokens[before[1:]] = np.where(segments.supervised[:-1], special.eos, special.sep)
    tokens[before[layout.first]] = special.bos
    return tokens


def _loss_mask(segments: Segments, layout: _Layout) -> NDArray[np.uint8]:
    """Mark the positions whose target lies in a supervised segment or ends one."""
    total = int(layout.offsets[-1])
    if segments.supervised.all():
        return np.ones(total, dtype=np.uint8)
    # The targets of a segment begin one position before it and end with its special token.
    sizes = layout.lengths + 1
    sizes[layout.last] -= layout.cut
    return np.repeat(segments.supervised, sizes).astype(np.uint8)


def _answer_ends(segments: Segments, layout: _Layout) -> Offsets:
    """Return the positions whose target is the [EOS] of a supervised segment."""
    ends: Offsets = layout.starts - 1 + layout.lengths
    with_end = segments.supervised.copy()
    with_end[layout.last[layout.cut]] = False
    return ends[with_end]
