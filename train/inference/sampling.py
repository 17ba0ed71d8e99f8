"""Requests → prompts → answers: the same token ids as in training, a key/value cache, batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from modeling.attention import KVCache
from modeling.model import LlamaForCausalLM
from vnprep.errors import InputError, TrainingError
from vnprep.tokenizer.encode import encode, holds_special
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.vietnamese.normalize import clean_turn, to_nfc

_EXCERPT = 60


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: longest answer, ``[EOS]`` included.
        temperature: 0 takes the likeliest token; higher is more varied.
        top_p: draw only from the likeliest tokens that together reach this probability.
        seed: row ``i`` draws from ``seed + i``, so an answer does not depend on its batch.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


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


def request_prompts(tokenizer: LoadedTokenizer, requests: Sequence[str]) -> list[list[int]]:
    """Encode each request as fine-tuning does: ``[BOS] REQ [SEP]``.

    Raises:
        InputError: a request is empty, or is no text that the tokenizer can encode.
    """
    texts = [clean_turn(request) for request in requests]
    for text in texts:
        if not text:
            raise InputError("an empty request", remedy="write what the model should answer")
    special = tokenizer.special
    return [[special.bos, *ids, special.sep] for ids in _encode(tokenizer, texts)]


def text_prompts(tokenizer: LoadedTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Encode the beginning of a text as pretraining does: ``[BOS] TEXT``."""
    encoded = _encode(tokenizer, [to_nfc(text) for text in texts])
    return [[tokenizer.special.bos, *ids] for ids in encoded]


def _encode(tokenizer: LoadedTokenizer, texts: list[str]) -> list[list[int]]:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                f"not valid Unicode: {text[:_EXCERPT]!a}", remedy="give UTF-8 text"
            ) from None
    ids, offsets = encode(tokenizer, texts)
    for text, injected in zip(texts, holds_special(ids, offsets, tokenizer), strict=True):
        if injected:
            raise InputError(
                f"the tokenizer makes a special token of a word in this text: {text[:_EXCERPT]!r}",
                remedy="take that word out; a byte-level tokenizer does not have this limit",
            )
    return [ids[start:end].tolist() for start, end in pairwise(offsets.tolist())]


def generate(
    model: LlamaForCausalLM,
    tokenizer: LoadedTokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | None = None,
    *,
    batch_size: int = 64,
) -> list[Answer]:
    """Write an answer to each prompt, on the device where the model is.

    Args:
        model: its vocabulary may be padded; ids beyond the tokenizer's are never chosen.
        tokenizer: gives the special ids and decodes.
        prompts: token ids, each at least one.
        sampling: how to choose; by default the likeliest token.
        batch_size: prompts at a time; prompts of like length go together.

    Raises:
        TrainingError: a prompt leaves no room within ``max_position_embeddings``, or a sampling
            option is out of range.
    """
    sampling = sampling or Sampling()
    _check(model, prompts, sampling)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        written = _generate_batch(model, tokenizer, [prompts[row] for row in rows], rows, sampling)
        for row, ids in zip(rows, written, strict=True):
            stopped = ids[-1:] == [tokenizer.special.eos]
            ids = ids[:-1] if stopped else ids
            text = tokenizer.backend.decode(ids, skip_special_tokens=False)
            answers[row] = Answer(text, tuple(ids), stopped)
    return [answers[row] for row in range(len(prompts))]


def _check(model: LlamaForCausalLM, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
    longest, room = max(map(len, prompts), default=0), model.config.max_position_embeddings
    if longest >= room:
        raise TrainingError(
            f"a prompt of {longest:,} tokens leaves no room for an answer: "
            f"the model reads {room:,} tokens",
            remedy="shorten it, or train with a larger max_position_embeddings",
        )
    for name, fits, range_ in (
        ("--max-new-tokens", sampling.max_new_tokens >= 1, "1 or more"),
        ("--temperature", sampling.temperature >= 0, "0 or more"),
        ("--top-p", 0 < sampling.top_p <= 1, "above 0 and at most 1"),
    ):
        if not fits:
            raise TrainingError("out of range", place=name, remedy=f"give {range_}")


@torch.inference_mode()
def _generate_batch(
    model: LlamaForCausalLM,
    tokenizer: LoadedTokenizer,
    prompts: list[Sequence[int]],
    rows: list[int],
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
    draws = _draws(rows, steps, sampling).to(device)
    written: list[list[int]] = [[] for _ in prompts]
    alive = set(range(len(prompts)))
    for step in range(steps):
        hidden = model.model(ids, positions, documents, cache)
        logits = model.lm_head(hidden[:, -1])[:, : tokenizer.vocab_size].float()
        chosen = _choose(logits, draws[:, step], sampling)
        for row, token in enumerate(chosen.tolist()):
            if row in alive:
                written[row].append(token)
                if token == tokenizer.special.eos or len(written[row]) == limits[row]:
                    alive.discard(row)
        if not alive:
            break
        # Rows that have ended run on unread; their positions stay within the model's.
        ids, documents = chosen[:, None], torch.zeros_like(documents[:, :1])
        positions = positions[:, -1:] + 1
    return written


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


def _draws(rows: list[int], steps: int, sampling: Sampling) -> Tensor:
    """Return uniform numbers in [0, 1), [rows, steps]; each row's own, whatever its batch."""
    if sampling.temperature == 0:
        return torch.zeros(len(rows), steps)
    generators = (torch.Generator().manual_seed(sampling.seed + row) for row in rows)
    return torch.stack([torch.rand(steps, generator=generator) for generator in generators])


def _choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """Choose a token for each row of logits, [rows, vocab] and [rows] → [rows]."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    shares, tokens = torch.softmax(logits / sampling.temperature, dim=-1).sort(descending=True)
    sums = shares.cumsum(dim=-1)
    # Nucleus sampling (arXiv:1904.09751): a token stays if those before it fall short of top_p.
    kept = shares * (sums - shares < sampling.top_p)
    sums = kept.cumsum(dim=-1)
    place = torch.searchsorted(sums, draws[:, None] * sums[:, -1:], right=True)
    return tokens.gather(1, place.clamp(max=tokens.shape[1] - 1)).squeeze(1)
