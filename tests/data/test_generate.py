"""The committed sample: regenerable, well formed, and truly without its held-out combinations."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from data import home, pairs, sentences

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data"
NAMES = ("pretrain.tsv", "pretrain_valid.tsv", "smarthome_train.tsv", "smarthome_heldout.tsv")
SEED = ("Bật quạt phòng ngủ lên mức 2", "Đã bật quạt phòng ngủ lên mức 2")


def _reading() -> ModuleType:
    path = Path(__file__).with_name("reading.py")
    spec = importlib.util.spec_from_file_location("sample_reading", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reading = _reading()


def rows(name: str) -> list[tuple[str, ...]]:
    text = (FOLDER / name).read_bytes().decode("utf-8")
    assert text.endswith("\n") and "\r" not in text
    return [tuple(line.split("\t")) for line in text.split("\n")[1:-1]]


def words(*texts: str) -> list[str]:
    return [word.strip(".,?!:").lower() for text in texts for word in text.split()]


@pytest.fixture(scope="module")
def sides() -> tuple[list[pairs.Pair], list[pairs.Pair]]:
    return pairs.train_and_heldout()


def run(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / "generate.py"), *arguments],
        capture_output=True, text=True, encoding="utf-8", check=False,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONUTF8": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_committed_files_are_what_the_program_writes(hash_seed: str) -> None:
    result = run("--check", hash_seed=hash_seed)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_check_names_a_changed_and_a_missing_file(tmp_path: Path) -> None:
    for name in NAMES[1:]:
        shutil.copy(FOLDER / name, tmp_path)
    path = tmp_path / NAMES[2]
    path.write_bytes(path.read_bytes().replace("mức 3".encode(), "mức 4".encode(), 1))
    result = run("--check", "--folder", str(tmp_path))
    assert result.returncode == 1
    assert NAMES[0] in result.stderr and NAMES[2] in result.stderr
    assert NAMES[1] not in result.stderr and NAMES[3] not in result.stderr
    assert "remedy: run python data/generate.py" in result.stderr
    assert not (tmp_path / NAMES[0]).exists()


@pytest.mark.parametrize("name", NAMES)
def test_nfc_and_plain_white_space(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert unicodedata.is_normalized("NFC", text)
    assert {c for c in text if c.isspace()} == {" ", "\t", "\n"}
    assert "  " not in text


@pytest.mark.parametrize(("name", "count"), [("pretrain.tsv", 4000), ("pretrain_valid.tsv", 300)])
def test_pretrain_rows_are_one_sentence_shifted(name: str, count: int) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8").startswith("input\ttarget\n")
    found = rows(name)
    for row in found:
        source, target = row
        sentence = source.removeprefix("[BOS] ")
        assert (source, target) == (f"[BOS] {sentence}", f"{sentence} [EOS]")
        assert "[" not in sentence and "{" not in sentence and "|" not in sentence
        assert 5 <= len(sentence.split()) <= 30, sentence
        assert sentence[0].isupper() or sentence[0].isdigit(), sentence
        assert sentence[-1] in ".?!", sentence
    assert len(set(found)) == len(found) == count


def test_train_and_valid_sentences_are_disjoint() -> None:
    assert not set(rows("pretrain.tsv")) & set(rows("pretrain_valid.tsv"))


def test_a_good_part_of_the_sentences_is_about_devices_and_nearly_all_words_are_known() -> None:
    taught = [row[1] for row in rows("pretrain.tsv")]
    about = sum(bool(reading.keys_of_sentence(sentence)) for sentence in taught)
    assert 0.2 < about / len(taught) < 0.35
    known = set(words(*taught))
    asked = Counter(words(*(cell for row in rows("smarthome_train.tsv") for cell in row[:2])))
    assert sum(n for word, n in asked.items() if word in known) > 0.97 * sum(asked.values())


def test_a_request_stands_once_and_has_one_answer() -> None:
    taught, heldout = rows("smarthome_train.tsv"), rows("smarthome_heldout.tsv")
    requests = [row[0] for row in taught + heldout]
    assert len(set(requests)) == len(requests)
    assert 6000 <= len(taught) <= 8000 and 450 <= len(heldout) <= 650
    for name, found in (("train", taught), ("heldout", heldout)):
        assert {row[2] for row in found} == {"command", "undo", "question", "unknown"}, name
        assert all(len(row) == 3 and all(row) for row in found), name


def test_the_seed_pair_is_held_out_under_every_wording() -> None:
    taught, heldout = rows("smarthome_train.tsv"), rows("smarthome_heldout.tsv")
    assert (*SEED, "command") in heldout
    seed = ("quạt", "phòng ngủ", "level", 2)
    assert seed in {key for row in heldout for key in reading.keys_of_pair(*row)}
    assert seed not in {key for row in taught for key in reading.keys_of_pair(*row)}
    # Its parts are all taught: the fan elsewhere at 2, and this fan at other levels.
    keys = {key for row in taught for key in reading.keys_of_pair(*row)}
    assert any(k[0] == "quạt" and k[2:] == ("level", 2) for k in keys)
    assert any(k[:3] == seed[:3] for k in keys)


def test_the_text_says_what_the_records_say(
    sides: tuple[list[pairs.Pair], list[pairs.Pair]],
) -> None:
    # Guards the next test: a reader that saw nothing would find no leak.
    for side in sides:
        for pair in side:
            records = {reading.key_of_combination(c) for c in pair.spoken_of}
            assert reading.keys_of_pair(*pair.cells) == records, pair


def test_no_held_out_combination_is_taught(
    sides: tuple[list[pairs.Pair], list[pairs.Pair]],
) -> None:
    every = home.combinations() + home.missing_combinations()
    held_out = {reading.key_of_combination(c) for c in every if c.held_out}
    taught = {key for row in rows("smarthome_train.tsv") for key in reading.keys_of_pair(*row)}
    asked = {key for row in rows("smarthome_heldout.tsv") for key in reading.keys_of_pair(*row)}
    assert not taught & held_out
    assert asked == held_out
    assert taught == {reading.key_of_combination(c) for c in every} - held_out
    assert 0.08 < len(held_out) / len(held_out | taught) < 0.16
    assert not [pair for pair in sides[0] if any(c.held_out for c in pair.spoken_of)]


@pytest.mark.parametrize("name", ["pretrain.tsv", "pretrain_valid.tsv"])
def test_no_held_out_combination_is_in_a_sentence(name: str) -> None:
    held_out = {reading.key_of_combination(c) for c in home.combinations() if c.held_out}
    spoken = {key for row in rows(name) for key in reading.keys_of_sentence(row[1])}
    assert len(spoken) > 50
    assert not spoken & held_out


def test_every_word_of_the_held_out_rows_is_taught_often() -> None:
    taught = rows("smarthome_train.tsv")
    count = Counter(words(*(cell for row in taught for cell in row[:2])))
    asked = set(words(*(cell for row in rows("smarthome_heldout.tsv") for cell in row[:2])))
    assert {word: count[word] for word in asked if count[word] < 7} == {}
    names = set(words(*home.DEVICES, *home.ROOMS))
    levels = {word for word in asked if word.strip("%").isdigit()}
    assert {word: count[word] for word in names | levels if count[word] < 10} == {}


def test_the_readme_counts_are_true() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"| `{name}` | {len(rows(name))} |" in readme, name
    taught, heldout = rows("smarthome_train.tsv"), rows("smarthome_heldout.tsv")
    for task in ("command", "undo", "question", "unknown"):
        counts = [sum(row[2] == task for row in side) for side in (taught, heldout)]
        assert f"| `{task}` | {counts[0]} | {counts[1]} |" in readme, task
        line = next(line for line in readme.split("\n") if line.startswith(f"| `{task}`"))
        request, response = line.split("|")[-2].strip(" `").split("` → `")
        assert (request, response, task) in taught
    lists = sentences.TEMPLATES / "lists.txt"
    files = [path for path in sentences.TEMPLATES.glob("*.txt") if path != lists]
    lines = "\n".join(path.read_text(encoding="utf-8") for path in files).split("\n")
    templates = sum(bool(line) and not line.startswith("#") for line in lines)
    assert f"{templates} sentence templates" in readme
    assert f"{len(home.DEVICES)} devices, {len(home.ROOMS)} rooms" in readme


def test_an_order_and_its_inverse_share_a_side() -> None:
    for combination in home.combinations():
        if combination.action in home.INVERSE:
            assert combination.held_out == combination.inverse().held_out


def test_undo_answers_with_the_opposite() -> None:
    opposite = {"bật": "tắt", "tắt": "bật", "mở": "đóng", "đóng": "mở"}
    opposite |= {"tăng": "giảm", "giảm": "tăng"}
    seen = Counter[str]()
    for request, response, task in rows("smarthome_train.tsv"):
        verb = response.split()[1]
        plain = response.removeprefix("Đã ").replace(" thêm ", " đi ").split(" đi ")
        if task == "undo" and opposite[verb] in request.lower().split():
            seen[verb] += 1
            assert plain[0].removeprefix(f"{verb} ").split()[0] in request.lower()
    assert min(seen[verb] for verb in opposite) >= 20


@pytest.mark.parametrize("text", ["{kin} ăn [cơm | phở].", "[{kin} | Ai] ăn phở."])
def test_a_template_is_filled_the_same_each_time(text: str) -> None:
    lists = {"kin": ["bà", "mẹ"]}
    found = {sentences.expand(text, lists, turn) for turn in range(40)}
    assert found == {sentences.expand(text, lists, turn) for turn in range(40)}
    assert found <= {"Bà ăn cơm.", "Bà ăn phở.", "Mẹ ăn cơm.", "Mẹ ăn phở.", "Ai ăn phở."}
    assert len(found) > 2
