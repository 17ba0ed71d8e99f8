"""The encoder of a run, remembered in its work folder: a resumed run goes on with the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from vnprep.config import ReadOptions
from vnprep.durable import canonical_json, write_text
from vnprep.errors import EncoderMismatch
from vnprep.run.sampling import sample_inputs
from vnprep.sources.plan import Plan
from vnprep.tokenizer.encode import ReferenceEncoder
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.tokenizer.parity import EncoderChoice, choose_encoder

#: Takes lines for the user.
Tell = Callable[[str], None]

_NAME = "encoder.json"


def encoder_of_run(
    work: Path,
    plan: Plan,
    options: ReadOptions,
    tokenizer: LoadedTokenizer,
    tell: Tell | None,
) -> str:
    """Return the name of the encoder that serves; chosen now if the run is new.

    Args:
        work: the run's work folder.
        plan: what it reads; a sample of that is encoded by both encoders.
        options: how to read it.
        tokenizer: the reference's.
        tell: called with a line if the fast encoder does not serve.
    """
    path = work / _NAME
    try:
        choice = EncoderChoice(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        choice = choose_encoder(tokenizer, sample_inputs(plan, options))
        _remember(work, choice)
    if choice.reason and tell is not None:
        tell(f"encoding with tokenizers, many times slower than gigatoken: {choice.reason}")
    return choice.name


def use_reference(work: Path, mismatch: EncoderMismatch) -> None:
    """Let the run begin again with the reference: what the other made is not to be trusted.

    Its records go first. Cut short in between, the run meets the mismatch once more; the other
    way round, a resumed run would mix the two encoders' shards.
    """
    for path in work.glob("[0-9]*.json"):
        path.unlink()
    _remember(work, EncoderChoice(ReferenceEncoder.name, mismatch.cause))


def _remember(work: Path, choice: EncoderChoice) -> None:
    write_text(work / _NAME, canonical_json(asdict(choice)))
