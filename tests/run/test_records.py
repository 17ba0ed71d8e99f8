"""What a resumed run trusts: the same unit, by the same version, with whole files."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path

import pytest

from vnprep.config import PrepareConfig, ReadOptions
from vnprep.errors import InputError, OutputError
from vnprep.run import prepare as module
from vnprep.run import records
from vnprep.run.prepare import prepare
from vnprep.run.records import read_record, write_record
from vnprep.run.rejects import RejectLimit
from vnprep.sources import unpacking
from vnprep.sources.plan import Unit, find_inputs, make_plan
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer

CONFIG = PrepareConfig("pretrain", ReadOptions("text", text_split="line"), unit_bytes=2_000)


@pytest.fixture
def tokenizer(bpe_path: Path) -> LoadedTokenizer:
    return load_tokenizer(bpe_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"Câu số {number}\n" for number in range(500)), encoding="utf-8")
    return path


@pytest.fixture
def made(tmp_path: Path, path: Path, tokenizer: LoadedTokenizer) -> tuple[Path, Unit]:
    """Give a folder with a first unit's files and record."""
    manifest = prepare([str(path)], tmp_path / "out", CONFIG, tokenizer).manifest
    (unit, *_) = make_plan(find_inputs([str(path)], None), CONFIG.read, 2_000).units
    write_record(tmp_path / "out", unit, manifest.shards[0])
    return tmp_path / "out", unit


def test_the_same_unit_is_trusted(made: tuple[Path, Unit]) -> None:
    assert read_record(*made) is not None


def test_a_unit_that_is_cut_elsewhere_is_not(made: tuple[Path, Unit]) -> None:
    folder, unit = made
    (piece,) = unit.pieces
    assert piece.end is not None
    assert read_record(folder, replace(unit, pieces=(replace(piece, end=piece.end + 9),))) is None
    assert read_record(folder, replace(unit, pieces=(piece, piece))) is None


def test_a_unit_of_another_version_is_not(
    made: tuple[Path, Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ENGINE_VERSION", records.ENGINE_VERSION + 1)
    assert read_record(*made) is None


def test_an_input_that_is_edited_in_place_is_refused(
    path: Path, tmp_path: Path, tokenizer: LoadedTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same size, between the hash and the reading."""
    real = module.make_task

    def edit_after(*given: object) -> object:
        task = real(*given)  # type: ignore[arg-type]
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("Câu số 7", "Câu sổ 7"), encoding="utf-8")
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
        return task

    before = path.read_text(encoding="utf-8")
    wanted = prepare([str(path)], tmp_path / "whole", CONFIG, tokenizer).manifest
    monkeypatch.setattr(module, "make_task", edit_after)
    with pytest.raises(InputError, match="changed while"):
        prepare([str(path)], tmp_path / "out", CONFIG, tokenizer)
    # What was read meanwhile is not trusted once the old text is back.
    monkeypatch.undo()
    path.write_text(before, encoding="utf-8")
    assert prepare([str(path)], tmp_path / "out", CONFIG, tokenizer).manifest == wanted


def test_a_full_disk_while_unpacking_is_told_as_such(tmp_path: Path) -> None:
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(b"x" * 10_000))
    (item,) = find_inputs([str(packed)], None)
    with pytest.raises(OutputError, match=r"/dev/full: cannot be written \(No space left"):
        unpacking.unpack(item, Path("/dev/full"), lambda _: None)


def test_nothing_unpacked_stays_after_a_failed_run(
    tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    packed = tmp_path / "a.txt.gz"
    lines = [os.urandom(20).hex().encode() for _ in range(300)]
    packed.write_bytes(gzip.compress(b"\n".join([*lines, b"\xff", b"\xff"])))
    with pytest.raises(InputError, match="too many rejects"):
        prepare(
            [str(packed)],
            tmp_path / "out",
            CONFIG,
            tokenizer,
            max_rejects=RejectLimit.parse("1"),
        )
    assert not (tmp_path / "out" / ".work" / "unpacked").exists()
