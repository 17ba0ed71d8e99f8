"""The encoder of a run, remembered in its work folder: a resumed run goes on with the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path

from vnprep.config import ReadOptions
from vnprep.durable import canonical_json, write_text
from vnprep.errors import EncoderMismatch
from vnprep.run.sampling import sample_inputs
from vnprep.sources.inputs import Input
from vnprep.tokenizer.encode import ReferenceEncoder
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.tokenizer.parity import EncoderChoice, choose_encoder

#: Takes lines for the user.
Tell = Callable[[str], None]

_NAME = "encoder.json"


class Gate:
    """Tries the encoders on a sample of the inputs, in a thread, while the inputs are read.

    Args:
        inputs: of the run.
        options: how to read them.
        tokenizer: the reference's.
        early: whether to begin at once; if not, it begins when the choice is wanted.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        options: ReadOptions,
        tokenizer: LoadedTokenizer,
        early: bool,
    ) -> None:
        self._inputs, self._options, self._tokenizer = inputs, options, tokenizer
        self._outcome: Future[EncoderChoice] = Future()
        self._thread = threading.Thread(target=self._try, daemon=True)
        if early:
            self._thread.start()

    def _try(self) -> None:
        try:
            texts = sample_inputs(self._inputs, self._options)
            self._outcome.set_result(choose_encoder(self._tokenizer, texts))
        except Exception as error:
            self._outcome.set_exception(error)

    def choice(self) -> EncoderChoice:
        """Return the encoder that serves.

        Raises:
            InputError: one of the inputs that are sampled cannot be used at all.
        """
        if self._thread.ident is None:
            self._thread.start()
        return self._outcome.result()


def encoder_of_run(work: Path, gate: Gate, tell: Tell | None) -> str:
    """Return the name of the encoder that serves; chosen now if the run is new.

    Args:
        work: the run's work folder.
        gate: for the inputs of the run.
        tell: called with a line if the fast encoder does not serve.
    """
    path = work / _NAME
    try:
        choice = EncoderChoice(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        choice = gate.choice()
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
