"""The manifest: what it says comes back, and nothing in it can change unseen."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from vnprep.durable import canonical_json, readable_json, sha256_text
from vnprep.errors import ShardError
from vnprep.shards.ledger import Ledger
from vnprep.shards.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Inputs,
    Manifest,
    ShardRecord,
    TokenizerRecord,
)
from vnprep.tokenizer.special import SpecialIds


def shard(number: int, rows: int, rejects: bool) -> ShardRecord:
    return ShardRecord(
        FileRecord(f"shard-{number:05d}.arrow", 1000 + number, "a" * 64),
        rows=rows,
        tokens=rows * 10,
        supervised_tokens=rows * 4,
        longest_row=20 + number,
        rejects=FileRecord(f"shard-{number:05d}.rejects.jsonl", 90, "b" * 64) if rejects else None,
        ledger=Ledger(
            read=rows + 3,
            kept=rows,
            dropped=Counter({"too_long": 1}),
            rejected=Counter({"empty": 2}),
            noted=Counter({"nfc": number}),
        ),
    )


MANIFEST = Manifest(
    stage="finetune",
    config={"eos_loss": True, "text_field": "câu hỏi", "truncation": "drop", "limit": None},
    inputs=(Inputs(FileRecord("inputs-00000.jsonl", 90, "c" * 64), 1, 12),),
    tokenizer=TokenizerRecord("d" * 64, 16_000, SpecialIds(0, 1, 2, 3), "gigatoken"),
    tokenizer_file=FileRecord("tokenizer.json", 55, "e" * 64),
    shards=(shard(0, 5, True), shard(1, 7, False)),
)


def sealed(body: dict[str, Any]) -> str:
    """Write a manifest's text with a hash that fits, whatever it says."""
    return readable_json(body | {"manifest_sha256": sha256_text(canonical_json(body))})


def body(folder: Path) -> dict[str, Any]:
    MANIFEST.write(folder)
    content: dict[str, Any] = json.loads((folder / MANIFEST_NAME).read_bytes())
    del content["manifest_sha256"]
    return content


def test_what_is_written_is_read(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]
    text = (tmp_path / MANIFEST_NAME).read_text(encoding="utf-8")
    assert "câu hỏi" in text and text.endswith("}\n")
    assert sealed(body(tmp_path)) == text


def test_totals() -> None:
    assert (MANIFEST.rows, MANIFEST.tokens, MANIFEST.supervised_tokens) == (12, 120, 48)
    assert MANIFEST.longest_row == 21
    ledger = MANIFEST.ledger
    assert (ledger.read, ledger.kept, ledger.closes) == (18, 12, True)
    assert ledger.dropped == {"too_long": 2} and ledger.rejected == {"empty": 4}
    assert [record.name for record in MANIFEST.files] == [
        "tokenizer.json",
        "inputs-00000.jsonl",
        "shard-00000.arrow",
        "shard-00001.arrow",
        "shard-00000.rejects.jsonl",
    ]
    empty = replace(MANIFEST, shards=())
    assert (empty.rows, empty.tokens, empty.longest_row, empty.ledger.closes) == (0, 0, 0, True)


def test_the_totals_stand_in_the_file_for_people(tmp_path: Path) -> None:
    totals = body(tmp_path)["totals"]
    assert (totals["rows"], totals["tokens"], totals["ledger"]["read"]) == (12, 120, 18)


def test_a_ledger_that_does_not_add_up() -> None:
    ledger = Ledger(read=3, kept=1)
    ledger.exclude("dropped", "too_long")
    assert not ledger.closes
    ledger.exclude("rejected", "empty")
    assert ledger.closes
    assert Ledger.from_json(json.loads(json.dumps(ledger.to_json()))) == ledger


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, shards=MANIFEST.shards[:1])
    manifest.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    good = path.read_bytes()
    for place, value in enumerate(good):
        # White space for white space is the change that a hash over the parsed content misses.
        bad = ord("\t") if value == ord(" ") and place % 2 else value ^ (1 << place % 8)
        path.write_bytes(good[:place] + bytes([bad]) + good[place + 1 :])
        with pytest.raises(ShardError) as caught:
            Manifest.read(tmp_path)
        assert caught.value.place == str(path)
        assert caught.value.remedy
    path.write_bytes(good)
    assert Manifest.read(tmp_path) == manifest


def test_every_truncation_is_found(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    good = path.read_bytes()
    for size in [*range(0, len(good), 17), len(good) - 1]:
        path.write_bytes(good[:size])
        with pytest.raises(ShardError):
            Manifest.read(tmp_path)


def test_a_repeated_key_cannot_hide_a_value(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"stage":', '"stage": "pretrain",\n  "stage":'), encoding="utf-8")
    with pytest.raises(ShardError, match="changed after it was written"):
        Manifest.read(tmp_path)


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ShardError, match="no finished data set") as caught:
            Manifest.read(folder)
        assert caught.value.place == str(folder)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"format": "other"}, "not a vnprep manifest"),
        ({"format_version": 1}, "format version 1; this vnprep reads 2"),
        ({"shards": [{"file": {}}]}, "cannot be read"),
        ({"inputs": [{"name": "a", "bytes": 1, "sha256": "x"}]}, "cannot be read"),
        ({"more": 1}, "it says more"),
        ({"totals": {}}, "its totals are not those of its shards"),
        ({"tokenizer": None}, "cannot be read"),
    ],
)
def test_another_format_is_named(tmp_path: Path, change: dict[str, Any], cause: str) -> None:
    text = sealed(body(tmp_path) | change)
    (tmp_path / MANIFEST_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(ShardError, match=cause):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"{", b'{"a": NaN}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ShardError):
        Manifest.read(tmp_path)


def test_a_file_record_is_plain_json() -> None:
    assert asdict(FileRecord("a", 1, "b")) == {"name": "a", "bytes": 1, "sha256": "b"}
