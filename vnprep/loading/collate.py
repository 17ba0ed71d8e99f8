"""Windows of stored rows → one micro-batch, laid side by side or one a row.

A padding tail is a window like any other, cut from a source that is padding altogether. So a batch
is one concatenation of views a column, and what is said of windows holds for padding, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: The label of a position without loss, as torch and Hugging Face have it.
IGNORED = -100

Ids = NDArray[np.int64]
Flat = NDArray[np.unsignedinteger | np.signedinteger]


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank; arrays are [micro_batch, width] unless another shape is given.

    Attributes:
        input_ids: token ids, ``[PAD]`` where there is no token.
        labels: the target where it carries loss, else −100.
        position_ids: from 0 in every window; 0 on padding.
        document_ids: 0, 1, 2, … for the windows of a row; −1 on padding.
        cu_seqlens: where each window starts in the batch as one line of micro_batch · width
            positions, and its end; a row's padding is a window, too. int32, [windows + 1].
        max_seqlen: positions of the longest of these.
        sample_ids: the samples' numbers, −1 for an empty row, [micro_batch].
    """

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    document_ids: NDArray[np.int32]
    cu_seqlens: NDArray[np.int32]
    max_seqlen: int
    sample_ids: tuple[int, ...]

    @property
    def attention_mask(self) -> NDArray[np.int64]:
        """1 on tokens, 0 on padding; enough where a row holds one example alone."""
        return (self.document_ids >= 0).astype(np.int64)


@dataclass(frozen=True)
class Windows:
    """Parts of sources, sample by sample.

    Attributes:
        counts: windows of each sample, [samples].
        source: which source each is cut from, [windows].
        begin: its first position there, [windows].
        length: its positions, at least 1, [windows].
    """

    counts: Ids
    source: Ids
    begin: Ids
    length: Ids


class Source(Protocol):
    """Flat columns that windows are cut from, all of one length."""

    @property
    def input(self) -> Flat: ...
    @property
    def target(self) -> Flat: ...
    @property
    def loss_mask(self) -> NDArray[np.uint8]: ...


class Collator:
    """Lays windows out.

    Args:
        sources: what windows are cut from, by number.
        width: the most positions of a row.
        pad: the id of ``[PAD]``.
    """

    def __init__(self, sources: Sequence[Source], width: int, pad: int) -> None:
        kind = sources[0].input.dtype if sources else np.dtype(np.int32)
        padding = np.full(width, pad, dtype=kind)
        self._inputs = [*(source.input for source in sources), padding]
        self._targets = [*(source.target for source in sources), padding]
        masks = (source.loss_mask for source in sources)
        self._masks = [*masks, np.zeros(width, dtype=np.uint8)]
        self._padding = len(sources)

    def batch(self, windows: Windows, width: int, sample_ids: tuple[int, ...]) -> Batch:
        """Make a batch of a row a sample.

        Args:
            windows: of each sample, at most ``width`` positions together.
            width: positions of a row.
            sample_ids: to pass on.
        """
        shape = (len(windows.counts), width)
        padded, documents = self._pad(windows, width)
        ends = np.cumsum(padded.length)
        cuts = [
            (source, slice(begin, end))
            for source, begin, end in zip(
                padded.source.tolist(),
                padded.begin.tolist(),
                (padded.begin + padded.length).tolist(),
                strict=True,
            )
        ]
        input_ids, labels = np.empty((2, shape[0] * width), dtype=np.int64)
        np.concatenate([self._inputs[source][cut] for source, cut in cuts], out=input_ids)
        np.concatenate([self._targets[source][cut] for source, cut in cuts], out=labels)
        loss_mask = np.concatenate([self._masks[source][cut] for source, cut in cuts])
        np.copyto(labels, IGNORED, where=loss_mask == 0)
        document_ids = np.repeat(documents, padded.length)
        begins = np.where(documents >= 0, ends - padded.length, 0)
        position_ids = np.arange(len(input_ids)) - np.repeat(begins, padded.length)
        position_ids[document_ids < 0] = 0
        return Batch(
            input_ids.reshape(shape),
            labels.reshape(shape),
            position_ids.reshape(shape),
            document_ids.reshape(shape),
            np.concatenate(([0], ends)).astype(np.int32),
            int(padded.length.max()),
            sample_ids,
        )

    def supervised(self, windows: Windows) -> int:
        """Count the positions of some windows that carry loss."""
        ends = windows.begin + windows.length
        parts = zip(windows.source.tolist(), windows.begin.tolist(), ends.tolist(), strict=True)
        return sum(int(np.count_nonzero(self._masks[at][begin:end])) for at, begin, end in parts)

    def _pad(self, windows: Windows, width: int) -> tuple[Windows, NDArray[np.int32]]:
        """Add each row's padding as a window; return also the document number of every window."""
        rows = np.arange(len(windows.counts))
        row_ends = np.cumsum(windows.counts)
        token_ends = np.concatenate(([0], np.cumsum(windows.length)))[row_ends]
        used = np.diff(token_ends, prepend=0)
        padding_at = row_ends + rows
        windows_at = np.arange(len(windows.length)) + np.repeat(rows, windows.counts)

        def merged(of_windows: Ids, of_padding: Ids | int) -> Ids:
            both = np.empty(len(windows_at) + len(rows), dtype=np.int64)
            both[windows_at], both[padding_at] = of_windows, of_padding
            return both

        length = merged(windows.length, width - used)
        there = length > 0
        padded = Windows(
            windows.counts,
            merged(windows.source, self._padding)[there],
            merged(windows.begin, 0)[there],
            length[there],
        )
        return padded, merged(spans(windows.counts), -1)[there].astype(np.int32)


def spans(counts: Ids, starts: Ids | None = None) -> Ids:
    """Return ``start … start + count − 1`` for each count, one after another.

    Args:
        counts: 0 or more, [spans].
        starts: [spans]; all 0 if None.
    """
    shift = np.cumsum(counts) - counts
    if starts is not None:
        shift = shift - starts
    return np.arange(int(counts.sum())) - np.repeat(shift, counts)
