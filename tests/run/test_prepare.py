"""The same bytes whatever happens, and nothing written over something else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from vnprep import durable
from vnprep.config import PrepareConfig, ReadOptions
from vnprep.durable import folder_lock
from vnprep.errors import InputError, NoRowsError, OutputError, VnprepError
from vnprep.pipeline import make_shard
from vnprep.run.prepare import prepare
from vnprep.shards.manifest import Manifest
from vnprep.tokenizer import parity
from vnprep.tokenizer.encode import Offsets, TokenIds
from vnprep.tokenizer.fast import FastEncoder
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer

CONFIG = PrepareConfig("pretrain", ReadOptions("text", text_split="line"), unit_bytes=2_000)


@pytest.fixture
def tokenizer(bpe_path: Path) -> LoadedTokenizer:
    return load_tokenizer(bpe_path)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [f"Bật quạt số {number} trong phòng ngủ" for number in range(400)]
    lines[37] = "\udcff"
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    (folder / "a.txt").write_bytes(text)
    (folder / "b.txt").write_text("Trời nóng\n\nquá\n", encoding="utf-8")
    return folder


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_any_number_of_workers_writes_the_same_bytes(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    for workers in (1, 2, 3):
        prepare([str(corpus)], tmp_path / str(workers), CONFIG, tokenizer, workers=workers)
    one = _bytes(tmp_path / "1")
    assert len([name for name in one if name.endswith(".arrow")]) > 3
    assert one == _bytes(tmp_path / "2") == _bytes(tmp_path / "3")


def test_the_ledger_closes_and_rejects_are_listed(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    out = tmp_path / "out"
    manifest = prepare([str(corpus)], out, CONFIG, tokenizer).manifest
    ledger = manifest.ledger
    assert ledger.read == 403
    assert ledger.kept == manifest.rows == 401
    assert ledger.rejected == {"invalid-utf8": 1}
    assert ledger.dropped == {"blank-line": 1}
    assert ledger.closes
    (listed,) = [
        json.loads(line)
        for path in out.glob("*.rejects.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert (listed["source"], listed["line"]) == ((corpus / "a.txt").as_posix(), 38)
    assert (corpus / "a.txt").read_bytes()[listed["byte_offset"] :].startswith(b"\xff")


def test_a_run_that_failed_half_way_goes_on_and_ends_with_the_same_bytes(
    corpus: Path,
    tmp_path: Path,
    tokenizer: LoadedTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare([str(corpus)], tmp_path / "whole", CONFIG, tokenizer)
    done: list[int] = []

    def fail_at_the_third(unit: object, *rest: object) -> object:
        if len(done) == 2:
            raise OSError(28, "No space left on device")
        done.append(1)
        return make_shard(unit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("vnprep.engines.local.make_shard", fail_at_the_third)
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="No space left"):
        prepare([str(corpus)], out, CONFIG, tokenizer)
    assert not (out / "manifest.json").exists()
    monkeypatch.undo()
    (out / ".work" / "shard-00001.arrow").write_bytes(b"damaged after it was committed")
    prepared = prepare([str(corpus)], out, CONFIG, tokenizer)
    assert prepared.done_now == len(prepared.manifest.shards) - 1, "only unit 0 was whole"
    assert _bytes(out) == _bytes(tmp_path / "whole")


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer, bpe_path: Path
) -> None:
    prepare([str(corpus)], tmp_path / "whole", CONFIG, tokenizer)
    out = tmp_path / "out"
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "import vnprep.engines.local as local\n"
        "from vnprep.pipeline import make_shard\n"
        "from vnprep.config import PrepareConfig, ReadOptions\n"
        "from vnprep.run.prepare import prepare\n"
        "from vnprep.tokenizer.load import load_tokenizer\n"
        "def slow(*given):\n"
        "    time.sleep(0.2)\n"
        "    return make_shard(*given)\n"
        "local.make_shard = slow\n"
        "read = ReadOptions('text', text_split='line')\n"
        "config = PrepareConfig('pretrain', read, unit_bytes=2000)\n"
        "prepare([sys.argv[1]], Path(sys.argv[2]), config, load_tokenizer(sys.argv[3]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, corpus, out, bpe_path])
    deadline = time.monotonic() + 60
    while not list((out / ".work").glob("0*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    prepare([str(corpus)], out, CONFIG, tokenizer)
    assert _bytes(out) == _bytes(tmp_path / "whole")


def test_a_finished_run_is_not_done_again(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    out = tmp_path / "out"
    prepare([str(corpus)], out, CONFIG, tokenizer)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare([str(corpus)], out, CONFIG, tokenizer).done_now == 0
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_another_configuration_tokenizer_or_input_is_refused_with_both_fingerprints(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    out = tmp_path / "out"
    prepare([str(corpus)], out, CONFIG, tokenizer)
    before = _bytes(out)
    with pytest.raises(
        OutputError, match=r"configuration \w{12} there, \w{12} now.*--eos-loss True"
    ):
        prepare([str(corpus)], out, replace(CONFIG, eos_loss=False), tokenizer)
    with pytest.raises(OutputError, match="tokenizer"):
        prepare([str(corpus)], out, CONFIG, replace(tokenizer, fingerprint="0" * 64))
    (corpus / "b.txt").write_text("Trời nóng\n\nquà\n", encoding="utf-8")
    with pytest.raises(OutputError, match="input"):
        prepare([str(corpus)], out, CONFIG, tokenizer)
    assert _bytes(out) == before
    assert prepare([str(corpus)], out, CONFIG, tokenizer, mode="overwrite").done_now > 0
    assert Manifest.read(out).rows == 401


def test_a_folder_with_other_files_is_refused_and_left_alone(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"thesis\.doc"):
            prepare([str(corpus)], out, CONFIG, tokenizer, mode="overwrite" if overwrite else "new")
    assert [path.name for path in out.iterdir()] == ["thesis.doc"]


def test_overwrite_keeps_the_old_set_until_the_new_one_is_whole(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    out = tmp_path / "out"
    prepare([str(corpus)], out, CONFIG, tokenizer)
    before = _bytes(out)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff\n")
    with pytest.raises(NoRowsError):
        prepare([str(bad)], out, CONFIG, tokenizer, mode="overwrite")
    assert _bytes(out) == before
    with pytest.raises(InputError, match="this is UTF-16"):
        bad.write_bytes("x".encode("utf-16"))
        prepare([str(bad)], out, CONFIG, tokenizer, mode="overwrite")
    assert _bytes(out) == before
    prepare([str(corpus)], out, replace(CONFIG, eos_loss=False), tokenizer, mode="overwrite")
    assert Manifest.read(out).config["eos_loss"] is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt", "corpus", "out"]


def test_overwrite_refuses_a_folder_that_is_not_vnpreps(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    out = tmp_path / "hf"
    out.mkdir()
    (out / "manifest.json").write_text('{"app": "mine"}')
    (out / "tokenizer.json").write_text("{}")
    before = _bytes(out)
    with pytest.raises(OutputError, match="not vnprep's"):
        prepare([str(corpus)], out, CONFIG, tokenizer, mode="overwrite")
    assert _bytes(out) == before
    done = tmp_path / "done"
    prepare([str(corpus)], done, CONFIG, tokenizer)
    (done / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        prepare([str(corpus)], done, replace(CONFIG, eos_loss=False), tokenizer, mode="overwrite")
    assert (done / "notes.txt").read_text() == "mine"


def test_a_second_run_into_the_same_folder_is_told_who_holds_it(tmp_path: Path) -> None:
    with (
        folder_lock(tmp_path),
        pytest.raises(OutputError, match=rf"process {os.getpid()}"),
        folder_lock(tmp_path),
    ):
        pass


def test_damage_to_a_finished_set_is_named_not_trusted(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    out = tmp_path / "out"
    prepare([str(corpus)], out, CONFIG, tokenizer)
    (out / "shard-00000.arrow").write_bytes(b"")
    with pytest.raises(OutputError, match="damaged"):
        prepare([str(corpus)], out, CONFIG, tokenizer)


def test_no_rows_says_why_and_leaves_the_folder_free(
    tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    source = tmp_path / "a.txt"
    source.write_bytes(b"\xff\n\xfe\n")
    with pytest.raises(NoRowsError, match=r"2 read \(2 invalid-utf8\)(.|\n)*a.txt:1: invalid"):
        prepare([str(source)], tmp_path / "out", CONFIG, tokenizer)
    source.write_text("tốt\n", encoding="utf-8")
    assert prepare([str(source)], tmp_path / "out", CONFIG, tokenizer).manifest.rows == 1


def test_an_unusable_input_leaves_the_folder_free(
    tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    source = tmp_path / "a.tsv"
    source.write_text("a\tb\n1\t2\n")
    config = PrepareConfig("finetune", ReadOptions("pairs"))
    with pytest.raises(InputError, match="no column request, response"):
        prepare([str(source)], tmp_path / "out", config, tokenizer)
    assert not (tmp_path / "out").exists()


def test_a_policy_of_the_other_stage_is_refused() -> None:
    with pytest.raises(VnprepError, match="no meaning for pretrain"):
        PrepareConfig("pretrain", ReadOptions("text"), truncation="request-left")


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    durable.write_text(path, "old")
    with pytest.raises(OSError, match="full"), durable.replacing(path) as file:
        file.write(b"half")
        raise OSError("full")
    assert _bytes(tmp_path) == {"a.json": b"old"}


class ErrsOnOneWord(FastEncoder):
    """A fast encoder that errs where neither the probes nor the sample look."""

    def encode(self, texts: pa.LargeStringArray) -> tuple[TokenIds, Offsets]:
        ids, offsets = super().encode(texts)
        ids = ids.copy()
        for number, text in enumerate(texts.to_pylist()):
            if "số 200 " in text:
                ids[offsets[number]] = 5
        return ids, offsets


def test_one_difference_in_any_unit_and_the_reference_does_all(
    corpus: Path, tmp_path: Path, tokenizer: LoadedTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = prepare([str(corpus)], tmp_path / "right", CONFIG, tokenizer).manifest
    assert right.tokenizer.encoder == "gigatoken"
    monkeypatch.setattr(parity, "FastEncoder", ErrsOnOneWord)
    told: list[str] = []
    manifest = prepare(
        [str(corpus)], tmp_path / "out", CONFIG, tokenizer, tell=told.append
    ).manifest
    assert manifest.tokenizer.encoder == "tokenizers"
    assert "số 200" in told[-1] and "slower" in told[-1]
    shards = [shard.file for shard in manifest.shards]
    assert shards == [shard.file for shard in right.shards]
    ledger = manifest.ledger
    assert ledger == right.ledger and ledger.closes
