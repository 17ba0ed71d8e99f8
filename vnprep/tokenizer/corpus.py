"""Texts to train a tokenizer on, from inputs of any layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from vnprep.config import ReadOptions
from vnprep.sources.batch import TextBatch, coalesce
from vnprep.sources.batches import read_batches
from vnprep.sources.plan import Input, Piece
from vnprep.sources.sniff import sniff

#: Called with the bytes of the input files that were read, and the bytes they have.
Report = Callable[[int, int], None]


class Corpus:
    """The texts of some inputs, NFC, in batches of some MiB; counts what was left out."""

    def __init__(
        self, inputs: Sequence[Input], options: ReadOptions, report: Report | None = None
    ) -> None:
        self._inputs = inputs
        self._options = options
        self._report = report or (lambda _done, _total: None)
        self.excluded: Counter[str] = Counter()

    def __iter__(self) -> Iterator[pa.LargeStringArray]:
        return (batch.texts for batch in coalesce(self._batches()))

    def _batches(self) -> Iterator[TextBatch]:
        sizes = [item.path.stat().st_size for item in self._inputs]
        done, total = 0, sum(sizes)
        for item, size in zip(self._inputs, sizes, strict=True):
            for batch in read_batches(Piece(item, 0, None, 1), 0, sniff(item, self._options)):
                self.excluded.update(record.reason for record in batch.excluded)
                if batch.blank_lines:
                    self.excluded["blank-line"] += batch.blank_lines
                yield batch
                # Of a compressed file the offset is not that in the file.
                if len(batch) and not item.compressed:
                    self._report(done + max(int(batch.byte_offset[-1]), 0), total)
            done += size
            self._report(done, total)
