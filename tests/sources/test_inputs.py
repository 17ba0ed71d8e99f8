"""What INPUT arguments stand for: every file once, and nothing passed over in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vnprep.errors import InputError
from vnprep.sources.inputs import find_inputs


def _write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n")


def _find(*arguments: Path | str, out: Path | None = None) -> tuple[list[str], list[str]]:
    told: list[str] = []
    found = find_inputs([str(argument) for argument in arguments], None, out=out, tell=told.append)
    return [item.name for item in found], told


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_order_is_that_of_the_parts_of_the_paths(tmp_path: Path) -> None:
    names = ["d/a.txt", "d/a/z.txt", "d/a.b/c.txt", "d/B.txt", "d/é.txt", "d/a-b.txt"]
    _write(tmp_path, *names)
    assert _find("d")[0] == [path.as_posix() for path in sorted(map(Path, names))]
    assert _find("./d//")[0] == _find("d")[0]
    assert _find(".")[0] == _find("d")[0]


def test_what_a_folder_passes_over_is_counted_and_the_first_three_named(tmp_path: Path) -> None:
    _write(tmp_path, "d/a.txt", "d/.hidden.txt", *(f"d/{number}.pdf" for number in range(5)))
    os.mkfifo("d/pipe.txt")
    (tmp_path / "d/link").symlink_to(tmp_path)
    (tmp_path / "d/again.txt").symlink_to("a.txt")
    (tmp_path / "d/hidden.txt").symlink_to(".hidden.txt")
    names, told = _find("d")
    assert names == ["d/a.txt", "d/hidden.txt"]
    assert sorted(told) == [
        "d: passed over 1 links to files that are read as themselves: again.txt",
        "d: passed over 1 links to folders: link",
        "d: passed over 1 pipes, sockets and devices: pipe.txt",
        "d: passed over 5 files whose ending tells no format that is read: 0.pdf, 1.pdf, 2.pdf, …",
    ]


def test_a_link_is_passed_over_only_for_a_file_that_is_read_as_itself(tmp_path: Path) -> None:
    _write(tmp_path, "in/own.txt", "in/x.y/deep.txt", "in2/near.txt", "in/notes.pdf")
    _write(tmp_path, "in/old/tokenizer.json", "in/old/shard-00000.arrow", "in/old/of.txt")
    for name, target in (
        ("near", "../in2/near.txt"),
        ("of", "old/of.txt"),
        ("notes", "notes.pdf"),
        ("again", "./x.y/deep.txt"),
        ("chain", "again.txt"),
    ):
        (tmp_path / f"in/{name}.txt").symlink_to(target)
    (tmp_path / "linked").symlink_to("in")
    read = ["near.txt", "notes.txt", "of.txt", "own.txt", "x.y/deep.txt"]
    for folder in ("in", "linked", tmp_path / "in", "in2/../in"):
        names, told = _find(folder)
        assert names == [f"{folder}/{name}" for name in read]
        (line,) = [line for line in told if "read as themselves" in line]
        assert line.endswith(
            "passed over 2 links to files that are read as themselves: again.txt, chain.txt"
        )
    os.chdir("in")
    assert _find(".")[0] == read


def test_data_sets_inside_an_input_folder_are_no_input(tmp_path: Path) -> None:
    _write(tmp_path, "d/a.txt", "d/out/b.jsonl", "d/old/tokenizer.json", "d/old/shard-00000.arrow")
    _write(tmp_path, "d/old/shard-00000.rejects.jsonl", "d/kept/tokenizer.json")
    names, told = _find("d", out=tmp_path / "d" / "out")
    assert names == ["d/a.txt", "d/kept/tokenizer.json"]
    assert told == [
        "d: passed over 1 data sets of vnprep: old",
        "d: passed over 1 output folder: out",
    ]
    with pytest.raises(InputError, match="a data set that vnprep wrote"):
        _find("d/old")


def test_a_glob_finds_folders_as_a_shell_would(tmp_path: Path) -> None:
    _write(tmp_path, "d/x/a.txt", "d/x/y/b.txt", "d/c.txt")
    assert _find("d/*")[0] == ["d/c.txt", "d/x/a.txt", "d/x/y/b.txt"]
    assert _find("d/**/*.txt")[0] == ["d/c.txt", "d/x/a.txt", "d/x/y/b.txt"]
    assert _find("d/**")[0] == ["d/c.txt", "d/x/a.txt", "d/x/y/b.txt"]


def test_a_file_given_twice_is_refused_under_any_spelling(tmp_path: Path) -> None:
    _write(tmp_path, "d/a.txt")
    (tmp_path / "link.txt").symlink_to("d/a.txt")
    for second in ("d/a.txt", "./d/a.txt", "d/../d/a.txt", "d", "link.txt", tmp_path / "d/a.txt"):
        with pytest.raises(InputError, match="given twice"):
            _find("d/a.txt", second)
    with pytest.raises(InputError, match=r"link\.txt: given twice, also as d/a\.txt"):
        _find("d/a.txt", "link.txt")
    os.link("d/a.txt", "d/hard.txt")
    assert _find("d")[0] == ["d/a.txt", "d/hard.txt"]


@pytest.mark.parametrize(
    "sign", ["\xa0", "\u202f", "👨\u200d👩", "\u3000", "e\u0301", "\U000e0100"]
)
def test_names_may_hold_any_sign(tmp_path: Path, sign: str) -> None:
    _write(tmp_path, f"d/a{sign}b.txt")
    assert _find("d")[0] == [f"d/a{sign}b.txt"]


@pytest.mark.parametrize("sign", ["\n", "\t", "\x1b", "\x7f", "\x85", "\udcff"])
def test_names_with_control_characters_or_of_other_bytes_are_refused(
    tmp_path: Path, sign: str
) -> None:
    _write(tmp_path, f"d/a{sign}b.txt")
    with pytest.raises(InputError, match="not valid UTF-8 or holds control characters"):
        _find("d")


def test_links_that_lead_nowhere_and_folders_that_cannot_be_read_are_named(
    tmp_path: Path,
) -> None:
    _write(tmp_path, "d/a.txt")
    (tmp_path / "d/gone.txt").symlink_to("/nowhere/x.txt")
    for argument in ("d", "d/gone.txt", "d/*.txt"):
        with pytest.raises(InputError, match=r"d/gone\.txt: a link that leads nowhere") as caught:
            _find(argument)
        assert caught.value.remedy


def test_finding_ten_times_the_files_takes_ten_times_as_long(tmp_path: Path) -> None:
    seconds = {}
    for count in (2_000, 20_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.txt").touch()
        began = time.perf_counter()
        assert len(find_inputs([str(folder)], None)) == count
        seconds[count] = time.perf_counter() - began
    assert seconds[20_000] < 40 * max(seconds[2_000], 0.01), seconds


SHOW = (
    "import sys, json, os\n"
    "from vnprep.sources.inputs import find_inputs\n"
    "(item,) = find_inputs(sys.argv[2:], sys.argv[1] or None)\n"
    "print(json.dumps([item.name, item.format, item.path.read_bytes().decode('latin-1')]))\n"
    "print(item.where)\n"
)


def _show(shell: str, format_name: str = "text") -> tuple[str, Path]:
    script = shell.replace("SHOW", f"'{sys.executable}' -c \"$0\" '{format_name}'")
    result = subprocess.run(
        ["bash", "-c", script, SHOW], capture_output=True, text=True, check=False
    )
    shown, _, where = (result.stdout or result.stderr).partition("\n")
    return shown, Path(where.strip())


def test_streams_are_copied_read_and_the_copy_goes(tmp_path: Path) -> None:
    _write(tmp_path, "a.txt")
    for shell, name in (
        ("cat a.txt | SHOW -", "<stdin>"),
        ("SHOW /dev/stdin < a.txt", "<stdin>"),
        ("SHOW <(cat a.txt)", "/dev/fd/63"),
        ("mkfifo p; cat a.txt > p & SHOW p", "p"),
    ):
        shown, where = _show(shell)
        assert shown == f'["{name}", "text", "x\\n"]'
        assert where.is_absolute()
        assert not where.exists()


def test_a_stream_needs_a_format_and_must_be_readable() -> None:
    error, _ = _show("echo x | SHOW - 2>&1 | tail -2", "")
    assert error.endswith("-: its format cannot be told")
    error, _ = _show("SHOW /dev/fd/9 2>&1 | tail -2")
    assert "/dev/fd/9: cannot be copied to a temporary file" in error


def test_a_compressed_stream_is_known_by_how_it_begins(tmp_path: Path) -> None:
    _write(tmp_path, "a.txt")
    _, where = _show("gzip < a.txt | SHOW -")
    assert where.name == "stream.gz"
