"""``verify`` finds all damage, names the file, and gives no false alarm."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Figures
from vnprep.audit.verify import verify
from vnprep.config import PrepareConfig, ReadOptions
from vnprep.durable import canonical_json, readable_json, sha256_text
from vnprep.errors import ShardError
from vnprep.run.prepare import prepare
from vnprep.shards.manifest import MANIFEST_NAME
from vnprep.tokenizer.load import load_tokenizer

CONFIG = PrepareConfig("pretrain", ReadOptions("text", text_split="line"), unit_bytes=400)


@pytest.fixture
def folder(tmp_path: Path, bpe_path: Path) -> Path:
    """A data set of several shards, with rejects, that was added to once."""
    tokenizer = load_tokenizer(bpe_path)
    for name, mode in (("a", "new"), ("b", "append")):
        lines = [f"{name} Bật quạt số {n}".encode() if n % 9 else b"\xff" for n in range(40)]
        (tmp_path / f"{name}.txt").write_bytes(b"\n\n".join(lines))
        arguments = [str(tmp_path / f"{name}.txt")]
        prepare(arguments, tmp_path / "set", CONFIG, tokenizer, mode=mode)  # type: ignore[arg-type]
    assert verify(tmp_path / "set") == []
    return tmp_path / "set"


def named(folder: Path) -> set[str]:
    """Return the files that ``verify`` finds fault with."""
    try:
        return {problem.file for problem in verify(folder)}
    except ShardError as error:
        assert error.place and error.remedy
        return {Path(error.place).name}


def flip(folder: Path, count: int) -> int:
    """Flip bits all over every file, one at a time; each must be found and its file named."""
    draw = random.Random(0)
    done = 0
    paths = sorted(folder.iterdir())
    for path in paths:
        good = path.read_bytes()
        share = max(count * len(good) // sum(p.stat().st_size for p in paths), 8)
        step = max(len(good) // share, 1)
        for start in range(0, len(good), step):
            place = draw.randrange(start, min(start + step, len(good)))
            bad = bytearray(good)
            bad[place] ^= draw.randrange(1, 256)
            path.write_bytes(bad)
            assert named(folder) == {path.name}, place
            done += 1
        path.write_bytes(good)
    assert verify(folder) == []
    return done


def test_flipped_bits_are_found_and_named(folder: Path) -> None:
    assert flip(folder, 200) >= 200


@pytest.mark.faults
def test_thousands_of_flipped_bits_are_found_and_named(folder: Path, figures: Figures) -> None:
    figures(f"{flip(folder, 10_000):,} bit flips: all found, each with its file")


def test_truncated_and_lengthened_files_are_found_and_named(folder: Path) -> None:
    done = 0
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        sizes = {0, 1, 8, len(good) // 2, len(good) - 8, len(good) - 1}
        for bad in [*(good[:size] for size in sorted(sizes)), good + b"\0", good + good]:
            path.write_bytes(bad)
            assert named(folder) == {path.name}
            done += 1
        path.write_bytes(good)
    assert verify(folder) == []
    assert done > 100


def test_missing_swapped_and_extra_files_are_found_and_named(folder: Path) -> None:
    shards = sorted(folder.glob("shard-*.arrow"))
    assert len(shards) > 4
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        path.unlink()
        assert named(folder) == {folder.name if path.name == MANIFEST_NAME else path.name}
        path.write_bytes(good)
    for one in shards:
        for other in shards:
            if one < other:
                contents = one.read_bytes(), other.read_bytes()
                one.write_bytes(contents[1])
                other.write_bytes(contents[0])
                assert named(folder) == {one.name, other.name}
                one.write_bytes(contents[0])
                other.write_bytes(contents[1])
    for name in ("shard-09999.arrow", "shard-00000.arrow.bak", "notes.txt", "inputs-00009.jsonl"):
        shutil.copy(shards[0], folder / name)
        assert named(folder) == {name}
        (folder / name).unlink()
    assert verify(folder) == []


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value in a JSON document that holds no others."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    if not items:
        yield path
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def other(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return ("0" if value[:1] != "0" else "1") + value[1:]
    return [1] if isinstance(value, list) else {"more": 1}


def changed(body: dict[str, Any], way: tuple[Any, ...]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(body))
    place: Any = copy
    for key in way[:-1]:
        place = place[key]
    place[way[-1]] = other(place[way[-1]])
    return copy


def test_every_field_of_the_manifest_is_guarded(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    body = json.loads(path.read_text(encoding="utf-8"))
    ways = list(leaves(body))
    assert len(ways) > 100
    for way in ways:
        path.write_text(readable_json(changed(body, way)), encoding="utf-8")
        assert named(folder) == {MANIFEST_NAME}, way


#: What the files themselves do not tell: how they were made, and what was merely noted or is not
#: listed. Only the manifest's own hash vouches for these.
UNTOLD = ("config", "encoder", "noted", "blank-line")


def test_even_with_a_hash_that_fits_a_changed_field_is_belied_by_the_files(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    body = json.loads(path.read_text(encoding="utf-8"))
    del body["manifest_sha256"]
    for way in leaves(body):
        if any(part in UNTOLD for part in way):
            continue
        forged = changed(body, way)
        forged["manifest_sha256"] = sha256_text(canonical_json(forged))
        path.write_text(readable_json(forged), encoding="utf-8")
        assert named(folder), way


def build(make_data: Callable[..., Path], folder: Path, count: int) -> int:
    """Make sets of all shapes and verify each."""
    draw = random.Random(1)
    for number in range(count):
        stage = draw.choice(["pretrain", "finetune"])
        segments = 1 if stage == "pretrain" else 2 * draw.randrange(1, 4)
        words = draw.choice([5, 96, 70_000] if number % 50 == 0 else [5, 96])
        rows = [
            [
                [draw.randrange(4, 4 + words) for _ in range(draw.randrange(1, 30))]
                for _ in range(segments)
            ]
            for _ in range(draw.randrange(1, 60))
        ]
        shard_rows = draw.randrange(1, 40)
        out = make_data(folder / str(number), rows, stage, shard_rows=shard_rows, words=words)
        assert verify(out) == []
    return count


def test_clean_sets_give_no_alarm(make_data: Callable[..., Path], tmp_path: Path) -> None:
    build(make_data, tmp_path, 20)


@pytest.mark.faults
def test_hundreds_of_clean_sets_give_no_alarm(
    make_data: Callable[..., Path], tmp_path: Path, figures: Figures
) -> None:
    figures(f"{build(make_data, tmp_path, 500)} clean sets of all shapes: no alarm")
