"""Arrow's large_string arrays seen as numpy: flat UTF-8 bytes and the offsets into them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Offsets = NDArray[np.int64]


def text_offsets(texts: pa.LargeStringArray) -> Offsets:
    """Return where each text starts in ``text_bytes``, and the end of the last, [texts + 1]."""
    buffer = texts.buffers()[1]
    if buffer is None or len(texts) == 0:
        return np.zeros(1, dtype=np.int64)
    whole = np.frombuffer(buffer, dtype=np.int64)
    return whole[texts.offset : texts.offset + len(texts) + 1]


def text_bytes(texts: pa.LargeStringArray) -> Bytes:
    """Return the bytes that ``text_offsets`` points into."""
    buffer = texts.buffers()[2]
    return np.frombuffer(buffer if buffer is not None else b"", dtype=np.uint8)


def cells(data: Bytes, starts: Offsets, ends: Offsets) -> pa.LargeStringArray:
    """Cut texts out of bytes, which are copied.

    Args:
        data: valid UTF-8, [bytes].
        starts, ends: in rising order, none overlapping, on borders of characters, [texts].
    """
    if not len(starts):
        return pa.array([], type=pa.large_string())
    # Texts and what lies between them, in turn; then every other one is taken.
    borders = np.empty(2 * len(starts) + 1, dtype=np.int64)
    borders[0:-1:2] = starts
    borders[1::2] = ends
    borders[-1] = ends[-1]
    in_turn = pa.LargeStringArray.from_buffers(
        2 * len(starts), pa.py_buffer(borders), pa.py_buffer(data)
    )
    return in_turn.take(pa.array(np.arange(0, 2 * len(starts), 2)))
