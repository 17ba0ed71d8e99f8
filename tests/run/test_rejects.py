"""--max-rejects: the same verdict with any number of workers, nothing written, and resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vnprep.config import PrepareConfig, ReadOptions
from vnprep.errors import InputError, VnprepError
from vnprep.run.prepare import Prepared, prepare
from vnprep.run.rejects import RejectLimit
from vnprep.shards.ledger import Ledger
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer

CONFIG = PrepareConfig("pretrain", ReadOptions("text", text_split="line"), unit_bytes=4_000)


@pytest.fixture
def tokenizer(bpe_path: Path) -> LoadedTokenizer:
    return load_tokenizer(bpe_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """4,000 lines, of which the bad ones stand in the first half: 200, or 5 %."""
    lines = [f"Quạt {n}".encode() for n in range(4_000)]
    lines[:2_000:10] = [b"\xff"] * 200
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("text", "allowed", "too_many"),
    [("0", 0, 1), ("7", 7, 8), ("1%", 10, 11), ("0.25 %", 2, 3), ("100%", 1_000, 1_001)],
)
def test_a_limit_is_what_it_says(text: str, allowed: int, too_many: int) -> None:
    limit = RejectLimit.parse(text)
    for rejected in (allowed, too_many):
        ledger = Ledger(read=1_000)
        ledger.rejected["empty"] = rejected
        ledger.dropped["too-long"] = 900
        assert limit.exceeded(ledger) == (rejected == too_many)


@pytest.mark.parametrize("text", ["", "many", "-1", "101%", "1e3", "5 percent", "1.5"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(VnprepError, match="neither a number nor a percentage"):
        RejectLimit.parse(text)


@pytest.mark.parametrize("limit", ["50", "1%"])
def test_the_verdict_and_its_words_are_the_same_with_any_number_of_workers(
    source: Path, tmp_path: Path, tokenizer: LoadedTokenizer, limit: str
) -> None:
    said = set()
    for workers in (1, 2, 3):
        out = tmp_path / str(workers)
        with pytest.raises(InputError, match="too many rejects") as caught:
            prepare(
                [str(source)],
                out,
                CONFIG,
                tokenizer,
                workers=workers,
                max_rejects=RejectLimit.parse(limit),
            )
        assert not (out / "manifest.json").exists()
        assert not list(out.glob("shard-*"))
        said.add(caught.value.cause)
        assert "remove " in caught.value.remedy and "raise --max-rejects" in caught.value.remedy
    (words,) = said
    assert " records so far (" in words and f"--max-rejects is {limit}" in words
    assert words.count("a.txt:") == 3 and "a.txt:1: invalid-utf8" in words


def test_a_share_is_that_of_the_whole_input(
    source: Path, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    """10 % of the first half are bad and 5 % of all: the good half makes up for the bad one."""
    out = tmp_path / "out"

    def run(limit: str) -> Prepared:
        parsed = RejectLimit.parse(limit)
        return prepare([str(source)], out, CONFIG, tokenizer, max_rejects=parsed)

    with pytest.raises(InputError, match=r"200 of .* records .*\(.* %: 200 invalid-utf8\)"):
        run("4.8%")
    # The limit is not part of what the run is: raised, what is done is kept.
    prepared = run("5%")
    assert prepared.done_now < len(prepared.manifest.shards)
    assert prepared.manifest.ledger.rejected == {"invalid-utf8": 200}


def test_the_command_line_says_it_and_exits_1(vnprep: Any, bpe_path: Path, source: Path) -> None:
    out = source.with_name("out")
    command = ["pretrain-text", source, "--split", "line", "--tokenizer", bpe_path, "--out", out]
    result = vnprep(*command, "--max-rejects", "1%")
    assert result.code == 1
    assert "too many rejects: 200 of 4,000 records (5.00 %" in result.err
    assert vnprep(*command, "--max-rejects", "x").code == 1
    assert vnprep(*command, "--max-rejects", "200", "--workers", 1).code == 0


def test_a_finished_set_is_judged_too(tmp_path: Path, bpe_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\n\xff\n")
    config = PrepareConfig("pretrain", ReadOptions("text", text_split="line"))
    tokenizer = load_tokenizer(bpe_path)
    prepare([str(path)], tmp_path / "out", config, tokenizer)
    with pytest.raises(InputError, match="too many rejects: 1 of 2"):
        prepare(
            [str(path)], tmp_path / "out", config, tokenizer, max_rejects=RejectLimit.parse("0")
        )
    prepare([str(path)], tmp_path / "out", config, tokenizer, max_rejects=RejectLimit.parse("1"))
