"""Several turns, laid out as in training: [BOS] REQ1 [SEP] RES1 [EOS] REQ2 [SEP] …"""

from __future__ import annotations

from collections.abc import Generator

from inference.choosing import Sampling
from inference.prompts import request_ids
from inference.sampling import Answer, check_room, to_answer
from inference.streaming import TextStream, TokenWriter
from modeling.model import LlamaForCausalLM
from vnprep.tokenizer.load import LoadedTokenizer


class Conversation:
    """Answers in turn; what was read once is not read again.

    Attributes:
        turns: requests and answers that the model still sees.
        forgotten: turns that ``prepare`` dropped last, for want of room.
        last: the answer of the last turn, or None before the first.
    """

    def __init__(
        self, model: LlamaForCausalLM, tokenizer: LoadedTokenizer, sampling: Sampling
    ) -> None:
        self._model, self._tokenizer, self._sampling = model, tokenizer, sampling
        self._writer = TokenWriter(model, tokenizer)
        self._turns: list[list[int]] = []
        self._number = 0
        self.forgotten = 0
        self.last: Answer | None = None

    @property
    def turns(self) -> int:
        """Turns that the model still sees."""
        return len(self._turns)

    @property
    def ids(self) -> tuple[int, ...]:
        """Every token that the model sees, those of the last answer included."""
        return tuple(self._writer.ids)

    def reset(self) -> None:
        """Forget every turn."""
        self._turns = []
        self._writer.go_back(0)

    def prepare(self, request: str) -> list[int]:
        """Encode a request and make room for it; call ``answer`` next.

        The oldest turns are dropped until request and answer fit the model's positions, and
        ``forgotten`` says how many. An answer is given room for ``max_new_tokens``, or for half of
        the positions if that is less.

        Raises:
            InputError: the request is empty or cannot be encoded.
            TrainingError: the request alone leaves no room for an answer.
        """
        special = self._tokenizer.special
        (ids,) = request_ids(self._tokenizer, [request])
        turn = [*ids, special.sep]
        check_room(self._model, 1 + len(turn))
        positions = self._model.config.max_position_embeddings
        room = positions - min(self._sampling.max_new_tokens, positions // 2)
        self.forgotten = 0
        while self._turns and 1 + sum(map(len, self._turns)) + len(turn) > room:
            del self._turns[0]
            self.forgotten += 1
        if self.forgotten:
            # Every position behind the dropped turns is another now, so all is read anew.
            self._writer.go_back(0)
        return turn

    def answer(self, turn: list[int]) -> Generator[str, None, None]:
        """Write the answer to a prepared turn, piece by piece; ``last`` is the whole of it.

        An answer that is cut, by its length or by a caller that stops, is closed with ``[EOS]``
        all the same: the next request can only begin there.
        """
        special = self._tokenizer.special
        known = [special.bos, *(token for each in self._turns for token in each)]
        new = [*known, *turn][len(self._writer.ids) :]
        stream = TextStream(self._tokenizer)
        written: list[int] = []
        try:
            for token in self._writer.write(new, self._sampling, self._number):
                written.append(token)
                if token != special.eos and (text := stream.add(token)):
                    yield text
            if text := stream.end():
                yield text
        finally:
            self._number += 1
            self.last = to_answer(self._tokenizer, written)
            self._turns.append([*turn, *self.last.token_ids, special.eos])
            # The [EOS] of a cut answer is read with the next request.
            self._writer.go_back(len(known) + len(turn) + len(self.last.token_ids))
