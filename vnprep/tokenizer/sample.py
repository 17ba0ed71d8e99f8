"""A sample of texts: bounded in bytes, spread over all of them, drawn in one pass."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.texts import text_bytes, text_offsets

#: Texts are drawn by runs of about this many bytes, and longer ones are cut. Small enough that
#: a sample of 1 MiB still has some thirty runs, large enough that a run costs little but its bytes.
RUN_BYTES = 32 << 10

_BITS = (1 << 64) - 1


@dataclass(frozen=True)
class Run:
    """Consecutive texts.

    Attributes:
        data: their UTF-8 bytes, end to end.
        offsets: where each begins in ``data``, and the end of the last, [texts + 1].
        begun: how many texts begin here: 0 for a later part of one that was cut.
    """

    data: bytes
    offsets: NDArray[np.int64]
    begun: int

    def texts(self) -> list[str]:
        """Return the texts."""
        array = pa.LargeStringArray.from_buffers(
            len(self.offsets) - 1, pa.py_buffer(self.offsets), pa.py_buffer(self.data)
        )
        texts: list[str] = array.to_pylist()
        return texts


@dataclass(frozen=True)
class Sample:
    """What was drawn, in the order it was read; a text that was cut counts where it begins.

    Attributes:
        runs: what was drawn.
        texts_read, bytes_read: how many texts there were, and their UTF-8 bytes.
    """

    runs: tuple[Run, ...]
    texts_read: int
    bytes_read: int

    @property
    def texts_used(self) -> int:
        """Texts in the sample."""
        return sum(run.begun for run in self.runs)

    @property
    def bytes_used(self) -> int:
        """Their bytes."""
        return sum(len(run.data) for run in self.runs)

    @property
    def is_all(self) -> bool:
        """Whether nothing that was read was left out."""
        return self.bytes_used == self.bytes_read

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(run.texts() for run in self.runs)

    def spread(self, count: int) -> list[str]:
        """Return the texts of at most that many runs, at even distances."""
        step = max(-(-len(self.runs) // count), 1)
        return [text for run in self.runs[::step] for text in run.texts()]


def draw_sample(batches: Iterable[pa.LargeStringArray], limit: int) -> Sample:
    """Draw at most ``limit`` bytes of texts, every run of them with the same chance.

    A run's number, its place among all runs, is hashed, and those with the smallest hashes stay.
    So the sample depends on the texts and their order alone, and one pass suffices without
    knowing how many will come. Texts that fit are all used.

    Args:
        batches: texts, read once.
        limit: bytes to hold at most, if one run fits into them.
    """
    heap: list[tuple[int, int, Run]] = []  # the largest hash first, by its negative
    held = texts_read = bytes_read = 0
    for number, run in enumerate(chain.from_iterable(map(_runs, batches))):
        texts_read += run.begun
        bytes_read += len(run.data)
        held += len(run.data)
        heapq.heappush(heap, (-_hash(number), number, run))
        while held > limit and len(heap) > 1:
            held -= len(heapq.heappop(heap)[2].data)
    # What reading took, the trainer will need.
    pa.default_memory_pool().release_unused()
    in_order = sorted(heap, key=lambda entry: entry[1])
    return Sample(tuple(run for _, _, run in in_order), texts_read, bytes_read)


def _runs(texts: pa.LargeStringArray) -> Iterator[Run]:
    """Cut a batch into runs: the texts that begin in the same ``RUN_BYTES`` of it."""
    if not len(texts):
        return
    offsets, data = text_offsets(texts), text_bytes(texts)
    windows = (offsets[:-1] - offsets[0]) // RUN_BYTES
    borders = np.flatnonzero(windows[1:] != windows[:-1]) + 1
    for first, end in pairwise([0, *borders.tolist(), len(texts)]):
        # The last text of a run alone can reach beyond its window.
        last = end - 1
        if offsets[end] - offsets[last] <= RUN_BYTES:
            last = end
        if last > first:
            part = data[offsets[first] : offsets[last]].tobytes()
            yield Run(part, offsets[first : last + 1] - offsets[first], last - first)
        if last < end:
            yield from _parts(data[offsets[last] : offsets[end]].tobytes())


def _parts(text: bytes) -> Iterator[Run]:
    """Cut a long text after a line end or before a space, where words and so merges end anyway."""
    start = 0
    while start < len(text):
        end = _part_end(text, start) if len(text) - start > RUN_BYTES else len(text)
        part = text[start:end]
        yield Run(part, np.array([0, len(part)], dtype=np.int64), int(start == 0))
        start = end


def _part_end(text: bytes, start: int) -> int:
    limit = start + RUN_BYTES
    if (end := text.rfind(b"\n", start, limit) + 1) > start:
        return end
    if (end := text.rfind(b" ", start + 1, limit)) > start:
        return end
    while text[limit] & 0xC0 == 0x80:  # never inside a character
        limit -= 1
    return limit


def _hash(number: int) -> int:
    """Mix 64 bits (splitmix64, Steele, Lea and Flood 2014)."""
    value = (number + 1) * 0x9E3779B97F4A7C15 & _BITS
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _BITS
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _BITS
    return value ^ value >> 31
