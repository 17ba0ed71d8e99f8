"""Samples of one or several data sets, numbered through, and where their windows stand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vnprep.loading.collate import Collator, Windows, spans
from vnprep.packing.index import PackIndex
from vnprep.shards.read import ShardSet

Ids = NDArray[np.int64]

#: The sample that is not there: it fills up the last step of an epoch.
EMPTY = -1


class Samples:
    """The samples of data sets, the second's after the first's.

    Attributes:
        starts: the number of each data set's first sample, and of samples in all, [data sets + 1].

    Args:
        parts: data sets of one tokenizer, and what their samples are made of.
    """

    def __init__(self, parts: Sequence[tuple[ShardSet, PackIndex]]) -> None:
        self._parts = parts
        self.starts: Ids = np.cumsum([0, *(len(index) for _, index in parts)])
        #: Record batches are numbered through likewise: they are the sources of all windows.
        self._first_source = np.cumsum([0, *(len(shards.flat) for shards, _ in parts)]).tolist()

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def all_supervised(self) -> bool:
        """Whether every position carries loss, as the manifests count them."""
        manifests = [shards.manifest for shards, _ in self._parts]
        return all(each.supervised_tokens == each.tokens for each in manifests)

    def collator(self, width: int) -> Collator:
        """Return what makes batches of rows of up to ``width`` positions."""
        sources = [source for shards, _ in self._parts for source in shards.flat]
        return Collator(sources, width, self._parts[0][0].manifest.tokenizer.special.pad)

    def windows(self, numbers: Ids) -> Windows:
        """Return the windows of some samples; ``EMPTY`` has none.

        Args:
            numbers: 0 to ``len(self)`` − 1, or ``EMPTY``, [samples].
        """
        part_of = np.searchsorted(self.starts, numbers, side="right") - 1
        places = [np.flatnonzero(part_of == part) for part in range(len(self._parts))]
        local = [numbers[at] - start for at, start in zip(places, self.starts[:-1], strict=True)]
        counts = np.zeros(len(numbers), dtype=np.int64)
        for (_, index), at, own in zip(self._parts, places, local, strict=True):
            counts[at] = index.offsets[own + 1] - index.offsets[own]
        found = np.empty((3, int(counts.sum())), dtype=np.int64)
        firsts = np.cumsum(counts) - counts
        for part, (at, own) in enumerate(zip(places, local, strict=True)):
            if len(at):
                found[:, spans(counts[at], firsts[at])] = self._find(part, own, counts[at])
        return Windows(counts, *found)

    def _find(self, part: int, numbers: Ids, counts: Ids) -> tuple[Ids, Ids, NDArray[np.int32]]:
        """Return source, begin and length of the windows of some samples of one data set."""
        shards, index = self._parts[part]
        items = spans(counts, index.offsets[numbers])
        source, begin = shards.locate(index.row[items])
        return source + self._first_source[part], begin + index.start[items], index.length[items]
