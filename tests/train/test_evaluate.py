"""The score: what counts as right, by task, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import evaluate
from inference.sampling import Answer
from inference.scoring import Pair, Result
from vnprep.tokenizer.load import LoadedTokenizer

Pairs = list[tuple[str, str, str]]


def run_script(*arguments: object) -> Any:
    return CliRunner().invoke(evaluate.main, [str(argument) for argument in arguments])


@pytest.fixture
def file(tmp_path: Path, pairs: Pairs) -> Path:
    """All pairs; of two, the expected response is one that the model does not give."""
    path = tmp_path / "pairs.tsv"
    rows = [list(pair) for pair in pairs]
    rows[1][1] = "Đã tắt đèn bếp."
    rows[4][1] = "chưa"
    lines = ["request\tresponse\ttask", *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_right_answers_are_counted_by_task(taught: Any, file: Path) -> None:
    result = run_script(taught.run, "--pairs", file, "--json", "--show", 1)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["requests"], found["exact"], found["stopped"]) == (5, 3, 5)
    assert (found["exact_percent"], found["stopped_percent"]) == (60.0, 100.0)
    assert found["tasks"]["control"]["exact"] == 2
    assert found["tasks"]["question"]["requests"] == 2
    assert found["wrong"] == [
        {
            "request": "Tắt đèn bếp",
            "expected": "Đã tắt đèn bếp.",
            "response": "Đã tắt đèn bếp",
            "stopped": True,
        }
    ]


def test_the_report_shows_wrong_answers(taught: Any, file: Path) -> None:
    text = run_script(taught.run, "--pairs", file).stdout
    assert "60.00 %" in text
    assert "wrong answers (2 of 2)" in text
    assert "Đã tắt đèn bếp." in text
    assert "wrong answers" not in run_script(taught.run, "--pairs", file, "--show", 0).stdout


def test_an_answer_that_does_not_stop_is_not_exact(taught: Any, file: Path) -> None:
    found = json.loads(
        run_script(taught.run, "--pairs", file, "--json", "--max-new-tokens", 4).stdout
    )
    assert found["stopped"] < 5
    assert found["exact"] <= found["stopped"]


@pytest.mark.parametrize(
    ("option", "limit", "code", "words"),
    [
        ("--min-exact", 60, 0, ""),
        ("--min-exact", 60.1, 1, "exact match 60.00 % is below the minimum of 60.1 %"),
        ("--min-stop", 100, 0, ""),
    ],
)
def test_a_missed_minimum_is_exit_1(
    taught: Any, file: Path, option: str, limit: float, code: int, words: str
) -> None:
    result = run_script(taught.run, "--pairs", file, option, limit)
    assert result.exit_code == code
    assert words in result.stderr
    assert "requests" in result.stdout, "the report comes in any case"


def test_a_missed_stop_rate_is_exit_1(taught: Any, file: Path) -> None:
    options = ("--min-stop", 99, "--max-new-tokens", 4)
    result = run_script(taught.run, "--pairs", file, *options)
    assert result.exit_code == 1
    assert "[EOS] reached" in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("request\tanswer\na\tb\n", "no column response"),
        ("request\tresponse\na\tb\nc\n", "line 3"),
        ("request\tresponse\n", "no pairs"),
        ("", "no pairs"),
    ],
)
def test_a_bad_file_is_refused(taught: Any, tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text(content, encoding="utf-8")
    result = run_script(taught.run, "--pairs", path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert words in result.stderr


@pytest.mark.parametrize(
    ("text", "stopped", "exact"),
    [("Chưa", True, True), ("Chưa", False, False), ("chưa", True, False), ("Chưa ", True, False)],
)
def test_exact_is_every_character_and_the_end(text: str, stopped: bool, exact: bool) -> None:
    pair = Pair("Đèn bếp bật chưa?", " Chưa\n", None)
    assert Result(pair, Answer(text, (), stopped)).exact is exact


def test_answers_may_be_longer_than_expected_but_not_by_much(
    tokenizer: LoadedTokenizer, pairs: Pairs
) -> None:
    wanted = [Pair(*pair) for pair in pairs]
    tokens = [len(tokenizer.backend.encode(response).ids) for _, response, _ in pairs]
    assert evaluate.longest_response(tokenizer, wanted) == max(tokens) + 1


def test_without_a_task_column_there_are_no_tasks(taught: Any, tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("response\trequest\n Đã mở rèm \tMở rèm\n", encoding="utf-8")
    found = json.loads(run_script(taught.run, "--pairs", path, "--json").stdout)
    assert found["exact"] == 1, "columns are found by name; outer spaces are not compared"
    assert found["tasks"] == {}
