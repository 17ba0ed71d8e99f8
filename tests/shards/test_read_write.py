"""Shards: what is written comes back, and no damage gets through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vnprep.errors import ShardError
from vnprep.examples import Columns
from vnprep.shards.ledger import Excluded
from vnprep.shards.manifest import Manifest
from vnprep.shards.read import Check, ShardSet
from vnprep.shards.schema import Origin, Origins, id_type, shard_schema, to_batch
from vnprep.shards.write import write_excluded, write_shard

MakeData = Callable[..., Path]

ROWS = [[[10 + n, 11 + n], [20 + n] * (1 + n % 3)] for n in range(12)]


@pytest.fixture
def folder(make_data: MakeData, tmp_path: Path) -> Path:
    """Give twelve pairs in three shards; their files of rejects are of one size."""
    return make_data(tmp_path / "data", ROWS, shard_rows=4)


def columns(lengths: list[int], largest: int = 99) -> Columns:
    offsets = np.cumsum([0, *lengths])
    ids = np.arange(offsets[-1]) % (largest + 1)
    return Columns(ids, ids[::-1].copy(), (ids % 2).astype(np.uint8), offsets)


def test_rows_come_back_in_order_with_their_origin(folder: Path) -> None:
    shards = ShardSet.open(folder)
    assert len(shards) == 12 == shards.manifest.rows
    for number, (row, (request, response)) in enumerate(zip(shards, ROWS, strict=True)):
        assert row.input.tolist() == [1, *request, 3, *response]
        assert row.target.tolist() == [0] * 3 + [*response, 2]
        assert row.loss_mask.tolist() == [0] * 3 + [1] * (len(response) + 1)
        assert row.origin == Origin("rows.txt", number + 1, (number + 1) * 10)
        for left, right in zip(
            shards.arrays(number), (row.input, row.target, row.loss_mask), strict=True
        ):
            assert np.array_equal(left, right)
    lengths = [4 + len(response) for _, response in ROWS]
    assert shards.lengths.tolist() == lengths and shards.lengths.dtype == np.int64
    assert shards.manifest.longest_row == max(lengths)
    assert shards.tokenizer_path == folder / "tokenizer.json"


def test_row_numbers_are_those_of_a_list(folder: Path) -> None:
    shards = ShardSet.open(folder)
    assert shards[-1].origin == shards[11].origin
    assert shards[-12].origin == shards[0].origin
    for number in (12, -13):
        with pytest.raises(IndexError, match=f"row {number} of 12"):
            shards[number]
        with pytest.raises(IndexError):
            shards.arrays(number)


def test_rows_are_views_that_cannot_be_written(folder: Path) -> None:
    tokens, _, _ = ShardSet.open(folder).arrays(0)
    assert not tokens.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 5


def test_opening_says_how_far_it_is(folder: Path) -> None:
    sizes: list[int] = []
    shards = ShardSet.open(folder, progress=sizes.append)
    assert sizes == [record.bytes for record in shards.manifest.files]
    names = {record.name for record in shards.manifest.files} | {"manifest.json"}
    assert {path.name for path in folder.iterdir()} == names


def test_no_shards(make_data: MakeData, tmp_path: Path) -> None:
    shards = ShardSet.open(make_data(tmp_path, []))
    assert len(shards) == 0 and shards.lengths.tolist() == []


def damaged(path: Path) -> Iterator[bytes]:
    """Give the file with one byte changed: at 90 places, and in its last byte."""
    good = path.read_bytes()
    for place in sorted({*range(0, len(good), max(1, len(good) // 90)), len(good) - 1}):
        yield good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :]


NAMES = ["shard-00001.arrow", "shard-00001.rejects.jsonl", "tokenizer.json"]


@pytest.mark.parametrize("name", [*NAMES, "manifest.json"])
def test_any_changed_byte_is_found_and_its_file_named(folder: Path, name: str) -> None:
    path = folder / name
    good = path.read_bytes()
    tried = 0
    for bad in damaged(path):
        path.write_bytes(bad)
        with pytest.raises(ShardError) as caught:
            ShardSet.open(folder, check="full")
        assert caught.value.place == str(path)
        assert caught.value.remedy
        tried += 1
    assert tried >= min(90, len(good))
    path.write_bytes(good)
    assert len(ShardSet.open(folder)) == 12


@pytest.mark.parametrize("check", ["full", "sizes"])
@pytest.mark.parametrize("name", NAMES)
def test_a_cut_a_longer_and_a_missing_file_are_found(folder: Path, name: str, check: Check) -> None:
    path = folder / name
    good = path.read_bytes()
    for bad in (b"", good[: len(good) // 2], good[:-1], good + b"\0", None):
        path.unlink()
        if bad is not None:
            path.write_bytes(bad)
        with pytest.raises(ShardError, match="missing" if bad is None else "bytes") as caught:
            ShardSet.open(folder, check=check)
        assert caught.value.place == str(path)
        path.write_bytes(good)


def test_swapped_files_are_found(folder: Path) -> None:
    one, other = folder / "shard-00000.rejects.jsonl", folder / "shard-00002.rejects.jsonl"
    assert one.stat().st_size == other.stat().st_size
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    with pytest.raises(ShardError, match="bytes changed") as caught:
        ShardSet.open(folder)
    assert caught.value.place == str(one)


def test_a_folder_in_a_files_place_is_a_missing_file(folder: Path) -> None:
    path = folder / NAMES[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(ShardError, match="missing"):
        ShardSet.open(folder)


def test_damage_that_only_sizes_are_checked_for_ends_in_a_typed_error(folder: Path) -> None:
    """Unhashed damage may pass for data, but must not raise anything else or end the process."""
    path = folder / NAMES[0]
    opened = 0
    for bad in damaged(path):
        path.write_bytes(bad)
        try:
            shards = ShardSet.open(folder, check="sizes")
        except ShardError as error:
            assert error.place == str(path) and error.remedy
        else:
            opened += 1
            assert len([row for row in shards if row.input.ndim == 1]) == 12
    assert opened  # which is why the full check is the default


def test_a_shard_of_another_shape_is_refused(folder: Path) -> None:
    """A file whose hash the manifest has, but which is no shard, gets no further either."""
    path = folder / NAMES[0]
    manifest = Manifest.read(folder)
    table = pa.ipc.open_file(path).read_all()
    target = table.schema.field("target")
    for other, cause in (
        (table.drop_columns("line"), "columns"),
        (table.slice(1), "rows"),
        (table.set_column(1, target, table["target"].take([1, 0, 2, 3])), "differ in length"),
    ):
        with pa.ipc.new_file(path, other.schema) as writer:
            writer.write_table(other)
        with pytest.raises(ShardError, match=cause) as caught:
            ShardSet(folder, manifest)
        assert caught.value.place == str(path)
        assert caught.value.remedy


def test_the_id_type_follows_the_largest_id() -> None:
    assert id_type(65_535) == pa.uint16()
    assert id_type(65_536) == pa.int32()


@pytest.mark.parametrize("largest", [65_535, 65_536, 2**31 - 1])
def test_the_largest_id_comes_back(tmp_path: Path, largest: int) -> None:
    schema = shard_schema(largest)
    ids = np.array([0, largest])
    made = Columns(ids, ids[::-1].copy(), np.array([0, 1], dtype=np.uint8), np.array([0, 2]))
    batch = to_batch(made, Origins.of([Origin("a", 1, None)], ["a"]), ["a"], schema)
    write_shard(tmp_path / "x.arrow", schema, [batch])
    read = pa.ipc.open_file(tmp_path / "x.arrow").read_all()
    assert read.schema == schema
    assert read["input"].to_pylist() == [[0, largest]]
    assert read["target"].to_pylist() == [[largest, 0]]
    assert read["byte_offset"].to_pylist() == [None]


@pytest.mark.parametrize(("largest", "bad"), [(99, 65_536), (99, -1), (65_536, 2**31)])
def test_an_id_beyond_the_schema_never_wraps(largest: int, bad: int) -> None:
    ids = np.array([bad])
    made = Columns(ids, ids, np.ones(1, dtype=np.uint8), np.array([0, 1]))
    with pytest.raises(pa.ArrowInvalid):
        to_batch(made, Origins.of([Origin("a", 1, 0)], ["a"]), ["a"], shard_schema(largest))


def test_batches_and_sources_of_one_shard(tmp_path: Path) -> None:
    schema = shard_schema(99)
    sources = ["một.txt", "hai.txt"]
    batches = [
        to_batch(columns(lengths), Origins.of(origins, sources), sources, schema)
        for lengths, origins in (
            ([3, 0, 2], [Origin("hai.txt", n, n) for n in (1, 2, 3)]),
            ([], []),
            ([4], [Origin("một.txt", 9, None)]),
        )
    ]
    record = write_shard(tmp_path / "x.arrow", schema, batches)
    assert record.name == "x.arrow" and record.bytes == (tmp_path / "x.arrow").stat().st_size
    read = pa.ipc.open_file(tmp_path / "x.arrow")
    assert read.num_record_batches == 3
    table = read.read_all()
    table.validate(full=True)
    assert table["source"].to_pylist() == ["hai.txt"] * 3 + ["một.txt"]
    assert table["input"].to_pylist() == [[0, 1, 2], [], [3, 4], [0, 1, 2, 3]]


def test_the_same_rows_are_the_same_bytes(make_data: MakeData, tmp_path: Path) -> None:
    one, other = (make_data(tmp_path / name, ROWS, shard_rows=5) for name in ("one", "other"))
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    schema = shard_schema(99)

    def batches() -> Iterator[pa.RecordBatch]:
        yield to_batch(columns([3]), Origins.of([Origin("a", 1, 0)], ["a"]), ["a"], schema)
        raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_shard(tmp_path / "x.arrow", schema, batches())
    assert list(tmp_path.iterdir()) == []


def test_the_rejects_file(tmp_path: Path) -> None:
    path = tmp_path / "x.rejects.jsonl"
    left_out = [
        Excluded(Origin("thư.tsv", 7, 120), "rejected", "ragged", "3 cells", "một\thai\u2028ba"),
        Excluded(Origin("thư.tsv", 9, None), "dropped", "too_long"),
        Excluded(Origin("a.jsonl", 1, 0), "rejected", "surrogate", excerpt="lẻ \ud800 loi"),
    ]
    record = write_excluded(path, left_out)
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert record.bytes == path.stat().st_size
    read = [json.loads(line) for line in lines]
    assert read == [one.to_json() for one in left_out]
    assert read[0] == {
        "source": "thư.tsv",
        "line": 7,
        "byte_offset": 120,
        "outcome": "rejected",
        "reason": "ragged",
        "detail": "3 cells",
        "excerpt": "một\thai\u2028ba",
    }
