"""Which encoder a run uses: settled before it begins, and once for all its units."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from vnprep.config import ReadOptions
from vnprep.durable import canonical_json, write_text
from vnprep.sources.batches import read_batches
from vnprep.sources.plan import Plan
from vnprep.tokenizer.encode import ReferenceEncoder
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.tokenizer.parity import EncoderChoice, choose_encoder, sample

Tell = Callable[[str], None]

#: In the work folder: the choice, so that a run that is resumed goes on with it.
ENCODER_NAME = "encoder.json"

_UNITS = 4
_BYTES = 64 << 10


def settle_encoder(
    work: Path, plan: Plan, options: ReadOptions, tokenizer: LoadedTokenizer, tell: Tell | None
) -> str:
    """Return the name of the encoder for a run; say so if it is not the fast one.

    Raises:
        InputError: one of the inputs that are sampled cannot be used at all.
    """
    path = work / ENCODER_NAME
    if path.exists():
        choice = EncoderChoice(**json.loads(path.read_text(encoding="utf-8")))
    else:
        choice = choose_encoder(tokenizer, sample_inputs(plan, options))
        _record(work, choice)
    if choice.reason and tell is not None:
        tell(f"encoding with tokenizers, many times slower than gigatoken: {choice.reason}")
    return choice.name


def hand_to_reference(work: Path, cause: str) -> None:
    """Let the reference do a run whose units showed that the fast encoder cannot be trusted."""
    _record(work, EncoderChoice(ReferenceEncoder.name, cause))


def _record(work: Path, choice: EncoderChoice) -> None:
    write_text(work / ENCODER_NAME, canonical_json(asdict(choice)))


def sample_inputs(plan: Plan, options: ReadOptions) -> pa.LargeStringArray:
    """Return some texts of up to four units, spread over the plan; fixed by the inputs."""
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
