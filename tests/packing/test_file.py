"""The index beside the shards: found, passed over when stale, refused when damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vnprep.audit.verify import verify
from vnprep.durable import canonical_json, readable_json, sha256_text
from vnprep.errors import ShardError, TrainingError
from vnprep.loading.loader import PackedLoader
from vnprep.packing.file import find_pack, pack_shards, write_pack
from vnprep.packing.index import PackIndex
from vnprep.shards.folder import is_own
from vnprep.shards.read import ShardSet

MakeData = Callable[..., Path]


@pytest.fixture
def shards(make_data: MakeData, tmp_path: Path) -> ShardSet:
    """Give 60 documents of 3 to 32 positions over nine shards."""
    lengths = np.random.default_rng(3).integers(1, 31, 60).tolist()
    rows = [[[4 + length] * length] for length in lengths]
    return ShardSet.open(make_data(tmp_path / "data", rows, "pretrain", shard_rows=7))


def pack(shards: ShardSet, seq_len: int) -> None:
    write_pack(shards, pack_shards(shards, seq_len))


def same(left: PackIndex, right: PackIndex) -> bool:
    names = ("offsets", "row", "start", "length")
    return left.seq_len == right.seq_len and all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in names
    )


def test_what_is_written_is_found(shards: ShardSet) -> None:
    index = pack_shards(shards, 16)
    written = write_pack(shards, index)
    found = find_pack(shards.folder, 16)
    assert found is not None
    record, mapped = found
    assert record == written and same(mapped, index)
    assert (record.packed_rows, record.windows) == (len(index), len(index.row))
    assert record.tokens == shards.manifest.tokens
    assert record.fill == index.fill > 0.95
    assert verify(shards.folder) == []


def test_the_same_rows_and_length_give_the_same_bytes(shards: ShardSet) -> None:
    def content() -> list[bytes]:
        return [path.read_bytes() for path in sorted(shards.folder.glob("pack-16.*"))]

    pack(shards, 16)
    first = content()
    pack(shards, 16)
    assert content() == first and len(first) == 2


def test_two_at_once_write_one_index(shards: ShardSet) -> None:
    index = pack_shards(shards, 16)
    with ThreadPoolExecutor(8) as threads:
        records = list(threads.map(lambda _: write_pack(shards, index), range(40)))
    assert all(record == records[0] for record in records)
    assert verify(shards.folder) == []


def test_several_lengths_stand_side_by_side(shards: ShardSet) -> None:
    for seq_len in (8, 16, 40):
        pack(shards, seq_len)
    for seq_len in (8, 16, 40):
        found = find_pack(shards.folder, seq_len)
        assert found is not None and same(found[1], pack_shards(shards, seq_len))
    assert find_pack(shards.folder, 12) is None
    assert verify(shards.folder) == []


@pytest.mark.parametrize("seq_len", [5, 16, 64])
def test_batches_are_the_same_with_and_without_an_index(shards: ShardSet, seq_len: int) -> None:
    without = PackedLoader(shards, seq_len=seq_len, micro_batch=2, seed=4)
    pack(shards, seq_len)
    with_index = PackedLoader(shards, seq_len=seq_len, micro_batch=2, seed=4)
    assert (without.indexed, with_index.indexed) == (False, True)
    assert without.packed_rows == with_index.packed_rows and without.fill == with_index.fill
    for step in range(2 * without.steps_per_epoch):
        (one,), (other,) = without.step(step), with_index.step(step)
        assert one.sample_ids == other.sample_ids
        assert np.array_equal(one.input_ids, other.input_ids)
        assert np.array_equal(one.labels, other.labels)


def test_an_index_for_another_manifest_is_passed_over_and_verify_says_so(
    shards: ShardSet,
) -> None:
    pack(shards, 16)
    replace(shards.manifest, config={"eos_loss": False}).write(shards.folder)
    assert find_pack(shards.folder, 16) is None
    assert not PackedLoader(shards, seq_len=16, micro_batch=1).indexed
    (problem,) = verify(shards.folder)
    assert problem.file == "pack-16.json" and "another manifest" in problem.what
    pack(shards, 16)
    assert verify(shards.folder) == []


@pytest.mark.parametrize("name", ["pack-16.arrow", "pack-16.json"])
def test_no_byte_can_change_unseen(shards: ShardSet, name: str) -> None:
    pack(shards, 16)
    path = shards.folder / name
    content = path.read_bytes()
    places = range(0, len(content), 1 if name.endswith("json") else 7)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        # A changed hash of the manifest, under a hash that fits, would be a stale index; it
        # does not fit here, so that is found, too.
        with pytest.raises(ShardError) as caught:
            find_pack(shards.folder, 16)
        assert caught.value.place == str(path) and "vnprep pack" in caught.value.remedy
    (problem,) = verify(shards.folder)
    assert problem.file == name


@pytest.mark.parametrize("length", [0, 8, 100, -1])
def test_a_file_that_was_cut_is_refused(shards: ShardSet, length: int) -> None:
    pack(shards, 16)
    for path in shards.folder.glob("pack-16.*"):
        content = path.read_bytes()
        path.write_bytes(content[:length])
        with pytest.raises(ShardError, match="the pack index is damaged"):
            PackedLoader(shards, seq_len=16, micro_batch=1)
        path.write_bytes(content)


def test_an_index_without_its_record_is_none(shards: ShardSet) -> None:
    """The record is written last: without it, the writing was cut short."""
    pack(shards, 16)
    (shards.folder / "pack-16.json").unlink()
    assert find_pack(shards.folder, 16) is None
    (problem,) = verify(shards.folder)
    assert (problem.file, "record" in problem.what) == ("pack-16.arrow", True)


def test_writing_again_that_is_cut_short_leaves_none(shards: ShardSet) -> None:
    """The old record goes first: it would call the new index damaged."""
    write_pack(shards, PackIndex.alone(shards.lengths, 16))
    in_the_way = shards.folder / f"pack-16.json.{os.getpid()}.tmp"
    in_the_way.mkdir()
    with pytest.raises(OSError):
        pack(shards, 16)
    assert find_pack(shards.folder, 16) is None
    in_the_way.rmdir()
    pack(shards, 16)
    assert verify(shards.folder) == []


def test_a_record_without_its_index_is_damage(shards: ShardSet) -> None:
    pack(shards, 16)
    (shards.folder / "pack-16.arrow").unlink()
    with pytest.raises(ShardError, match="missing"):
        find_pack(shards.folder, 16)
    assert [problem.what for problem in verify(shards.folder)] == [
        "the pack index is damaged: missing"
    ]


def test_an_index_under_the_name_of_another_length_is_refused(shards: ShardSet) -> None:
    pack(shards, 16)
    for ending in ("json", "arrow"):
        (shards.folder / f"pack-16.{ending}").rename(shards.folder / f"pack-32.{ending}")
    with pytest.raises(ShardError, match="made for seq_len 16"):
        find_pack(shards.folder, 32)


def test_another_format_version_is_refused(shards: ShardSet) -> None:
    pack(shards, 16)
    path = shards.folder / "pack-16.json"
    body = json.loads(path.read_bytes())
    del body["record_sha256"]
    body["format_version"] = 99
    body["record_sha256"] = sha256_text(canonical_json(body))
    path.write_text(readable_json(body), encoding="utf-8")
    with pytest.raises(ShardError, match="another version"):
        find_pack(shards.folder, 16)


def sealed_wrongly(shards: ShardSet, index: PackIndex) -> list[str]:
    """Write an index that is whole, but not that of the rows; return what verify says."""
    write_pack(shards, index)
    return [problem.what for problem in verify(shards.folder)]


def test_verify_finds_an_index_that_is_whole_but_wrong(shards: ShardSet) -> None:
    right = pack_shards(shards, 16)
    twice = right.row.copy()
    twice[0] = twice[1]
    assert sealed_wrongly(shards, replace(right, row=twice)) == [
        "its windows are not those of the rows"
    ]
    one_row = np.array([0, len(right.row)])
    (what,) = sealed_wrongly(shards, replace(right, offsets=one_row))
    assert what == f"a packed row of {shards.manifest.tokens:,} positions"
    fewer = replace(right, row=right.row[:-1], start=right.start[:-1], length=right.length[:-1])
    offsets = np.minimum(right.offsets, len(fewer.row))
    (what,) = sealed_wrongly(shards, replace(fewer, offsets=offsets))
    assert what == f"{len(right.row) - 1:,} windows, the rows give {len(right.row):,}"


def test_its_files_are_known_as_vnpreps_own_and_no_others(shards: ShardSet) -> None:
    """What is vnprep's own goes when a data set is replaced or added to."""
    pack(shards, 16)
    assert all(is_own(path.name) for path in shards.folder.iterdir())
    assert is_own("pack-8.arrow.123.tmp")
    for name in ("pack-notes.json", "pack-16.json.bak", "shards.txt", "shard-1.arrow"):
        assert not is_own(name)


def test_a_file_that_only_looks_like_an_index_is_unknown_to_verify(shards: ShardSet) -> None:
    (shards.folder / "pack-notes.json").write_text("mine", encoding="utf-8")
    (problem,) = verify(shards.folder)
    assert (problem.file, problem.what) == ("pack-notes.json", "not in the manifest")


def test_rows_that_are_too_long_are_named_and_counted(make_data: MakeData, tmp_path: Path) -> None:
    rows = [[[10], [20] * length] for length in (3, 9, 4, 12)]
    shards = ShardSet.open(make_data(tmp_path, rows))
    with pytest.raises(TrainingError) as caught:
        pack_shards(shards, 10)
    assert caught.value.cause.startswith("2 rows are longer than seq_len 10 (the longest has 15 ")
    assert "the first is row 1, rows.txt:2" in caught.value.cause
