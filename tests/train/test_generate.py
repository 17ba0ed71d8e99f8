"""The script: answers on stdout, all else on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import generate as generate_script
from inference.sampling import Sampling, generate, text_prompts
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from modeling.presets import padded_vocab_size
from vnprep.tokenizer.load import LoadedTokenizer

MakeConfig = Callable[..., ModelConfig]
Pairs = list[tuple[str, str, str]]


def run_script(*arguments: object) -> Any:
    return CliRunner().invoke(generate_script.main, [str(argument) for argument in arguments])


def test_the_script_prints_answers_and_nothing_else(taught: Any, pairs: Pairs) -> None:
    requests = [request for request, _, _ in pairs]
    result = run_script(taught.run, *requests)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [response for _, response, _ in pairs]
    assert result.stderr == ""


def test_the_script_reads_files_and_writes_json(
    taught: Any, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    file = tmp_path / "requests.txt"
    file.write_bytes("\ufeffMở rèm\r\n\n  \nTắt đèn bếp".encode())
    result = run_script(taught.run / "model", "Đèn bếp bật chưa?", "--file", file, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["request"] for line in lines] == ["Đèn bếp bật chưa?", "Mở rèm", "Tắt đèn bếp"]
    assert [line["response"] for line in lines] == ["Chưa", "Đã mở rèm", "Đã tắt đèn bếp"]
    assert all(line["stopped"] for line in lines)
    assert tokenizer.backend.decode(lines[1]["tokens"]) == "Đã mở rèm"


def test_the_script_says_when_an_answer_is_cut(taught: Any) -> None:
    result = run_script(taught.run, "Bật quạt phòng ngủ lên mức 2", "--max-new-tokens", 3)
    assert result.exit_code == 0
    assert "no [EOS] after 3 tokens" in result.stderr


def test_the_script_knows_a_pretrained_model(
    make_config: MakeConfig,
    tokenizer_path: Path,
    tokenizer: LoadedTokenizer,
    save: Callable[..., Path],
    tmp_path: Path,
) -> None:
    torch.manual_seed(3)
    model = LlamaForCausalLM(make_config(vocab_size=padded_vocab_size(tokenizer.vocab_size)))
    run = save(tmp_path / "pre", model, tokenizer_path, "pretrain")
    assert "--continue" in run_script(run, "Mở").stderr
    result = run_script(run, "Mở", "--continue", "--max-new-tokens", 5)
    assert "pretrained only" not in result.stderr
    (answer,) = generate(model, tokenizer, text_prompts(tokenizer, ["Mở"]), Sampling(5))
    assert result.stdout == f"Mở{answer.text}\n"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "none", "no such folder"),
        (lambda path: path, "no trained model here"),
    ],
)
def test_a_folder_without_a_model_is_one_clear_line(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    result = run_script(make(tmp_path), "Mở rèm")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert "remedy:" in result.stderr


def test_bad_requests_are_refused(taught: Any, tmp_path: Path) -> None:
    assert run_script(taught.run).exit_code == 2
    for content, words in ((b"\xff\xfe", "not UTF-8"), (b" \n", "no request")):
        file = tmp_path / "requests.txt"
        file.write_bytes(content)
        result = run_script(taught.run, "--file", file)
        assert result.exit_code == 1
        assert words in result.stderr
    assert "cannot be read" in run_script(taught.run, "--file", tmp_path / "none").stderr
    assert "cannot be used" in run_script(taught.run, "Mở", "--device", "nonsense").stderr
