"""Streaming: no broken character, the batch's tokens, nothing read twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from inference.choosing import Sampling
from inference.conversation import Conversation
from inference.sampling import generate, request_prompts
from inference.streaming import TextStream, TokenWriter
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from modeling.presets import padded_vocab_size
from vnprep.errors import InputError, TrainingError
from vnprep.tokenizer.encode import encode
from vnprep.tokenizer.load import LoadedTokenizer

MakeConfig = Callable[..., ModelConfig]


@pytest.fixture
def wild(make_config: MakeConfig, tokenizer: LoadedTokenizer) -> LlamaForCausalLM:
    """A model with random weights: it says anything, and seldom ``[EOS]``."""
    torch.manual_seed(3)
    return LlamaForCausalLM(make_config(vocab_size=padded_vocab_size(tokenizer.vocab_size))).eval()


class Reads:
    """Notes how many tokens a model reads at each call."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.counts: list[int] = []
        model.model.embed_tokens.register_forward_hook(
            lambda _module, inputs, _out: self.counts.append(inputs[0].shape[1])
        )


def test_no_piece_holds_a_part_of_a_character(tokenizer: LoadedTokenizer) -> None:
    text = "Đã tắt 😀👩‍👩‍👧 ở phòng ngủ ½ — 中文"
    ids = encode(tokenizer, [text])[0].tolist()
    assert len(ids) > len(text), "characters must be of several tokens"
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in ids]
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)
    assert "" in pieces
    assert "".join(pieces) + stream.end() == text


def test_damaged_bytes_come_out_as_in_the_whole(tokenizer: LoadedTokenizer) -> None:
    draw = random.Random(5)
    for _ in range(300):
        ids = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(12))]
        stream = TextStream(tokenizer)
        pieces = [stream.add(token) for token in ids] + [stream.end()]
        assert "".join(pieces) == tokenizer.backend.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(20), Sampling(20, 1.0, 0.9, seed=4, top_k=20), Sampling(20, repetition_penalty=1.5)],
)
def test_tokens_are_those_of_a_batch(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer, sampling: Sampling
) -> None:
    prompts = request_prompts(tokenizer, ["Mở rèm", "Tắt đèn bếp", "Đèn bếp bật chưa?"])
    answers = generate(wild, tokenizer, prompts, sampling)
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        written = list(TokenWriter(wild, tokenizer).write(prompt, sampling, number))
        ended = [tokenizer.special.eos] if answer.stopped else []
        assert written == [*answer.token_ids, *ended]


def say(conversation: Conversation, request: str) -> str:
    return "".join(conversation.answer(conversation.prepare(request)))


def test_turns_are_laid_out_as_in_training_and_read_once(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer
) -> None:
    reads, special = Reads(wild), tokenizer.special
    conversation = Conversation(wild, tokenizer, Sampling(8))
    expected: list[int] = [special.bos]
    for request in ("Mở rèm", "Tắt đèn bếp", "Chưa"):
        ids = encode(tokenizer, [request])[0].tolist()
        before = len(reads.counts)
        text = say(conversation, request)
        prompt = [*expected, *ids, special.sep]
        (fresh,) = generate(wild, tokenizer, [prompt], Sampling(8))
        assert conversation.last == fresh
        assert text == fresh.text
        assert conversation.ids == (*prompt, *fresh.token_ids)
        # One [EOS] or [BOS] before the request; of a cut answer its last token, too.
        assert reads.counts[before] <= 2 + len(ids) + 1
        expected = [*prompt, *fresh.token_ids, special.eos]
    assert conversation.turns == 3


def test_the_oldest_turns_are_forgotten_when_room_is_short(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer
) -> None:
    conversation = Conversation(wild, tokenizer, Sampling(16))
    positions = wild.config.max_position_embeddings
    forgotten = 0
    for number in range(12):
        say(conversation, f"Bật quạt phòng ngủ lên mức {number}")
        forgotten += conversation.forgotten
        assert len(conversation.ids) <= positions
    assert forgotten
    assert conversation.turns == 12 - forgotten
    ids = list(conversation.ids)
    assert ids[0] == tokenizer.special.bos
    assert ids.count(tokenizer.special.sep) == conversation.turns
    # What is left is read as if the forgotten had never been.
    assert conversation.last is not None
    prompt = ids[: len(ids) - len(conversation.last.token_ids)]
    assert generate(wild, tokenizer, [prompt], Sampling(16)) == [conversation.last]


def test_an_interrupted_answer_stays_as_far_as_it_came(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer
) -> None:
    conversation = Conversation(wild, tokenizer, Sampling(20))
    pieces = conversation.answer(conversation.prepare("Mở rèm"))
    heard = next(pieces)
    pieces.close()
    assert conversation.last is not None
    assert conversation.last.text == heard
    say(conversation, "Tắt đèn bếp")
    last = conversation.last
    prompt = list(conversation.ids)[: len(conversation.ids) - len(last.token_ids)]
    assert prompt.count(tokenizer.special.eos) == 1
    assert generate(wild, tokenizer, [prompt], Sampling(20)) == [last]


def test_a_refused_request_changes_nothing(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer
) -> None:
    conversation = Conversation(wild, tokenizer, Sampling(8))
    say(conversation, "Mở rèm")
    before = conversation.ids
    for request, error in ((" ", InputError), ("dài " * 200, TrainingError)):
        with pytest.raises(error):
            conversation.prepare(request)
    assert conversation.ids == before
    conversation.reset()
    assert conversation.ids == ()
    (fresh,) = generate(wild, tokenizer, request_prompts(tokenizer, ["Mở rèm"]), Sampling(8))
    say(conversation, "Mở rèm")
    assert conversation.last == fresh


def test_a_taught_model_chats(taught: Any, tokenizer: LoadedTokenizer) -> None:
    conversation = Conversation(taught.model, tokenizer, Sampling(40))
    assert say(conversation, "Mở rèm") == "Đã mở rèm"
    assert conversation.last is not None
    assert conversation.last.stopped
