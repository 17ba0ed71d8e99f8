"""A small sample of a plan's texts: what the parity gate and the estimates look at."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vnprep.config import ReadOptions
from vnprep.sources.batches import read_batches
from vnprep.sources.plan import Plan
from vnprep.tokenizer.parity import sample

_UNITS = 4
_BYTES = 64 << 10


def sample_inputs(plan: Plan, options: ReadOptions) -> pa.LargeStringArray:
    """Return some texts of up to four units, spread over the plan; fixed by the inputs.

    Raises:
        InputError: one of the inputs cannot be used at all.
    """
    parts = [pa.array([], type=pa.large_string())]
    chosen = np.linspace(0, len(plan.units) - 1, num=min(_UNITS, len(plan.units)), dtype=int)
    for number in chosen:
        # The first piece that has a text.
        for piece in plan.units[number].pieces[:_UNITS]:
            batch = next(iter(read_batches(piece, 0, options)), None)
            if batch is not None and len(batch):
                parts.append(sample(batch.texts, _BYTES))
                break
    return pa.concat_arrays(parts)
