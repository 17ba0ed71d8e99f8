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


def test_streaming_prints_what_is_printed_otherwise(taught: Any, pairs: Pairs) -> None:
    requests = [request for request, _, _ in pairs]
    for options in ([], ["--continue"], ["--temperature", 1, "--seed", 3, "--max-new-tokens", 5]):
        plain = run_script(taught.run, *requests, *options)
        streamed = run_script(taught.run, *requests, *options, "--stream")
        assert streamed.exit_code == plain.exit_code == 0
        assert streamed.stdout == plain.stdout
        assert streamed.stderr == plain.stderr
    assert run_script(taught.run, "Mở rèm", "--stream", "--json").exit_code == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", '{"request": "Mở rèm", "response": "x"}\n\n{"request": "Tắt đèn bếp"}\n'),
        ("r.tsv", "response\trequest\nx\tMở rèm\ny\tTắt đèn bếp\n"),
    ],
)
def test_files_with_a_field_of_requests(
    taught: Any, tmp_path: Path, name: str, content: str
) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    result = run_script(taught.run, "--file", file)
    assert result.stdout == "Đã mở rèm\nĐã tắt đèn bếp\n", result.stderr


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.jsonl", '{"request": "a"}\n["b"]\n', "line 2"),
        ("r.jsonl", '{"request": 1}\n', "line 1"),
        ("r.tsv", "question\ta\nb\tc\n", "no column request"),
    ],
)
def test_a_bad_line_of_a_file_is_named(
    taught: Any, tmp_path: Path, name: str, content: str, words: str
) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    result = run_script(taught.run, "--file", file)
    assert result.exit_code == 1
    assert words in result.stderr


def test_a_file_of_answers_is_gone_on_with(taught: Any, tmp_path: Path, pairs: Pairs) -> None:
    requests = [request for request, _, _ in pairs] * 3
    out = tmp_path / "answers.jsonl"
    options = ["--batch-size", 1, "--temperature", 2.0, "--max-new-tokens", 6]
    result = run_script(taught.run, *requests, *options, "--out", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "15 answers" in result.stderr
    whole = out.read_bytes()
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [line["request"] for line in lines] == requests
    assert {line["stop_reason"] for line in lines} <= {"eos", "length"}
    out.write_bytes(whole[: whole.index(b"\n", len(whole) // 2) + 20])
    again = run_script(taught.run, *requests, *options, "--out", out)
    assert again.exit_code == 1
    assert "--resume" in again.stderr
    result = run_script(taught.run, *requests, *options, "--out", out, "--resume")
    assert result.exit_code == 0, result.output
    # The draws are those of each request's place, so nothing tells where it was cut.
    assert out.read_bytes() == whole
    other = run_script(taught.run, "Mở rèm", *options, "--out", out, "--resume")
    assert other.exit_code == 1
    assert "something else" in other.stderr
    assert out.read_bytes() == whole
