"""A tokenizer and a model small enough to be trained within the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from inference.sampling import request_prompts
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from modeling.presets import padded_vocab_size
from modeling.weights import save_model
from vnprep.config import Stage
from vnprep.tokenizer.encode import encode
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer
from vnprep.tokenizer.train import to_text, train_tokenizer

MakeConfig = Callable[..., ModelConfig]
Save = Callable[..., Path]

#: Requests, responses and tasks; of unequal lengths, so that batches are ragged.
PAIRS = [
    ("Bật quạt phòng ngủ lên mức 2", "Đã bật quạt phòng ngủ lên mức 2", "control"),
    ("Tắt đèn bếp", "Đã tắt đèn bếp", "control"),
    ("Mở rèm", "Đã mở rèm", "control"),
    ("Nhiệt độ phòng khách đang là bao nhiêu?", "Phòng khách đang ở 26 độ", "question"),
    ("Đèn bếp bật chưa?", "Chưa", "question"),
]


def small_config(**changes: object) -> ModelConfig:
    """Return a model that runs in milliseconds; weights large enough to tell positions apart."""
    values: dict[str, object] = {
        "vocab_size": 128,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
    }
    return ModelConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    """Return ``make(**changes)`` → a small ``ModelConfig``."""
    return small_config


@pytest.fixture(scope="session")
def save() -> Save:
    """Return ``save(run, model, tokenizer_path, stage="finetune")`` → the run folder."""
    return save_run


@pytest.fixture(scope="session")
def pairs() -> list[tuple[str, str, str]]:
    """Request, response and task of what the ``taught`` model knows."""
    return PAIRS


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer trained on ``PAIRS``."""
    texts = [text for request, response, _ in PAIRS for text in (request, response)]
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(to_text(train_tokenizer(texts * 3, 330)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(tokenizer_path: Path) -> LoadedTokenizer:
    return load_tokenizer(tokenizer_path)


@dataclass(frozen=True)
class Taught:
    """A run folder whose model knows ``PAIRS`` by heart, and the model."""

    run: Path
    model: LlamaForCausalLM


def save_run(run: Path, model: LlamaForCausalLM, path: Path, stage: Stage = "finetune") -> Path:
    """Save a model as a training run does."""
    tokenizer = load_tokenizer(path)
    save_model(
        run / "model",
        model.config,
        model.state_dict(),
        path,
        tokenizer.special,
        tokenizer.fingerprint,
        stage,
    )
    return run


@pytest.fixture(scope="session")
def taught(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path, tokenizer: LoadedTokenizer
) -> Taught:
    """Train on ``PAIRS`` until they are known."""
    torch.manual_seed(0)
    config = small_config(
        vocab_size=padded_vocab_size(tokenizer.vocab_size), initializer_range=0.05
    )
    model = LlamaForCausalLM(config)
    prompts = request_prompts(tokenizer, [request for request, _, _ in PAIRS])
    ids, offsets = encode(tokenizer, [response for _, response, _ in PAIRS])
    rows, labels = [], []
    for row, prompt in enumerate(prompts):
        response = [*ids[offsets[row] : offsets[row + 1]].tolist(), tokenizer.special.eos]
        rows.append(torch.tensor(prompt + response[:-1]))
        labels.append(torch.tensor([-100] * (len(prompt) - 1) + response))
    batch = pad_sequence(rows, batch_first=True)
    targets = pad_sequence(labels, batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        loss = model(batch, labels=targets) / (targets != -100).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.05, "the tests need a model that knows its pairs"
    run = save_run(tmp_path_factory.mktemp("taught"), model, tokenizer_path)
    return Taught(run, model.eval())
