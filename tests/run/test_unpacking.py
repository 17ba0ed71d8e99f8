"""A large compressed file is shared like any other, and leaves nothing behind."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from vnprep.config import PrepareConfig, ReadOptions
from vnprep.errors import InputError
from vnprep.run.estimate import estimate
from vnprep.run.prepare import prepare
from vnprep.shards.read import ShardSet
from vnprep.sources.plan import find_inputs, make_plan
from vnprep.sources.unpacking import NOWHERE
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer

CONFIG = PrepareConfig("pretrain", ReadOptions("text", text_split="line"), unit_bytes=4_000)


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as packed:
        packed.write(data)
    return out.getvalue().to_pybytes()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


@pytest.fixture
def tokenizer(bpe_path: Path) -> LoadedTokenizer:
    return load_tokenizer(bpe_path)


@pytest.fixture
def text() -> bytes:
    lines = [f"Bật quạt số {number * 7919 % 1000} trong phòng {number}" for number in range(600)]
    lines[30] = ""
    return "\n".join(lines).encode() + b"\n\xff\n"


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("workers", [1, 2])
def test_packed_or_not_the_rows_are_the_same(
    tmp_path: Path, tokenizer: LoadedTokenizer, text: bytes, ending: str, workers: int
) -> None:
    (tmp_path / "a.txt").write_bytes(text)
    packed = tmp_path / f"a.txt.{ending}"
    packed.write_bytes(PACKERS[ending](text))
    plain = prepare([str(tmp_path / "a.txt")], tmp_path / "plain", CONFIG, tokenizer).manifest
    out = tmp_path / "out"
    manifest = prepare([str(packed)], out, CONFIG, tokenizer, workers=workers).manifest
    assert len(manifest.shards) == len(plain.shards) > 3
    assert manifest.ledger == plain.ledger
    one, two = ShardSet.open(tmp_path / "plain"), ShardSet.open(out)
    for left, right in zip(one, two, strict=True):
        assert left.input.tolist() == right.input.tolist()
        assert (left.origin.line, left.origin.byte_offset) == (
            right.origin.line,
            right.origin.byte_offset,
        )
        assert right.origin.source == packed.as_posix()
    assert not (out / ".work").exists()
    assert estimate([str(packed)], tmp_path / "no", CONFIG, tokenizer).shards == len(plain.shards)
    assert not (tmp_path / "no").exists()


def test_a_small_one_is_read_as_it_is(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(text))
    folder = tmp_path / "unpacked"
    plan = make_plan(find_inputs([str(path)], None), CONFIG.read, 1 << 20, unpacked=folder)
    assert [piece.input.compressed for unit in plan.units for piece in unit.pieces] == [True]
    assert not folder.exists()


def test_counting_alone_writes_nothing(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(text))
    inputs = find_inputs([str(path)], None)
    counted = make_plan(inputs, CONFIG.read, 4_000, unpacked=NOWHERE)
    unpacked = make_plan(inputs, CONFIG.read, 4_000, unpacked=tmp_path / "unpacked")
    assert len(counted.units) == len(unpacked.units) > 3
    assert [unit.bytes for unit in counted.units] == [unit.bytes for unit in unpacked.units]


def test_a_damaged_one_is_refused_before_anything_is_made(
    tmp_path: Path, tokenizer: LoadedTokenizer, text: bytes
) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(text)[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        prepare([str(path)], tmp_path / "out", CONFIG, tokenizer)
    assert not (tmp_path / "out").exists()


def test_append_cuts_what_is_new(tmp_path: Path, tokenizer: LoadedTokenizer, text: bytes) -> None:
    one, two = tmp_path / "a.txt.gz", tmp_path / "b.txt.gz"
    one.write_bytes(gzip.compress(text))
    two.write_bytes(gzip.compress(text.replace("Bật".encode(), "Tắt".encode())))
    out = tmp_path / "out"
    first = prepare([str(one)], out, CONFIG, tokenizer).manifest
    both = prepare([str(one), str(two)], out, CONFIG, tokenizer, mode="append").manifest
    assert len(both.shards) == 2 * len(first.shards)
    again = prepare([str(two)], out, CONFIG, tokenizer, mode="append")
    assert again.done_now == 0 and again.skipped == 1
    assert not (out / ".work").exists()
