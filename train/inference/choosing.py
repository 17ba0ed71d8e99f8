"""Logits → the next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vnprep.errors import TrainingError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: longest answer, ``[EOS]`` included.
        temperature: 0 takes the likeliest token; higher is more varied.
        top_p: draw only from the likeliest tokens that together reach this probability.
        seed: row ``i`` draws from ``seed + i``, so an answer does not depend on its batch.
        top_k: draw only from this many of the likeliest tokens; 0 for all.
        repetition_penalty: what the logit of a token already in the prompt or the answer is
            divided by (multiplied, if it is negative); 1 for none.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    repetition_penalty: float = 1.0

    def check(self) -> None:
        """Refuse what is out of range.

        Raises:
            TrainingError: an option is.
        """
        for name, fits, range_ in (
            ("--max-new-tokens", self.max_new_tokens >= 1, "1 or more"),
            ("--temperature", self.temperature >= 0, "0 or more"),
            ("--top-p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("--top-k", self.top_k >= 0, "0 or more"),
            ("--repetition-penalty", self.repetition_penalty > 0, "above 0"),
        ):
            if not fits:
                raise TrainingError("out of range", place=name, remedy=f"give {range_}")


def draws(rows: Sequence[int], steps: int, sampling: Sampling) -> Tensor:
    """Return uniform numbers in [0, 1), [rows, steps]; each row's own, whatever its batch."""
    if sampling.temperature == 0:
        return torch.zeros(len(rows), steps)
    generators = (torch.Generator().manual_seed(sampling.seed + row) for row in rows)
    return torch.stack([torch.rand(steps, generator=generator) for generator in generators])


def choose(logits: Tensor, drawn: Tensor, sampling: Sampling) -> Tensor:
    """Choose a token for each row of logits, [rows, vocab] and [rows] → [rows]."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    shares, tokens = torch.softmax(logits / sampling.temperature, dim=-1).sort(descending=True)
    if sampling.top_k:
        shares, tokens = shares[:, : sampling.top_k], tokens[:, : sampling.top_k]
        shares = shares / shares.sum(dim=-1, keepdim=True)
    sums = shares.cumsum(dim=-1)
    # Nucleus sampling (arXiv:1904.09751): a token stays if those before it fall short of top_p.
    kept = shares * (sums - shares < sampling.top_p)
    sums = kept.cumsum(dim=-1)
    place = torch.searchsorted(sums, drawn[:, None] * sums[:, -1:], right=True)
    return tokens.gather(1, place.clamp(max=tokens.shape[1] - 1)).squeeze(1)


class Repetition:
    """Which tokens each row holds already, and the penalty for them (CTRL, arXiv:1909.05858)."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        vocab_size: int,
        penalty: float,
        device: torch.device,
    ) -> None:
        """Begin with the prompts' tokens; at a penalty of 1 nothing is kept."""
        self._penalty = penalty
        self._seen: Tensor | None = None
        if penalty != 1:
            self._seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool, device=device)
            for row, ids in enumerate(prompts):
                self._seen[row, torch.tensor(ids, device=device)] = True

    def apply(self, logits: Tensor) -> Tensor:
        """Return the logits, [rows, vocab], with those of tokens already seen made less likely."""
        if self._seen is None:
            return logits
        lower = torch.where(logits > 0, logits / self._penalty, logits * self._penalty)
        return torch.where(self._seen, lower, logits)

    def add(self, tokens: Tensor) -> None:
        """Note each row's new token, [rows]."""
        if self._seen is not None:
            self._seen.scatter_(1, tokens[:, None], True)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only, by their numbers."""
        if self._seen is not None:
            self._seen = self._seen[rows]
