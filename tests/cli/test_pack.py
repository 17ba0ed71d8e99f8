"""``vnprep pack`` as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vnprep.loading.loader import PackedLoader
from vnprep.shards.read import ShardSet


@pytest.fixture
def data(make_data: Callable[..., Path], tmp_path: Path) -> Path:
    """Give 40 documents of 4 to 23 positions."""
    return make_data(tmp_path / "pre", [[[10] * (2 + n % 20)] for n in range(40)], "pretrain")


def test_pack_then_verify_then_load(vnprep: Callable[..., Any], data: Path) -> None:
    result = vnprep("pack", data, "--seq-len", 16)
    assert (result.code, result.out) == (0, "")
    for figure in ("rows", "packed rows", "fill", "tokens", "pack-16.arrow", "rows/s"):
        assert figure in result.err
    assert PackedLoader(ShardSet.open(data), seq_len=16, micro_batch=1).indexed
    assert vnprep("verify", data).code == 0


def test_json_holds_the_figures(vnprep: Callable[..., Any], data: Path) -> None:
    figures = json.loads(vnprep("pack", data, "--seq-len", 16, "--json").out)
    loader = PackedLoader(ShardSet.open(data), seq_len=16, micro_batch=1)
    assert (figures["seq_len"], figures["rows"]) == (16, 40)
    assert (figures["packed_rows"], figures["fill"]) == (loader.packed_rows, loader.fill)
    assert figures["tokens"] == sum(3 + n % 20 for n in range(40))
    assert figures["file"]["bytes"] == (data / figures["file"]["name"]).stat().st_size


def test_another_length_stands_beside_the_first(vnprep: Callable[..., Any], data: Path) -> None:
    for seq_len in (16, 32, 16):
        assert vnprep("pack", data, "--seq-len", seq_len, "--data-check", "sizes").code == 0
    assert sorted(path.name for path in data.glob("pack-*")) == [
        "pack-16.arrow",
        "pack-16.json",
        "pack-32.arrow",
        "pack-32.json",
    ]


def test_a_damaged_data_set_is_not_packed(vnprep: Callable[..., Any], data: Path) -> None:
    path = data / "shard-00000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    result = vnprep("pack", data, "--seq-len", 16)
    assert result.code == 1 and "its bytes changed" in result.err
    assert not list(data.glob("pack-*"))


def test_fine_tuning_rows_that_are_too_long_are_refused(
    vnprep: Callable[..., Any], make_data: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_data(tmp_path / "ft", [[[10], [20] * 30]])
    result = vnprep("pack", data, "--seq-len", 16)
    assert result.code == 1
    assert "1 rows are longer than seq_len 16 (the longest has 33 positions" in result.err
    assert not list(data.glob("pack-*"))


def test_a_folder_without_a_data_set(vnprep: Callable[..., Any], tmp_path: Path) -> None:
    result = vnprep("pack", tmp_path, "--seq-len", 16)
    assert result.code == 1 and "no manifest.json here" in result.err


def test_the_length_is_asked_for(vnprep: Callable[..., Any], data: Path) -> None:
    assert vnprep("pack", data).code == 2
    assert vnprep("pack", data, "--seq-len", 0).code == 2
