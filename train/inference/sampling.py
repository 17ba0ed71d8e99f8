"""Prompts → answers: a key/value cache, batches, each row until its own end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.choosing import Repetition, Sampling, choose, draws
from inference.prompts import request_prompts, text_prompts
from modeling.attention import KVCache
from modeling.model import LlamaForCausalLM
from vnprep.errors import TrainingError
from vnprep.tokenizer.load import LoadedTokenizer

__all__ = ["Answer", "Sampling", "generate", "request_prompts", "text_prompts"]


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: decoded, without the final ``[EOS]``; another special token would show as its name.
        token_ids: without the final ``[EOS]``.
        stopped: whether ``[EOS]`` was reached, and not merely the limit.
    """

    text: str
    token_ids: tuple[int, ...]
    stopped: bool


def generate(
    model: LlamaForCausalLM,
    tokenizer: LoadedTokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | None = None,
    *,
    batch_size: int = 64,
    first_row: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Write an answer to each prompt, on the device where the model is.

    Args:
        model: its vocabulary may be padded; ids beyond the tokenizer's are never chosen.
        tokenizer: gives the special ids and decodes.
        prompts: token ids, each at least one.
        sampling: how to choose; by default the likeliest token.
        batch_size: prompts at a time; prompts of like length go together.
        first_row: the number of the first prompt, which decides its draws.
        on_batch: told, after each batch, how many answers and tokens it made.

    Raises:
        TrainingError: a prompt leaves no room within ``max_position_embeddings``, or a sampling
            option is out of range.
    """
    sampling = sampling or Sampling()
    sampling.check()
    check_room(model, max(map(len, prompts), default=0))
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        numbers = [first_row + row for row in rows]
        batch = [prompts[row] for row in rows]
        written = _generate_batch(model, tokenizer, batch, numbers, sampling)
        for row, ids in zip(rows, written, strict=True):
            answers[row] = to_answer(tokenizer, ids)
        if on_batch is not None:
            on_batch(len(rows), sum(map(len, written)))
    return [answers[row] for row in range(len(prompts))]


def to_answer(tokenizer: LoadedTokenizer, ids: list[int]) -> Answer:
    """Decode new ids, which end with ``[EOS]`` if it was reached."""
    stopped = ids[-1:] == [tokenizer.special.eos]
    ids = ids[:-1] if stopped else ids
    return Answer(tokenizer.backend.decode(ids, skip_special_tokens=False), tuple(ids), stopped)


def check_room(model: LlamaForCausalLM, tokens: int) -> None:
    """Refuse a prompt that fills the model's positions.

    Raises:
        TrainingError: it leaves no room for an answer.
    """
    room = model.config.max_position_embeddings
    if tokens >= room:
        raise TrainingError(
            f"a prompt of {tokens:,} tokens leaves no room for an answer: "
            f"the model reads {room:,} tokens",
            remedy="shorten it, or train with a larger max_position_embeddings",
        )


@torch.inference_mode()
def _generate_batch(
    model: LlamaForCausalLM,
    tokenizer: LoadedTokenizer,
    prompts: list[Sequence[int]],
    numbers: list[int],
    sampling: Sampling,
) -> list[list[int]]:
    """Return the new ids of each prompt, with the ``[EOS]`` of those that reached it."""
    device = model.lm_head.weight.device
    width = max(map(len, prompts))
    # A row may use all its own positions; the padding on its left takes none of them.
    room = model.config.max_position_embeddings - torch.tensor([len(ids) for ids in prompts])
    limits = room.clamp(max=sampling.max_new_tokens).tolist()
    steps = max(limits)
    ids, documents = _pad_left(prompts, width, tokenizer.special.pad, device)
    # 0 at each row's first token; the padding before it (−1 each, which the sum takes back) is
    # never looked at, so any legal position does.
    positions = (documents.cumsum(1) + torch.arange(width, device=device)).clamp(min=0)
    cache = KVCache(model.config, len(prompts), width + steps, like=model.lm_head.weight)
    drawn = draws(numbers, steps, sampling).to(device)
    repetition = Repetition(prompts, tokenizer.vocab_size, sampling.repetition_penalty, device)
    written: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # the prompt of each row of the batch
    for step in range(steps):
        hidden = model.model(ids, positions, documents, cache)
        logits = model.lm_head(hidden[:, -1])[:, : tokenizer.vocab_size].float()
        chosen = choose(repetition.apply(logits), drawn[:, step], sampling)
        repetition.add(chosen)
        alive = []
        for place, token in enumerate(chosen.tolist()):
            new = written[rows[place]]
            if _ended(new, limits[rows[place]], tokenizer.special.eos):
                continue
            new.append(token)
            if not _ended(new, limits[rows[place]], tokenizer.special.eos):
                alive.append(place)
        if not alive:
            break
        positions = positions[:, -1:] + 1
        if 2 * len(alive) <= len(rows):
            # Rows that have ended run on unread, their positions within the model's, until they
            # are half of the batch: to drop each at once would copy the cache at each step.
            kept = torch.tensor(alive, device=device)
            chosen, positions, drawn = chosen[kept], positions[kept], drawn[kept]
            cache.keep(kept)
            repetition.keep(kept)
            rows = [rows[place] for place in alive]
        ids = chosen[:, None]
        documents = torch.zeros(len(rows), 1, dtype=torch.int32, device=device)
    return written


def _ended(new: list[int], limit: int, eos: int) -> bool:
    return len(new) == limit or new[-1:] == [eos]


def _pad_left(
    prompts: list[Sequence[int]], width: int, pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return input_ids and document_ids (0, or −1 on padding), each [prompts, width]."""
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    documents = [[-1] * (width - len(prompt)) + [0] * len(prompt) for prompt in prompts]
    return (
        torch.tensor(ids, device=device),
        torch.tensor(documents, dtype=torch.int32, device=device),
    )
