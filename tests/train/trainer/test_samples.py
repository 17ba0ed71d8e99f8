"""What a model is asked while it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.options import TrainOptions
from trainer.samples import Prompt, choose_prompts, is_due
from vnprep.errors import TrainingError
from vnprep.shards.read import ShardSet

MakeData = Callable[..., Path]


@pytest.fixture
def pairs(make_data: MakeData, tmp_path: Path) -> ShardSet:
    rows = [[[10, 11], [12]], [[20], [21, 22], [23], [24]], [[30] * 50, [31]], [[40], [41]]]
    return ShardSet.open(make_data(tmp_path / "pairs", rows))


@pytest.fixture
def texts(make_data: MakeData, tmp_path: Path) -> ShardSet:
    return ShardSet.open(make_data(tmp_path / "texts", [[[5] * 30], [[6, 7]]], "pretrain"))


def options(stage: str, **changes: object) -> TrainOptions:
    """Options as far as prompts go."""
    found = object.__new__(TrainOptions)
    values = {"stage": stage, "sample_prompt": (), "sample_prompts": None, "sample_every": None}
    found.__dict__.update(values | changes)
    return found


def test_the_requests_of_the_validation_data(pairs: ShardSet) -> None:
    prompts = choose_prompts(options("finetune"), pairs, pairs, 40)
    # The third one's request leaves no room in the model.
    assert prompts == (Prompt("w10 w11", (1, 10, 11, 3)), Prompt("w20", (1, 20, 3)))


def test_the_beginnings_of_the_validation_data(texts: ShardSet) -> None:
    first, second = choose_prompts(options("pretrain"), texts, texts, 40)
    assert first.token_ids == (1, *[5] * 11)
    assert second == Prompt("w6 w7", (1, 6, 7))


def test_what_the_user_asks_comes_instead(pairs: ShardSet, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("w7 w8\n\n  w9\n", encoding="utf-8")
    given = options("finetune", sample_prompt=("w5",), sample_prompts=file)
    prompts = choose_prompts(given, pairs, pairs, 40)
    assert [prompt.token_ids for prompt in prompts] == [(1, 5, 3), (1, 7, 8, 3), (1, 9, 3)]
    assert choose_prompts(options("pretrain", sample_prompt=("w5",)), pairs, None, 40) == (
        Prompt("w5", (1, 5)),
    )


def test_nothing_is_asked_without_validation_or_by_wish(pairs: ShardSet) -> None:
    assert choose_prompts(options("finetune"), pairs, None, 40) == ()
    never = options("finetune", sample_every=0, sample_prompt=("w5",))
    assert choose_prompts(never, pairs, pairs, 40) == ()


def test_prompts_that_cannot_be_are_refused(pairs: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="5 tokens, but the model has 5 positions"):
        choose_prompts(options("finetune", sample_prompt=("w5 w6 w7",)), pairs, None, 5)
    with pytest.raises(TrainingError, match="an empty request"):
        choose_prompts(options("finetune", sample_prompt=(" ",)), pairs, None, 40)
    for content in (None, b"\n \n", b"\xff\xfe\xfa"):
        file = tmp_path / "prompts.txt"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(TrainingError):
            choose_prompts(options("finetune", sample_prompts=file), pairs, None, 40)


def test_when_something_is_due() -> None:
    assert [step for step in range(11) if is_due(4, step, 10)] == [4, 8, 10]
    assert [step for step in range(11) if is_due(0, step, 10)] == [10]
