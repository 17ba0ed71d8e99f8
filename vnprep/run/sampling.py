"""A small sample of the texts of a run: what the parity gate and the estimates look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vnprep.config import ReadOptions
from vnprep.sources.batches import read_batches
from vnprep.sources.inputs import Input
from vnprep.sources.plan import Piece
from vnprep.tokenizer.parity import sample

_INPUTS = 4
_BYTES = 64 << 10


def sample_inputs(inputs: Sequence[Input], options: ReadOptions) -> pa.LargeStringArray:
    """Return the first texts of up to four inputs, spread over all of them.

    Raises:
        InputError: one of these inputs cannot be used at all.
    """
    parts = [pa.array([], type=pa.large_string())]
    chosen = np.linspace(0, len(inputs) - 1, num=min(_INPUTS, len(inputs)), dtype=int)
    for number in chosen.tolist():
        batch = next(iter(read_batches(Piece(inputs[number], 0, None, 1), 0, options)), None)
        if batch is not None and len(batch):
            parts.append(sample(batch.texts, _BYTES))
    return pa.concat_arrays(parts)
