"""What tests share: small data folders, tokenizers, and the command line as a user calls it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from vnprep.cli import main
from vnprep.durable import sha256_file
from vnprep.examples import Segments, build
from vnprep.shards.inputs import inputs_name, write_inputs
from vnprep.shards.ledger import Excluded, Ledger
from vnprep.shards.manifest import (
    TOKENIZER_NAME,
    FileRecord,
    Manifest,
    ShardRecord,
    TokenizerRecord,
)
from vnprep.shards.schema import Origin, Origins, shard_schema, to_batch
from vnprep.shards.write import write_excluded, write_shard
from vnprep.tokenizer.load import parse_tokenizer
from vnprep.tokenizer.special import SPECIAL_TOKENS, SpecialIds
from vnprep.tokenizer.train import to_text, train_tokenizer

#: A row is its segments: one document, or request, response, request, response, …
RowIds = Sequence[Sequence[int]]
MakeData = Callable[..., Path]

SPECIAL = SpecialIds(0, 1, 2, 3)


def to_segments(rows: Sequence[RowIds], stage: str) -> Segments:
    """Lay rows out as the columnar segments that ``vnprep.examples.build`` takes."""
    parts = [part for row in rows for part in row]
    answer = [stage == "pretrain" or place % 2 == 1 for row in rows for place in range(len(row))]
    return Segments(
        ids=np.array([token for part in parts for token in part], dtype=np.int64),
        offsets=np.cumsum([0, *map(len, parts)]),
        record_offsets=np.cumsum([0, *map(len, rows)]),
        supervised=np.array(answer, dtype=np.bool_),
        ended=np.ones(len(parts), dtype=np.bool_),
    )


def word_tokenizer(words: int) -> str:
    """Return a ``tokenizer.json``: the four special tokens and ``w4``, ``w5``, …, by word."""
    vocabulary = {name: number for number, name in enumerate(SPECIAL_TOKENS)}
    vocabulary |= {f"w{number}": number for number in range(4, 4 + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w4"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return str(tokenizer.to_str(pretty=True))


def file_record(path: Path) -> FileRecord:
    """Describe a file as a manifest does."""
    return FileRecord(path.name, path.stat().st_size, sha256_file(path))


def _write_unit(
    folder: Path,
    number: int,
    rows: Sequence[RowIds],
    first_line: int,
    stage: str,
    vocab_size: int,
    options: dict[str, Any],
) -> ShardRecord:
    columns = build(to_segments(rows, stage), SPECIAL, keep_targets=stage == "pretrain", **options)
    source = "rows.txt"
    lines = range(first_line, first_line + len(rows))
    origins = [Origin(source, line, line * 10) for line in lines]
    schema = shard_schema(vocab_size - 1)
    name = f"shard-{number:05d}"
    batch = to_batch(columns, Origins.of(origins, [source]), [source], schema)
    file = write_shard(folder / f"{name}.arrow", schema, [batch])
    left_out = Excluded(Origin(source, 1_000 + number, None), "rejected", "empty", "no text")
    rejects = write_excluded(folder / f"{name}.rejects.jsonl", [left_out])
    ledger = Ledger(read=len(rows) + 1, kept=len(rows))
    ledger.exclude("rejected", "empty")
    return ShardRecord(
        file,
        len(rows),
        len(columns.input),
        int(columns.loss_mask.sum()),
        int(columns.lengths.max(initial=0)),
        rejects,
        ledger,
    )


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """Return ``make(folder, rows, stage="finetune", shard_rows=…, words=…)`` → the folder.

    A row is its segments' token ids, from 4 on: ``[[5, 6, 7]]`` for a document,
    ``[[5, 6], [7, 8]]`` for a request and its response. ``words`` is the vocabulary beside the
    special tokens; further options go to ``vnprep.examples.build``.
    """

    def make(
        folder: Path,
        rows: Sequence[RowIds],
        stage: str = "finetune",
        *,
        shard_rows: int = 1_000,
        words: int = 96,
        **options: Any,
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        text = word_tokenizer(words)
        (folder / TOKENIZER_NAME).write_text(text, encoding="utf-8")
        tokenizer = parse_tokenizer(text)
        starts = range(0, len(rows), shard_rows)
        shards = [
            _write_unit(
                folder, number, rows[at : at + shard_rows], at + 1, stage, words + 4, options
            )
            for number, at in enumerate(starts)
        ]
        Manifest(
            stage="finetune" if stage == "finetune" else "pretrain",
            config={"eos_loss": options.get("eos_loss", True)},
            inputs=(write_inputs(folder / inputs_name(0), [FileRecord("rows.txt", 0, "0" * 64)]),),
            tokenizer=TokenizerRecord(
                tokenizer.fingerprint, tokenizer.vocab_size, SPECIAL, "tokenizers"
            ),
            tokenizer_file=file_record(folder / TOKENIZER_NAME),
            shards=tuple(shards),
        ).write(folder)
        return folder

    return make


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def vnprep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return ``run(*arguments)``."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["vnprep", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        else:
            code = 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def write_word_tokenizer(path: Path, *texts: str) -> Path:
    """Write a tokenizer that knows the words of some texts; the seed counts tokens so."""
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))
    return path


@pytest.fixture
def word_level() -> Callable[..., Path]:
    """Return ``write(path, *texts)`` → a word-level tokenizer.json."""
    return write_word_tokenizer


@pytest.fixture(scope="session")
def bpe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small ByteLevel BPE tokenizer.json."""
    texts = ["Bật quạt phòng ngủ lên mức 2", "Đã bật quạt phòng ngủ", "Trời hôm nay nóng quá"] * 4
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(to_text(train_tokenizer(texts, 320)), encoding="utf-8")
    return path
