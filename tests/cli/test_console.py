"""What people see: one line of progress, the closing table, quiet ends."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from vnprep.cli.console import _Meter, bar_columns, short
from vnprep.run.progress import Progress as State

Run = Callable[..., Any]


def test_counts_are_short() -> None:
    shown = [short(count) for count in (0, 999, 1000, 9_996, 99_949, 1e6, 12_345_678, 9.99e11)]
    assert shown == ["0", "999", "1.00k", "10.0k", "99.9k", "1.00M", "12.3M", "999.0G"]


def test_the_live_bar_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = _Meter()
    seconds = iter((0.0, 100.0))
    monkeypatch.setattr("vnprep.cli.console.time.monotonic", lambda: next(seconds))
    meter.counts(State("encode", 0, 10**11, 0, 0, 0))
    counts = meter.counts(State("encode", 5 * 10**10, 10**11, 98_765_432, 12_345_678_900, 999_999))
    assert counts == "123.5M tok/s  98.8M rows  1.00M rejected"
    monkeypatch.undo()
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with Progress(*bar_columns(), console=console) as bars:
        bars.add_task("encoding", total=10**11, completed=5 * 10**10, counts=counts)
        lines = console.render_lines(bars.get_renderable())
    text = "".join(segment.text for segment in lines[0])
    assert len(lines) == 1, lines
    assert counts in text
    assert "…" not in text


def test_the_list_of_what_was_left_out_stands_beside_its_reason(
    vnprep: Run, bpe_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("Trời\n" + "nóng " * 90 + "\n", encoding="utf-8")
    command = ("pretrain-text", "--split", "line", "--tokenizer", bpe_path, "--max-len", 50)
    result = vnprep(*command, tmp_path / "a.txt", "--out", "o1")
    (dropped,) = [line for line in result.err.splitlines() if "rejects.jsonl" in line]
    assert dropped.startswith("+ dropped")
    (tmp_path / "b.txt").write_bytes(b"\xff\n")
    result = vnprep(*command, tmp_path / "a.txt", tmp_path / "b.txt", "--out", "o2")
    (rejected,) = [line for line in result.err.splitlines() if "rejects.jsonl" in line]
    assert rejected.startswith("+ rejected")


@pytest.mark.parametrize("form", ["--tsv", "--json", "--max-positions=0"])
def test_output_that_nobody_reads_to_its_end_ends_quietly(
    make_data: Callable[..., Path], tmp_path: Path, form: str
) -> None:
    folder = make_data(tmp_path / "d", [[[5] * 300, [6] * 900]] * 200)
    rows = "" if form != "--max-positions=0" else "--sample 200"
    program = "from vnprep.cli import main; main()"
    result = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -c '{program}' inspect {folder} {rows} {form} | head -1"
         '; exit "${PIPESTATUS[0]}"'],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert result.returncode == 141
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1


def test_what_a_folder_passes_over_is_said_on_stderr(
    vnprep: Run, bpe_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("d")
    folder.mkdir()
    (folder / "a.txt").write_text("Trời nóng\n", encoding="utf-8")
    (folder / "b.pdf").write_bytes(b"%PDF")
    command = ("pretrain-text", folder, "--tokenizer", bpe_path, "--out", folder / "out", "--json")
    result = vnprep(*command)
    assert result.code == 0, result.err
    assert "passed over 1 files whose ending tells no format that is read: b.pdf" in result.err
    assert json.loads(result.out)["rows"] == 1
    again = vnprep(*command)
    assert "passed over 1 output folder: out" in again.err
    assert "finished already" in again.err


def test_remedies_name_options_that_the_command_has(
    vnprep: Run, bpe_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "a"}\n', encoding="utf-8")
    rest = (path, "--tokenizer", bpe_path, "--out", tmp_path / "o")
    assert "--messages-field" in vnprep("finetune-pairs", *rest).err
    error = vnprep("pretrain-text", *rest).err
    assert "--text-field" in error
    assert "--request-field" not in error
    seed = tmp_path / "a.tsv"
    seed.write_text("request\tresponse\na\tb\n", encoding="utf-8")
    error = vnprep("pretrain-tsv", seed, *rest[1:]).err
    assert "--request-field" not in error
    assert "vnprep finetune-pairs" in error
