"""Token ids → ``input``, ``target``, ``loss_mask``: the one rule for both stages.

A record is a run of *segments*, each followed by one special token::

    pretrain    [BOS] DOC [EOS]                                 DOC is supervised
    fine-tune   [BOS] REQ [SEP] RES [EOS] REQ [SEP] RES [EOS]   every RES is supervised

The whole sequence is written first and then shifted: ``input = seq[:-1]``, ``target = seq[1:]``.
A position carries loss when its target belongs to a supervised segment or is the ``[EOS]`` that
ends one; in fine-tuning every other target is ``[PAD]``.

Pure and columnar: numpy in, numpy out, no Python per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vnprep.tokenizer.special import SpecialIds

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Segments:
    """Encoded records.

    Attributes:
        ids: all token ids, one segment after another, [tokens].
        offsets: where each segment starts in ``ids``, and the end of the last, [segments + 1].
        record_offsets: where each record starts among the segments, [records + 1].
        supervised: whether a segment carries loss, [segments].
        ended: whether a supervised segment is followed by [EOS]; False for an answer that was
            cut, which must not pretend that it ended there, [segments].
    """

    ids: Ids
    offsets: Ids
    record_offsets: Ids
    supervised: Mask
    ended: Mask


@dataclass(frozen=True)
class Columns:
    """Examples in columnar form: row ``i`` is ``offsets[i]:offsets[i + 1]`` of each array."""

    input: Ids
    target: Ids
    loss_mask: NDArray[np.uint8]
    offsets: Ids

    @property
    def lengths(self) -> Ids:
        """Tokens in each row, [rows]."""
        return np.diff(self.offsets)

    def supervised_tokens(self) -> Ids:
        """Positions that carry loss in each row, [rows]."""
        totals = np.concatenate(([0], np.cumsum(self.loss_mask, dtype=np.int64)))
        return totals[self.offsets[1:]] - totals[self.offsets[:-1]]


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
    sequence, flags, is_end, row_offsets = _sequences(segments, special)
    if not eos_loss:
        flags = flags & ~is_end
    starts, ends = row_offsets[:-1], row_offsets[1:]
    # Shift without a loop: drop each sequence's last token for input, its first for target.
    keep_input = np.ones(len(sequence), dtype=np.bool_)
    keep_input[ends - 1] = False
    keep_target = np.ones(len(sequence), dtype=np.bool_)
    keep_target[starts] = False
    target, mask = sequence[keep_target], flags[keep_target]
    if not keep_targets:
        target = np.where(mask | is_end[keep_target], target, special.pad)
    offsets = row_offsets - np.arange(len(row_offsets))
    return Columns(sequence[keep_input], target, mask.astype(np.uint8), offsets)


def _sequences(segments: Segments, special: SpecialIds) -> tuple[Ids, Mask, Mask, Ids]:
    """Lay out ``[BOS] segment terminator segment terminator …`` for every record.

    Returns:
        The sequences end to end, which of their tokens are supervised, which are a supervised
        segment's ``[EOS]``, and where each record starts, [records + 1].
    """
    lengths = np.diff(segments.offsets)
    has_end = segments.ended | ~segments.supervised
    blocks = lengths + has_end
    first = segments.record_offsets[:-1]
    opens = np.zeros(len(lengths), dtype=np.int64)
    opens[first] = 1
    starts = np.cumsum(blocks + opens) - blocks  # where each segment's tokens begin
    total = int(np.sum(blocks + opens))

    sequence = np.full(total, special.bos, dtype=np.int64)
    flags = np.zeros(total, dtype=np.bool_)
    is_end = np.zeros(total, dtype=np.bool_)
    places = np.arange(len(segments.ids)) + np.repeat(starts - segments.offsets[:-1], lengths)
    sequence[places] = segments.ids
    flags[places] = np.repeat(segments.supervised, lengths)
    terminators = (starts + lengths)[has_end]
    answers = segments.supervised[has_end]
    sequence[terminators] = np.where(answers, special.eos, special.sep)
    flags[terminators] = answers
    is_end[terminators] = answers
    row_starts = starts[first] - 1
    return sequence, flags, is_end, np.append(row_starts, total)
