"""Texts to train a tokenizer on, from inputs of any layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.sources.plan import Input, Piece
from vnprep.sources.reading import read_records
from vnprep.sources.sniff import sniff

#: Called with the bytes of the input files that were read, and the bytes they have.
Report = Callable[[int, int], None]

_REPORT_EVERY = 1024


class Corpus:
    """The texts of some inputs, read once; counts what was left out."""

    def __init__(
        self, inputs: Sequence[Input], options: ReadOptions, report: Report | None = None
    ) -> None:
        self._inputs = inputs
        self._options = options
        self._report = report or (lambda _done, _total: None)
        self.excluded: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        sizes = [item.path.stat().st_size for item in self._inputs]
        done, total = 0, sum(sizes)
        for item, size in zip(self._inputs, sizes, strict=True):
            piece = Piece(item, 0, None, 1)
            for number, record in enumerate(read_records(piece, sniff(item, self._options))):
                if number % _REPORT_EVERY == 0 and not item.compressed:
                    self._report(done + (record.origin.byte_offset or 0), total)
                if isinstance(record, Excluded):
                    self.excluded[record.reason] += 1
                else:
                    yield from record.segments
            done += size
            self._report(done, total)
