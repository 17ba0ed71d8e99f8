"""An export is whole or not there, says what it is, and is made of checked data alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vnprep.durable import folder_lock, sha256_file
from vnprep.errors import OutputError, ShardError
from vnprep.export.huggingface import HuggingFace
from vnprep.export.megatron import Megatron
from vnprep.export.run import export
from vnprep.export.sequences import read_blocks
from vnprep.export.target import Advance, Source, Target
from vnprep.shards.manifest import FileRecord, Manifest

TARGETS = [HuggingFace(), HuggingFace(shifted=True), Megatron()]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_the_record_names_every_file_with_its_hash(
    prepare: Any, run_export: Any, tmp_path: Path, target: Target
) -> None:
    prepared, out = prepare(), tmp_path / "new" / "out"
    exported = run_export(prepared.folder, target, out)
    record = json.loads((out / "export.json").read_text(encoding="utf-8"))
    named = {file["name"]: (file["bytes"], file["sha256"]) for file in record["files"]}
    there = {
        path.name: (path.stat().st_size, sha256_file(path))
        for path in out.iterdir()
        if path.name != "export.json"
    }
    assert named == there
    assert record["manifest_sha256"] == sha256_file(prepared.folder / "manifest.json")
    assert record["rows"] == 57
    assert (out / "tokenizer.json").read_bytes() == (
        prepared.folder / "tokenizer.json"
    ).read_bytes()
    estimate = target.bytes_needed(exported.source.manifest)
    data = sum(size for name, (size, _) in named.items() if name != "tokenizer.json")
    assert 0.6 * data < estimate < 1.1 * data


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_the_same_data_gives_the_same_bytes(
    prepare: Any, run_export: Any, tmp_path: Path, target: Target
) -> None:
    prepared = prepare()
    for name in ("a", "b"):
        run_export(prepared.folder, target, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_one_shard_is_mapped_at_a_time(prepare: Any, tmp_path: Path, target: Target) -> None:
    prepared = prepare()
    mapped: list[int] = []

    def look(_phase: str, _done: int, _total: int) -> None:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        mapped.append(sum(f"shard-{number:05d}.arrow" in maps for number in range(3)))

    export(prepared.folder, target, tmp_path / "out", look)
    assert max(mapped) == 1


def test_an_existing_folder_is_refused_and_left_alone(
    prepare: Any, run_export: Any, tmp_path: Path
) -> None:
    prepared, out = prepare(), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        run_export(prepared.folder, Megatron(), out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    run_export(prepared.folder, Megatron(), out)
    assert (out / "export.json").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_damaged_data_is_refused_and_nothing_is_left(
    prepare: Any, run_export: Any, tmp_path: Path
) -> None:
    prepared = prepare()
    shard = prepared.folder / "shard-00001.arrow"
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(ShardError, match=r"shard-00001\.arrow: its bytes changed"):
        run_export(prepared.folder, HuggingFace(), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


class _DiskFills(Megatron):
    def write(self, source: Source, out: Path, advance: Advance) -> list[FileRecord]:
        super().write(source, out, advance)
        raise OSError(28, "No space left on device")


def test_an_error_half_way_leaves_nothing(prepare: Any, run_export: Any, tmp_path: Path) -> None:
    prepared = prepare()
    with pytest.raises(OSError, match="No space left"):
        run_export(prepared.folder, _DiskFills(), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_what_a_killed_run_left_is_taken_over_and_foreign_files_are_not(
    prepare: Any, run_export: Any, tmp_path: Path
) -> None:
    prepared, out, partial = prepare(), tmp_path / "out", tmp_path / "out.partial"
    (partial / "data").mkdir(parents=True)
    (partial / "data" / "text_document.bin").write_bytes(b"half")
    (partial / "lock").mkdir()
    run_export(prepared.folder, HuggingFace(), out)
    assert not partial.exists()
    assert not (out / "text_document.bin").exists()
    partial.mkdir()
    (partial / "mine.txt").write_text("mine")
    shutil.rmtree(out)
    with pytest.raises(OutputError, match=r"holds other files \(mine.txt\)"):
        run_export(prepared.folder, HuggingFace(), out)
    assert (partial / "mine.txt").read_text() == "mine"


def test_two_runs_into_one_folder(prepare: Any, run_export: Any, tmp_path: Path) -> None:
    prepared, lock = prepare(), tmp_path / "out.partial" / "lock"
    lock.mkdir(parents=True)
    with folder_lock(lock), pytest.raises(OutputError, match="another vnprep run"):
        run_export(prepared.folder, HuggingFace(), tmp_path / "out")
    run_export(prepared.folder, HuggingFace(), tmp_path / "out")


def test_a_full_disk_is_seen_before_anything_is_written(
    prepare: Any, run_export: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare()
    free = Megatron().bytes_needed(Manifest.read(prepared.folder))
    usage = shutil._ntuple_diskusage(10**12, 10**12 - free, free)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(OutputError, match="GB are free"):
        run_export(prepared.folder, Megatron(), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_an_id_that_the_tokenizer_does_not_have_is_refused(prepare: Any) -> None:
    prepared = prepare()
    path = prepared.folder / "shard-00002.arrow"
    with pa.ipc.open_file(path) as reader:
        table = reader.read_all()
    kind = table.schema.field("input").type
    wrong = pa.array([[1, 100], *table["input"].to_pylist()[1:]], type=kind)
    lengths = [len(row) for row in wrong.to_pylist()]
    same = [pa.array([[0] * length for length in lengths], type=kind)] * 2
    changed = pa.RecordBatch.from_arrays([wrong, *same], names=["input", "target", "loss_mask"])
    with pa.ipc.new_file(path, changed.schema) as writer:
        writer.write_batch(changed)
    with pytest.raises(ShardError, match="holds the id 100, but the tokenizer's ids end at 99"):
        list(read_blocks(prepared.folder, Manifest.read(prepared.folder)))


def test_the_command(vnprep: Any, prepare: Any, tmp_path: Path) -> None:
    prepared = prepare()
    out = tmp_path / "mg"
    result = vnprep("export", prepared.folder, "--to", "megatron", "--out", out, "--json")
    assert result.code == 0
    summary = json.loads(result.out)
    assert summary["rows"] == 57
    assert summary["tokens"] + 57 == sum(map(len, prepared.sequences))
    assert "loss_mask_document" in result.err
    again = vnprep("export", prepared.folder, "--to", "hf", "--out", out)
    assert again.code == 1
    assert "remedy: choose another --out" in again.err
    assert (
        vnprep("export", prepared.folder, "--to", "megatron", "--shifted", "--out", "x").code == 2
    )
    assert "no finished data set" in vnprep("export", tmp_path, "--to", "hf", "--out", "x").err
