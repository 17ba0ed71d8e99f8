"""Tokens one at a time, and the text that they make so far."""

from __future__ import annotations

from collections.abc import Generator

import torch

from inference.choosing import Repetition, Sampling, choose, draws
from inference.sampling import check_room
from modeling.attention import KVCache
from modeling.model import LlamaForCausalLM
from vnprep.tokenizer.load import LoadedTokenizer

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Token ids → pieces of text, without a broken character.

    A byte-level token may end within a character; its text is held until the rest has come. The
    pieces, with that of ``end``, are together the text of all ids.
    """

    def __init__(self, tokenizer: LoadedTokenizer) -> None:
        self._tokenizer = tokenizer
        # Some tokenizers decode a token otherwise at the beginning of a text, so the last piece
        # is decoded again before the new one.
        self._before: list[int] = []
        self._held: list[int] = []

    def add(self, token: int) -> str:
        """Return the text that this token completes; empty while a character is unfinished."""
        self._held.append(token)
        text = self._new_text()
        # A text that is truly damaged ends so, too, and is shown with what follows.
        if text.endswith(_UNFINISHED):
            return ""
        self._before, self._held = self._held, []
        return text

    def end(self) -> str:
        """Return what is still held; of an unfinished character, its replacement."""
        text = self._new_text() if self._held else ""
        self._before, self._held = self._held, []
        return text

    def _new_text(self) -> str:
        before = self._decode(self._before)
        return self._decode(self._before + self._held)[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.backend.decode(ids, skip_special_tokens=False)
        return text


class TokenWriter:
    """One row of tokens that grows, with the keys and values of those already read.

    Attributes:
        ids: prompt and answers so far. The cache holds the first ``computed`` of them.
    """

    def __init__(self, model: LlamaForCausalLM, tokenizer: LoadedTokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        positions = model.config.max_position_embeddings
        self._cache = KVCache(model.config, 1, positions, like=model.lm_head.weight)
        self.ids: list[int] = []

    @property
    def computed(self) -> int:
        """Tokens whose keys and values are held; they are not read again."""
        return self._cache.length

    def go_back(self, tokens: int) -> None:
        """Keep only the first ``tokens``."""
        del self.ids[tokens:]
        self._cache.length = min(self._cache.length, tokens)

    def write(
        self, new: list[int], sampling: Sampling, number: int = 0
    ) -> Generator[int, None, None]:
        """Read new tokens and write an answer after them, token by token, ``[EOS]`` included.

        The draws are those of row ``number`` in ``sampling.generate``. A caller that stops early
        leaves ``ids`` as far as it came.

        Raises:
            TrainingError: the tokens leave no room for an answer, or an option is out of range.
        """
        sampling.check()
        check_room(self._model, len(self.ids) + len(new))
        self.ids += new
        limit = self._model.config.max_position_embeddings - len(self.ids)
        steps = min(limit, sampling.max_new_tokens)
        device = self._model.lm_head.weight.device
        drawn = draws([number], steps, sampling).to(device)
        vocab_size, penalty = self._tokenizer.vocab_size, sampling.repetition_penalty
        repetition = Repetition([self.ids], vocab_size, penalty, device)
        for step in range(steps):
            # Not around the loop: between two tokens the caller runs.
            with torch.inference_mode():
                unread = torch.tensor([self.ids[self._cache.length :]], device=device)
                hidden = self._model.model(unread, cache=self._cache)
                logits = self._model.lm_head(hidden[:, -1])[:, :vocab_size].float()
                chosen = choose(repetition.apply(logits), drawn[:, step], sampling)
                repetition.add(chosen)
                token = int(chosen)
            self.ids.append(token)
            yield token
            if token == self._tokenizer.special.eos:
                return
