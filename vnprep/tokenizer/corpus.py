"""Texts to train a tokenizer on, from inputs of any layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.sources.plan import Input, Piece
from vnprep.sources.reading import read_records
from vnprep.sources.sniff import sniff


class Corpus:
    """The texts of some inputs, read once; counts what was read and what was left out."""

    def __init__(self, inputs: Sequence[Input], options: ReadOptions) -> None:
        self._inputs = inputs
        self._options = options
        self.texts = 0
        self.characters = 0
        self.excluded: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        for item in self._inputs:
            piece = Piece(item, 0, None, 1)
            for record in read_records(piece, sniff(item, self._options)):
                if isinstance(record, Excluded):
                    self.excluded[record.reason] += 1
                    continue
                for text in record.segments:
                    self.texts += 1
                    self.characters += len(text)
                    yield text
