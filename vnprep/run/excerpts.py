"""Small parts of some inputs, as files of their own, to foretell the whole by."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow.parquet as pq

from vnprep.errors import InputError
from vnprep.sources.formats import TABLES
from vnprep.sources.opening import open_bytes
from vnprep.sources.plan import Input
from vnprep.sources.tables import first_rows

_FILES = 16
_MOST_FILES = 1_000
_BYTES = 2 << 20
_ROWS = 5_000
_BLOCK = 1 << 16
_PLACES = 8
# What is decompressed to choose from; of bzip2, a single block takes up to 900 kB.
_COMPRESSED_BYTES = 4 << 20


@dataclass(frozen=True)
class Excerpt:
    """Part of an input.

    Attributes:
        input: a file that holds it, not compressed.
        of: the input that it was taken from.
        covers: how many bytes of that input it stands for.
    """

    input: Input
    of: Input
    covers: float


def take_excerpts(inputs: Sequence[Input], sizes: Sequence[int], folder: Path) -> list[Excerpt]:
    """Write parts of some inputs into a folder.

    Args:
        inputs: of one kind, so that one may stand for another.
        sizes: their bytes, [inputs]; the larger an input, the likelier it is chosen.
        folder: where to write; it should hold nothing else.

    An input of which no part can be taken, such as a damaged one, is passed over.
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    # Of small files, more: what each costs beside its text should be seen.
    files = min(max(_BYTES * len(sizes) // total, _FILES), _MOST_FILES)
    places = (np.arange(files) + 0.5) * (total / files)
    chosen = np.unique(np.searchsorted(ends, places, side="right"))
    found = []
    for number in chosen.tolist():
        item = inputs[number]
        with contextlib.suppress(InputError, OSError, ValueError):
            stem = folder / f"{number}"
            if item.format in TABLES:
                excerpt = _rows(item, stem)
            else:
                excerpt = _lines(item, stem, _BYTES // len(chosen))
            if excerpt is not None and excerpt.covers:
                found.append(excerpt)
    return found


def _lines(item: Input, stem: Path, limit: int) -> Excerpt | None:
    """Take whole lines from all over a file, or from the beginning of one with a header."""
    name = item.path.name
    size = item.path.stat().st_size
    with contextlib.ExitStack() as stack:
        text: BinaryIO = stack.enter_context(item.path.open("rb"))
        read = end = size
        if item.compressed:
            name = name.removesuffix(item.path.suffix)
            head = text.read(_COMPRESSED_BYTES)
            cut = stem.with_name(f"head-{item.path.name}")
            cut.write_bytes(head)
            decoded = _decompressed(cut)
            text, read, end = io.BytesIO(decoded), len(head), len(decoded)
        places = _PLACES if item.format in ("text", "jsonl") and end > limit else 1
        kept = b"".join(
            _whole_lines(text, end * number // places, limit // places) for number in range(places)
        )
    if not kept:
        return None
    path = stem.with_name(f"{stem.name}-{name}")
    path.write_bytes(kept)
    return Excerpt(Input(str(path), item.format, False), item, read * len(kept) / end)


def _whole_lines(text: BinaryIO, start: int, limit: int) -> bytes:
    """Read some bytes, but not the line that began earlier nor, if there are others, the last."""
    text.seek(start)
    if start:
        text.readline(limit)
    block = text.read(limit)
    return block if len(block) < limit else block[: block.rfind(b"\n") + 1] or block


def _decompressed(cut: Path) -> bytes:
    """Decompress the first bytes of a file; that they end in the middle is no surprise."""
    parts = []
    with contextlib.suppress(InputError), open_bytes(cut) as stream:
        while block := stream.read(_BLOCK):
            parts.append(block)
    return b"".join(parts)


def _rows(item: Input, stem: Path) -> Excerpt | None:
    """Take the first rows of a table."""
    head, share = first_rows(item, _ROWS)
    if head is None:
        return None
    path = stem.with_suffix(".parquet")
    with pq.ParquetWriter(path, head.schema) as writer:
        writer.write_batch(head)
    return Excerpt(Input(str(path), "parquet", False), item, item.path.stat().st_size * share)
