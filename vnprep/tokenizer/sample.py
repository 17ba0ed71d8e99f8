"""A sample of texts: bounded in bytes, spread over all of them, drawn in one pass."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: Texts are drawn by runs of about this many characters; a longer text is cut into several.
#: Small enough that a sample of 1 MiB still has some thirty runs, large enough that keeping
#: them costs no more than their bytes.
BLOCK_CHARACTERS = 32 << 10

_SEPARATOR = "\0"
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Block:
    """A run of consecutive texts, as UTF-8 with NUL between them, and how many begin in it."""

    data: bytes
    texts: int

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of its texts."""
        return len(self.data) - self.data.count(0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.data.decode("utf-8").split(_SEPARATOR))


@dataclass(frozen=True)
class Sample:
    """What was drawn, in the order it was read; counts are of texts and their UTF-8 bytes.

    A text that was cut counts where it begins.
    """

    blocks: tuple[Block, ...]
    texts_read: int
    bytes_read: int

    @property
    def texts_used(self) -> int:
        """Texts in the sample."""
        return sum(block.texts for block in self.blocks)

    @property
    def bytes_used(self) -> int:
        """Their bytes."""
        return sum(block.bytes for block in self.blocks)

    @property
    def is_all(self) -> bool:
        """Whether nothing that was read was left out."""
        return self.bytes_used == self.bytes_read

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks:
            yield from block

    def spread(self, blocks: int) -> list[str]:
        """Return the texts of about that many blocks, at even distances."""
        step = -(-len(self.blocks) // blocks)
        return [text for block in self.blocks[:: max(step, 1)] for text in block]


def draw_sample(texts: Iterable[str], limit: int) -> Sample:
    """Draw at most ``limit`` bytes of texts, every run of them with the same chance.

    Each run has a number, its place among all runs, and a fixed hash of that number; those with
    the smallest hashes stay. So the sample depends on the texts and their order alone, and one
    pass suffices without knowing how many will come. Texts that fit are all used.

    Args:
        texts: read once; without NUL and lone surrogates.
        limit: bytes to hold at most, if one run fits into it.
    """
    heap: list[tuple[int, int, Block]] = []  # the largest hash first, by its negative
    held = texts_read = bytes_read = 0
    for number, block in enumerate(_blocks(texts)):
        size = block.bytes
        texts_read += block.texts
        bytes_read += size
        heapq.heappush(heap, (-_hash(number), number, block))
        held += size
        while held > limit and len(heap) > 1:
            held -= heapq.heappop(heap)[2].bytes
    in_order = sorted(heap, key=lambda entry: entry[1])
    return Sample(tuple(block for _, _, block in in_order), texts_read, bytes_read)


def _blocks(texts: Iterable[str]) -> Iterator[Block]:
    run: list[str] = []
    characters = begun = 0
    for text in texts:
        for number, piece in enumerate(_pieces(text)):
            if run and characters + len(piece) > BLOCK_CHARACTERS:
                yield Block(_SEPARATOR.join(run).encode("utf-8"), begun)
                run, characters, begun = [], 0, 0
            run.append(piece)
            characters += len(piece)
            begun += number == 0
    if run:
        yield Block(_SEPARATOR.join(run).encode("utf-8"), begun)


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text after a line end or before a space, where words and so merges end anyway."""
    start = 0
    while len(text) - start > BLOCK_CHARACTERS:
        end = text.rfind("\n", start, start + BLOCK_CHARACTERS) + 1
        if end <= start:
            end = text.rfind(" ", start + 1, start + BLOCK_CHARACTERS)
        if end <= start:
            end = start + BLOCK_CHARACTERS
        yield text[start:end]
        start = end
    yield text[start:]


def _hash(number: int) -> int:
    """Mix 64 bits (splitmix64, Steele, Lea and Flood 2014)."""
    value = (number + 1) * 0x9E3779B97F4A7C15 & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
