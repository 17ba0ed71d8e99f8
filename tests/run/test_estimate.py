"""--dry-run: what would be done, near the truth, and nothing written."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vnprep.config import PrepareConfig, ReadOptions
from vnprep.errors import OutputError
from vnprep.run.estimate import estimate
from vnprep.run.prepare import prepare
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer

CONFIG = PrepareConfig("pretrain", ReadOptions("text", text_split="line"))
WORDS = [
    "Bật",
    "quạt",
    "phòng",
    "ngủ",
    "lên",
    "mức",
    "hai",
    "Trời",
    "hôm",
    "nay",
    "nóng",
    "quá",
    "Đã",
    "tắt",
    "đèn",
    "bếp",
]


@pytest.fixture
def tokenizer(bpe_path: Path) -> LoadedTokenizer:
    return load_tokenizer(bpe_path)


def texts(count: int) -> list[str]:
    """Texts that grow longer and longer, so that the beginning is not like the whole."""
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=2 + 40 * n // count)) for n in range(count)]


def jsonl(lines: list[str]) -> bytes:
    return "".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in lines).encode()


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("a.jsonl", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.bz2", bz2.compress),
        ("a.jsonl.xz", lzma.compress),
        ("a.jsonl.zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
    ],
)
def test_the_estimate_is_near_the_truth(
    tmp_path: Path, tokenizer: LoadedTokenizer, name: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / name).write_bytes(compress(jsonl(texts(30_000))))
    arguments, out = [str(tmp_path / name)], tmp_path / "out"
    foretold = estimate(arguments, out, CONFIG, tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    manifest = prepare(arguments, out, CONFIG, tokenizer).manifest
    assert foretold.shards == len(manifest.shards)
    assert foretold.tokens == pytest.approx(manifest.tokens, rel=0.1)
    assert foretold.rows == pytest.approx(manifest.rows, rel=0.2)
    size = sum(record.bytes for record in manifest.files)
    assert foretold.output_bytes == pytest.approx(size, rel=0.15)
    assert foretold.seconds is not None and foretold.seconds > 0


def test_inputs_are_told_by_format(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    lines = texts(300)
    (folder / "a.jsonl").write_bytes(jsonl(lines))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(jsonl(lines)))
    (folder / "c.csv").write_text("text\n" + "\n".join(lines), encoding="utf-8")
    pq.write_table(pa.table({"text": lines}), folder / "d.parquet")
    for number in range(40):
        (folder / f"{number}.txt").write_text("\n".join(lines[number::40]), encoding="utf-8")
    (folder / "z.txt").write_bytes(b"\xff\n")
    foretold = estimate([str(folder)], tmp_path / "out", CONFIG, tokenizer)
    assert [(kind.name, kind.files) for kind in foretold.inputs] == [
        ("csv", 1),
        ("jsonl", 1),
        ("jsonl, compressed", 1),
        ("parquet", 1),
        ("text", 41),
    ]
    truth = prepare([str(folder)], tmp_path / "out", CONFIG, tokenizer).manifest
    assert foretold.tokens == pytest.approx(truth.tokens, rel=0.15)
    again = estimate([str(folder)], tmp_path / "out", CONFIG, tokenizer)
    assert (again.finished, again.shards, again.tokens) == (True, 0, 0)


def test_what_would_be_refused_is_refused(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    source, out = tmp_path / "a.txt", tmp_path / "out"
    source.write_text("một\nhai\n", encoding="utf-8")
    prepare([str(source)], out, CONFIG, tokenizer)
    source.write_text("một\nba\n", encoding="utf-8")
    with pytest.raises(OutputError, match=r"changed: .*a\.txt"):
        estimate([str(source)], out, CONFIG, tokenizer)
    assert estimate([str(source)], out, CONFIG, tokenizer, mode="overwrite").shards == 1
    (tmp_path / "b.txt").write_text("bốn\n", encoding="utf-8")
    arguments = [str(tmp_path / "b.txt")]
    foretold = estimate(arguments, out, CONFIG, tokenizer, mode="append")
    assert (foretold.shards, foretold.skipped) == (1, 0)


def test_the_command_line_shows_it_and_writes_nothing(
    vnprep: Any, bpe_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(texts(2_000)), encoding="utf-8")
    command = ["pretrain-text", tmp_path / "a.txt", "--split", "line", "--tokenizer", bpe_path]
    command += ["--out", tmp_path / "out", "--dry-run"]
    result = vnprep(*command)
    assert result.code == 0
    assert "1 × text" in result.out and "1 shard in" in result.out
    assert "nothing was written" in result.out
    told = json.loads(vnprep(*command, "--json").out)
    assert told["dry_run"] is True and told["shards"] == 1 and told["tokens"] > 2_000
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_it_is_quick_whatever_the_size(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    """Beyond reading the input once, the cost is that of the sample."""
    block = jsonl(texts(20_000))
    took = []
    for times in (1, 8):
        (tmp_path / "a.jsonl").write_bytes(block * times)
        began = time.process_time()
        foretold = estimate([str(tmp_path / "a.jsonl")], tmp_path / "out", CONFIG, tokenizer)
        took.append(time.process_time() - began)
        assert foretold.sampled_bytes < 3 << 20
    assert took[1] < 3 * took[0] + 0.5
