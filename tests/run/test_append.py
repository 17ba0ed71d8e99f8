"""--append: what is there stays as it is, what is new is added, and nothing is added twice."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from vnprep.audit.verify import unfinished, verify
from vnprep.config import PrepareConfig, ReadOptions
from vnprep.errors import InputError, NoRowsError, OutputError
from vnprep.pipeline import make_shard
from vnprep.run.prepare import Prepared, prepare
from vnprep.shards.inputs import read_inputs
from vnprep.shards.manifest import Manifest
from vnprep.shards.read import ShardSet
from vnprep.tokenizer.load import LoadedTokenizer, load_tokenizer
from vnprep.tokenizer.parity import EncoderChoice

CONFIG = PrepareConfig("pretrain", ReadOptions("text", text_split="line"), unit_bytes=1_000)
STREAM = replace(CONFIG, read=replace(CONFIG.read, format="text"))


class Set:
    """A data set under test: its folder, and the two commands for it."""

    def __init__(self, folder: Path, tokenizer: LoadedTokenizer) -> None:
        self.folder = folder
        self.tokenizer = tokenizer

    def new(self, *inputs: Path, config: PrepareConfig = CONFIG) -> Prepared:
        return prepare([str(path) for path in inputs], self.folder, config, self.tokenizer)

    def append(self, *inputs: Path, config: PrepareConfig = CONFIG) -> Prepared:
        arguments = [str(path) for path in inputs]
        return prepare(arguments, self.folder, config, self.tokenizer, mode="append")

    def bytes(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}

    def lines(self) -> list[tuple[str, int]]:
        rows = ShardSet.open(self.folder)
        return [(Path(row.origin.source).name, row.origin.line) for row in rows]


@pytest.fixture
def data(tmp_path: Path, bpe_path: Path) -> Set:
    return Set(tmp_path / "out", load_tokenizer(bpe_path))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = []
    for name in "abc":
        path = tmp_path / f"{name}.txt"
        path.write_text("".join(f"{name} Bật quạt số {n}\n" for n in range(60)), encoding="utf-8")
        found.append(path)
    return found


def test_an_append_adds_shards_and_leaves_the_old_ones_as_they_are(
    data: Set, files: list[Path]
) -> None:
    data.new(files[0])
    before, rows = data.bytes(), data.lines()
    prepared = data.append(files[1], files[2])
    assert (prepared.added, prepared.skipped) == (2, 0)
    after = data.bytes()
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }
    assert data.lines() == rows + [(f"{name}.txt", n) for name in "bc" for n in range(1, 61)]
    manifest = Manifest.read(data.folder)
    assert manifest.ledger.closes and manifest.ledger.read == 180
    listed = read_inputs(data.folder, manifest.inputs)
    assert [Path(record.name).name for record in listed] == ["a.txt", "b.txt", "c.txt"]
    assert verify(data.folder) == []


def test_what_is_there_already_is_skipped_under_any_name(data: Set, files: list[Path]) -> None:
    data.new(files[0])
    data.append(files[1])
    before = data.bytes()
    assert data.append(files[1]).added == 0
    moved = files[0].with_name("elsewhere.txt")
    files[0].rename(moved)
    prepared = data.append(moved, files[1])
    assert (prepared.added, prepared.skipped, prepared.done_now) == (0, 2, 0)
    assert data.bytes() == before
    prepared = data.append(moved, files[1], files[2])
    assert (prepared.added, prepared.skipped) == (1, 2)
    assert [name for name, line in data.lines() if line == 1] == ["a.txt", "b.txt", "c.txt"]


def test_a_changed_input_is_refused_by_name(data: Set, files: list[Path]) -> None:
    data.new(files[0])
    before = data.bytes()
    files[0].write_text("khác\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.txt: changed since it was added: sha256 \w{12} in"):
        data.append(files[0], files[1])
    assert data.bytes() == before


def test_another_configuration_or_tokenizer_is_refused(data: Set, files: list[Path]) -> None:
    data.new(files[0])
    before = data.bytes()
    with pytest.raises(OutputError, match=r"configuration .* now.*--eos-loss True → False"):
        data.append(files[1], config=replace(CONFIG, eos_loss=False))
    data.tokenizer = replace(data.tokenizer, fingerprint="0" * 64)
    with pytest.raises(OutputError, match="tokenizer"):
        data.append(files[1])
    assert data.bytes() == before


def test_an_append_to_nothing_is_a_first_run(data: Set, files: list[Path]) -> None:
    assert data.append(files[0]).added == 1
    first = data.bytes()
    assert data.new(files[0]).done_now == 0
    assert data.bytes() == first


def test_an_append_without_a_row_leaves_the_old_set_alone(data: Set, files: list[Path]) -> None:
    data.new(files[0])
    before = data.bytes()
    files[1].write_bytes(b"\xff\n")
    with pytest.raises(NoRowsError):
        data.append(files[1])
    assert data.bytes() == before


def test_a_damaged_set_is_not_added_to(data: Set, files: list[Path]) -> None:
    data.new(files[0])
    (data.folder / "shard-00000.arrow").write_bytes(b"")
    with pytest.raises(OutputError, match="damaged"):
        data.append(files[1])


def test_an_append_cut_short_leaves_the_old_set_valid_and_goes_on(
    data: Set, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Set(tmp_path / "whole", data.tokenizer)
    for one in (whole, data):
        one.new(files[0])
    whole.append(files[1])
    rows = data.lines()
    made: list[int] = []

    def fail_at_the_second(*given: object) -> object:
        if made:
            raise OSError(28, "No space left on device")
        made.append(1)
        return make_shard(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("vnprep.engines.local.make_shard", fail_at_the_second)
    with pytest.raises(OutputError, match="No space left"):
        data.append(files[1])
    monkeypatch.undo()
    assert data.lines() == rows
    assert verify(data.folder) == []
    assert unfinished(data.folder)
    with pytest.raises(OutputError, match=r"an unfinished run.*new: .*c\.txt; gone: .*b\.txt"):
        data.append(files[2])
    units = len(Manifest.read(whole.folder).shards) - len(Manifest.read(data.folder).shards)
    assert data.append(files[1]).done_now == units - 1
    assert data.bytes() == whole.bytes()
    assert not unfinished(data.folder)


def test_an_index_over_the_old_set_goes(data: Set, files: list[Path]) -> None:
    data.new(files[0])
    for change in (
        lambda: data.append(files[1]),
        lambda: prepare([str(files[2])], data.folder, CONFIG, data.tokenizer, mode="overwrite"),
    ):
        (data.folder / "pack-2048.arrow").write_bytes(b"over the old set")
        change()
        assert not (data.folder / "pack-2048.arrow").exists()
        assert verify(data.folder) == []


def test_the_first_command_is_told_of_what_was_appended(data: Set, files: list[Path]) -> None:
    data.new(files[0])
    data.append(files[1])
    with pytest.raises(OutputError, match="the same inputs, and others that were added later"):
        data.new(files[0])


def test_the_same_contents_under_other_names_are_named(data: Set, files: list[Path]) -> None:
    data.new(*files)
    moved = files[1].rename(files[1].with_name("bb.txt"))
    with pytest.raises(OutputError, match=r"same contents under other names: .*b\.txt there.*bb"):
        data.new(files[0], moved, files[2])
    moved.write_text("khác", encoding="utf-8")
    with pytest.raises(OutputError, match=r"new: .*bb\.txt; gone: .*b\.txt"):
        data.new(files[0], moved, files[2])
    files[2].write_text("khác", encoding="utf-8")
    with pytest.raises(OutputError, match=r"changed: .*c\.txt; new: "):
        data.new(files[0], moved, files[2])


def test_two_new_inputs_with_the_same_contents_are_added_once(data: Set, files: list[Path]) -> None:
    data.new(files[0])
    files[2].write_bytes(files[1].read_bytes())
    prepared = data.append(files[1], files[2])
    assert (prepared.added, prepared.skipped) == (1, 1)
    assert [name for name, line in data.lines() if line == 1] == ["a.txt", "b.txt"]


def test_another_stream_of_the_same_name_is_added(
    data: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``<(…)`` has the name /dev/fd/63 in every command, whatever comes through it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def send(text: str) -> Prepared:
        monkeypatch.setattr("vnprep.sources.spool._copies", {})  # as in a process of its own
        Thread(target=pipe.write_text, args=(text, "utf-8"), daemon=True).start()
        return prepare([str(pipe)], data.folder, STREAM, data.tokenizer, mode="append")

    assert send("một\n").added == 1
    assert send("hai\nba\n").added == 1
    assert send("một\n").skipped == 1
    assert data.lines() == [("pipe", 1), ("pipe", 1), ("pipe", 2)]
    assert verify(data.folder) == []


def test_the_manifest_names_every_encoder_that_served(
    data: Set, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoder() -> str:
        return Manifest.read(data.folder).tokenizer.encoder

    data.new(files[0])
    assert encoder() == "gigatoken"
    slow = EncoderChoice("tokenizers", "for this test")
    monkeypatch.setattr("vnprep.run.encoders.choose_encoder", lambda *_: slow)
    data.append(files[1])
    assert encoder() == "gigatoken+tokenizers"
    monkeypatch.undo()
    data.append(files[2])
    assert encoder() == "gigatoken+tokenizers"
