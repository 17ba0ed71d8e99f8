"""What inspect shows, and that verify finds any changed byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vnprep.audit.inspect import row_view
from vnprep.audit.pieces import Pieces
from vnprep.audit.verify import verify
from vnprep.shards.read import ShardSet
from vnprep.tokenizer.load import load_tokenizer

MakeData = Callable[..., Path]


def test_pieces_are_readable(bpe_path: Path) -> None:
    loaded = load_tokenizer(bpe_path)
    pieces = Pieces(loaded)
    ids = loaded.backend.encode("Bật\n ỷ", add_special_tokens=False).ids
    shown = [pieces.piece(token) for token in ids]
    assert "⏎" in "".join(shown)
    assert any(piece.startswith("<E1") for piece in shown), "bytes of a letter it never saw"
    assert pieces.piece(2) == "[EOS]"
    assert pieces.piece(10**6) == "<no token 1000000>"
    assert pieces.text([1, *ids, 2]) == "[BOS] Bật\n ỷ [EOS]"


def test_a_row_shows_every_position_and_what_carries_loss(
    make_data: MakeData, tmp_path: Path
) -> None:
    shards = ShardSet.open(make_data(tmp_path / "d", [[[5, 6], [7, 8]]]))
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(row_view(0, shards[0], Pieces(shards.tokenizer())))
    text = capture.get()
    assert "rows.txt:1" in text
    assert "6 positions, loss on 3" in text
    table = [line.split() for line in text.splitlines() if line[:3].strip().isdigit()]
    assert table == [
        ["0", "[BOS]", "[PAD]", "-"],
        ["1", "w5", "[PAD]", "-"],
        ["2", "w6", "[PAD]", "-"],
        ["3", "[SEP]", "w7", "●"],
        ["4", "w7", "w8", "●"],
        ["5", "w8", "[EOS]", "●"],
    ]


def test_of_a_long_row_the_beginning_and_the_end_are_shown(
    make_data: MakeData, tmp_path: Path, vnprep: Any
) -> None:
    folder = make_data(tmp_path / "d", [[[5] * 3_000 + [6]]], stage="pretrain")
    shown = vnprep("inspect", folder, "--max-positions", 10).out
    assert "2,992 positions not shown" in shown
    numbers = [line.split()[0] for line in shown.splitlines() if line[:5].strip().isdigit()]
    assert numbers == [*map(str, range(5)), *map(str, range(2997, 3002))]
    assert "3001" in vnprep("inspect", folder, "--max-positions", 0).out


@pytest.fixture
def folder(make_data: MakeData, tmp_path: Path) -> Path:
    return make_data(tmp_path / "d", [[[5, 6], [7, 8]]] * 6, shard_rows=3)


def test_verify_passes_what_is_whole(folder: Path) -> None:
    assert verify(folder) == []


@pytest.mark.parametrize(
    "name",
    ["shard-00000.arrow", "shard-00001.arrow", "shard-00000.rejects.jsonl", "tokenizer.json"],
)
def test_verify_finds_any_changed_byte(folder: Path, name: str) -> None:
    path = folder / name
    original = path.read_bytes()
    for place in range(0, len(original), max(1, len(original) // 25)):
        changed = bytearray(original)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        assert [problem.file for problem in verify(folder)] == [name]
    path.write_bytes(original[:-1])
    assert [problem.file for problem in verify(folder)] == [name]
    path.unlink()
    assert [problem.what for problem in verify(folder)] == ["missing"]
    path.write_bytes(original)
    assert verify(folder) == []


def test_verify_finds_swapped_and_extra_shards(folder: Path) -> None:
    one, two = folder / "shard-00000.arrow", folder / "shard-00001.arrow"
    first, second = one.read_bytes(), two.read_bytes()
    assert first != second
    one.write_bytes(second)
    two.write_bytes(first)
    assert {problem.file for problem in verify(folder)} == {one.name, two.name}
    one.write_bytes(first)
    two.write_bytes(second)
    (folder / "shard-00002.arrow").write_bytes(second)
    assert [problem.what for problem in verify(folder)] == ["not in the manifest"]


def test_every_field_of_the_manifest_is_guarded(folder: Path, vnprep: Any) -> None:
    path = folder / "manifest.json"
    text = path.read_text(encoding="utf-8")
    original = json.loads(text)
    for field in original:
        changed = dict(original)
        changed[field] = "other"
        path.write_text(json.dumps(changed), encoding="utf-8")
        assert vnprep("verify", folder).code == 1, field
    path.write_text(text, encoding="utf-8")
    result = vnprep("verify", folder, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out) == {"ok": True, "problems": [], "unfinished_run": False}
