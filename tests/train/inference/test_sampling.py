"""Generation: the prompt is training's, a batch changes nothing, each row stops by itself."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from inference.choosing import choose
from inference.sampling import Sampling, generate, request_prompts, text_prompts
from modeling.config import ModelConfig
from modeling.hf_names import to_hf
from modeling.model import LlamaForCausalLM
from modeling.presets import padded_vocab_size
from vnprep.errors import InputError, TrainingError
from vnprep.examples import Segments, build
from vnprep.tokenizer.encode import encode
from vnprep.tokenizer.load import LoadedTokenizer, parse_tokenizer
from vnprep.vietnamese.normalize import clean_turn

MakeConfig = Callable[..., ModelConfig]
Pairs = list[tuple[str, str, str]]


@pytest.fixture
def wild(make_config: MakeConfig, tokenizer: LoadedTokenizer) -> LlamaForCausalLM:
    """A model with random weights: it says anything, and seldom ``[EOS]``."""
    torch.manual_seed(3)
    return LlamaForCausalLM(make_config(vocab_size=padded_vocab_size(tokenizer.vocab_size))).eval()


def answer_slowly(model: LlamaForCausalLM, tokenizer: LoadedTokenizer, ids: list[int]) -> list[int]:
    """Greedy, one row, the whole sequence anew for each token."""
    new: list[int] = []
    while len(new) < 20 and tokenizer.special.eos not in new:
        with torch.no_grad():
            logits = model(torch.tensor([ids + new]))[0, -1, : tokenizer.vocab_size]
        new.append(int(logits.argmax()))
    return new


def test_a_prompt_is_the_training_input_up_to_the_answer(
    tokenizer: LoadedTokenizer, pairs: Pairs
) -> None:
    for request, response, _ in pairs:
        ids, offsets = encode(tokenizer, [clean_turn(request), clean_turn(response)])
        segments = Segments(
            ids, offsets, np.array([0, 2]), np.array([False, True]), np.array([False, True])
        )
        row = build(segments, tokenizer.special)
        unsupervised = int((row.loss_mask == 0).sum())
        (prompt,) = request_prompts(tokenizer, [request])
        # The position of [SEP] is the first that carries loss, and the last of the prompt.
        assert prompt == row.input[: unsupervised + 1].tolist()
        assert prompt[0] == tokenizer.special.bos
        assert prompt[-1] == tokenizer.special.sep


def test_special_tokens_in_a_request_are_text(tokenizer: LoadedTokenizer) -> None:
    (prompt,) = request_prompts(tokenizer, ["tắt [EOS] đèn [SEP][BOS] [PAD]"])
    inside = prompt[1:-1]
    assert not set(inside) & set(tokenizer.special.as_dict().values())
    assert tokenizer.backend.decode(inside) == "tắt [EOS] đèn [SEP][BOS] [PAD]"


def test_decomposed_letters_and_outer_spaces_do_not_matter(tokenizer: LoadedTokenizer) -> None:
    text = "Tắt đèn bếp"
    same = [text, unicodedata.normalize("NFD", text), f"  {text}\n"]
    prompts = request_prompts(tokenizer, same)
    assert prompts[0] == prompts[1] == prompts[2]


def test_a_text_to_go_on_with_has_no_separator(tokenizer: LoadedTokenizer) -> None:
    (prompt,) = text_prompts(tokenizer, ["Tắt đèn"])
    assert prompt[0] == tokenizer.special.bos
    assert tokenizer.special.sep not in prompt
    assert tokenizer.backend.decode(prompt[1:]) == "Tắt đèn"
    assert text_prompts(tokenizer, [""]) == [[tokenizer.special.bos]]


@pytest.mark.parametrize(("text", "words"), [(" \n", "empty"), ("a\ud800", "not valid Unicode")])
def test_a_request_that_is_no_text_is_refused(
    tokenizer: LoadedTokenizer, text: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        request_prompts(tokenizer, ["Mở rèm", text])


def test_a_word_that_becomes_a_special_token_is_refused() -> None:
    words = {"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, "[SEP]": 3, "mở": 4}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "mở"},
    }
    with pytest.raises(InputError, match="special token"):
        request_prompts(parse_tokenizer(json.dumps(content)), ["mở [EOS]"])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_batch_answers_as_each_alone_without_a_cache(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer, pairs: Pairs, batch_size: int
) -> None:
    prompts = request_prompts(tokenizer, [request for request, _, _ in pairs])
    assert len({len(prompt) for prompt in prompts}) > 2, "the batch must be ragged"
    answers = generate(wild, tokenizer, prompts, Sampling(20), batch_size=batch_size)
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = answer_slowly(wild, tokenizer, prompt)
        ended = [tokenizer.special.eos] if answer.stopped else []
        assert [*answer.token_ids, *ended] == expected


def test_greedy_is_that_of_transformers(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer, pairs: Pairs
) -> None:
    theirs: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**wild.config.to_hf()))
    theirs.load_state_dict(to_hf(wild.state_dict(), wild.config))
    prompts = request_prompts(tokenizer, [request for request, _, _ in pairs])
    allowed = list(range(tokenizer.vocab_size))
    for prompt, answer in zip(
        prompts, generate(wild, tokenizer, prompts, Sampling(20)), strict=True
    ):
        ids = torch.tensor([prompt])
        out = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            do_sample=False,
            prefix_allowed_tokens_fn=lambda *_: allowed,
        )
        expected = out[0, len(prompt) :].tolist()
        assert list(answer.token_ids) == [t for t in expected if t != tokenizer.special.eos]


def test_each_row_stops_at_its_own_end(
    taught: Any, tokenizer: LoadedTokenizer, pairs: Pairs
) -> None:
    prompts = request_prompts(tokenizer, [request for request, _, _ in pairs])
    answers = generate(taught.model, tokenizer, prompts)
    assert [answer.text for answer in answers] == [response for _, response, _ in pairs]
    assert all(answer.stopped for answer in answers)
    assert len({len(answer.token_ids) for answer in answers}) > 2
    short = generate(taught.model, tokenizer, prompts, Sampling(2))
    assert not any(answer.stopped for answer in short[:4])
    assert [len(answer.token_ids) for answer in short[:4]] == [2] * 4


def test_ids_beyond_the_tokenizer_are_never_written(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer
) -> None:
    padding = slice(tokenizer.vocab_size, None)
    assert wild.config.vocab_size > tokenizer.vocab_size
    prompts = request_prompts(tokenizer, ["Mở rèm"])
    with torch.no_grad():
        # Made so that the padding rows win at every step, were they let in.
        hidden = wild.model(torch.tensor(prompts))[0, -1]
        wild.lm_head.weight[padding] = 100 * hidden
        assert wild(torch.tensor(prompts))[0, -1].argmax() >= tokenizer.vocab_size
    for sampling in (Sampling(20), Sampling(20, temperature=1.5)):
        (answer,) = generate(wild, tokenizer, prompts, sampling)
        assert answer.token_ids
        assert max(answer.token_ids) < tokenizer.vocab_size


def test_draws_depend_on_the_seed_and_not_on_the_batch(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer, pairs: Pairs
) -> None:
    prompts = request_prompts(tokenizer, [request for request, _, _ in pairs] * 2)
    sampling = Sampling(12, temperature=1.0, top_p=0.9, seed=5)
    first = generate(wild, tokenizer, prompts, sampling, batch_size=64)
    assert generate(wild, tokenizer, prompts, sampling, batch_size=3) == first
    assert first[0] != first[len(pairs)], "two rows of one prompt draw for themselves"
    assert generate(wild, tokenizer, prompts, Sampling(12, 1.0, 0.9, seed=6)) != first


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([1.0, 3.0, 0.0, 2.0])
    draws = torch.linspace(0, 1, 40_001)[:-1]
    rows = logits.expand(len(draws), 4)
    for temperature in (0.5, 1.0, 2.0):
        chosen = choose(rows, draws, Sampling(temperature=temperature))
        shares = chosen.bincount(minlength=4) / len(draws)
        torch.testing.assert_close(shares, (logits / temperature).softmax(0), atol=1e-3, rtol=0)
    # 0.64 + 0.24 reach 0.8; the other two are out.
    chosen = choose(rows, draws, Sampling(temperature=1.0, top_p=0.8))
    expected = logits.softmax(0) * torch.tensor([0, 1, 0, 1])
    shares = chosen.bincount(minlength=4) / len(draws)
    torch.testing.assert_close(shares, expected / expected.sum(), atol=1e-3, rtol=0)
    assert choose(rows, draws, Sampling(temperature=1.0, top_p=1e-6)).unique().tolist() == [1]


def test_positions_never_run_out(wild: LlamaForCausalLM, tokenizer: LoadedTokenizer) -> None:
    room = wild.config.max_position_embeddings
    eos = tokenizer.special.eos
    prompts = [[1] + [5] * (room - 4), [1, 6, 3]]
    answers = generate(wild, tokenizer, prompts, Sampling(8))
    counts = [len(a.token_ids) + a.stopped for a in answers]
    assert counts[0] <= 3
    assert counts[1] == 8 or eos in prompts[1]
    with pytest.raises(TrainingError, match="leaves no room"):
        generate(wild, tokenizer, [[5] * room])


@pytest.mark.parametrize("bad", [Sampling(0), Sampling(temperature=-1), Sampling(top_p=0)])
def test_options_out_of_range_are_refused(
    wild: LlamaForCausalLM, tokenizer: LoadedTokenizer, bad: Sampling
) -> None:
    with pytest.raises(TrainingError, match="out of range"):
        generate(wild, tokenizer, [[1]], bad)
