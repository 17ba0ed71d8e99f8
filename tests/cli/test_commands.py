"""The commands as a user meets them: help, bad input, exit codes, nothing half-written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from vnprep.cli import cli

Run = Callable[..., Any]


def _commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*prefix, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*prefix, name))


@pytest.mark.parametrize("command", list(_commands(cli)), ids=" ".join)
def test_every_command_explains_itself_with_an_example(
    vnprep: Run, command: tuple[str, ...]
) -> None:
    result = vnprep(*command, "--help")
    assert result.code == 0
    assert re.search(r"Examples?:\n +vnprep " + " ".join(command), result.out)
    undocumented = re.findall(r"^  --\S+(?: [A-Z.]+)?$", result.out, re.MULTILINE)
    assert not [line for line in undocumented if "--help" not in line and "INTEGER" not in line]


def test_a_misspelt_command_or_option_is_answered_with_the_right_one(vnprep: Run) -> None:
    result = vnprep("verfy")
    assert result.code == 2
    assert "Did you mean 'verify'?" in result.err
    result = vnprep("finetune-pairs", "a.tsv", "--tokeniser", "t.json", "--out", "x")
    assert result.code == 2
    assert "--tokenizer" in result.err


BAD_PAIRS: list[tuple[str, bytes, str]] = [
    ("empty.tsv", b"", "no rows left: 1 read (1 empty-file)"),
    ("header_only.tsv", b"request\tresponse\n", "no rows left: 0 read"),
    ("column.tsv", b"request\tanswer\na\tb\n", "no column response; the header has: request"),
    ("commas.tsv", b"request,response\na,b\n", "parted by commas: pass --format csv"),
    ("semicolons.csv", b"q;a\na;b\n", "parted by semicolons: pass --format csv --delimiter ';'"),
    ("mac.csv", b"request,response\ra,b\rc,d\r", "tr '\\r' '\\n'"),
    (
        "latin1.tsv",
        "request\tresponse\nMở đèn\tĐã mở\n".encode("cp1258", "ignore"),
        "iconv -f TCVN",
    ),
    ("utf16.tsv", "request\tresponse\na\tb\n".encode("utf-16"), "UTF-16"),
    ("ragged.tsv", b"request\tresponse\na\tb\tc\n", "ragged.tsv:2: ragged-row (3 cells"),
    ("nul.tsv", b"request\tresponse\na\0\tb\n", "nul.tsv:2: nul-character"),
    ("fields.jsonl", b'{"q": "a", "a": "b"}\n', "no 'request'; fields here: q, a"),
    ("book.xlsx", b"PK\x03\x04", "does not tell the format"),
    ("book.csv", b"PK\x03\x04", "Excel workbook"),
    ("cut.csv.gz", b"\x1f\x8b\x08\x00", "cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_PAIRS, ids=[c[0] for c in BAD_PAIRS])
def test_bad_input_is_one_clear_error_and_nothing_is_left(
    vnprep: Run, bpe_path: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    result = vnprep("finetune-pairs", tmp_path / name, "--tokenizer", bpe_path, "--out", out)
    assert result.code == 1
    assert message in result.err
    assert "remedy:" in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert not out.exists()


def test_a_missing_input_and_a_missing_tokenizer(
    vnprep: Run, bpe_path: Path, tmp_path: Path
) -> None:
    result = vnprep(
        "pretrain-text", "nothing.txt", "--tokenizer", bpe_path, "--out", tmp_path / "o"
    )
    assert result.code == 1
    assert "nothing.txt: no such file" in result.err
    (tmp_path / "a.txt").write_text("a")
    result = vnprep(
        "pretrain-text", tmp_path / "a.txt", "--tokenizer", "no.json", "--out", tmp_path / "o"
    )
    assert result.code == 1
    assert "vnprep tokenizer train" in result.err


def test_rejects_are_counted_listed_and_survived(
    vnprep: Run, bpe_path: Path, tmp_path: Path
) -> None:
    source = tmp_path / "pairs.tsv"
    source.write_bytes(b"request\tresponse\nA\tB\n\xff\tC\nD\t\nE\tF\n")
    out = tmp_path / "out"
    result = vnprep("finetune-pairs", source, "--tokenizer", bpe_path, "--out", out, "--json")
    assert result.code == 0
    assert json.loads(result.out)["ledger"] == {
        "read": 4,
        "kept": 2,
        "dropped": {},
        "rejected": {"empty-response": 1, "invalid-utf8": 1},
        "noted": {},
    }
    listed = [
        json.loads(line) for line in (out / "shard-00000.rejects.jsonl").read_text().splitlines()
    ]
    assert [(item["line"], item["reason"]) for item in listed] == [
        (3, "invalid-utf8"),
        (4, "empty-response"),
    ]
    assert re.search(r"rejected +2 ", result.err)


def test_truncation_is_named_and_counted(vnprep: Run, bpe_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "pairs.tsv"
    source.write_text("request\tresponse\n" + "Bật " * 50 + "\tĐã\nA\tB\n", encoding="utf-8")
    for policy, dropped, noted in (
        ("drop", {"too-long": 1}, {}),
        ("request-left", {}, {"cut:request-left": 1}),
    ):
        out = tmp_path / policy
        result = vnprep(
            *("finetune-pairs", source, "--tokenizer", bpe_path, "--out", out, "--json"),
            *("--max-len", 20, "--truncation", policy),
        )
        summary = json.loads(result.out)
        assert summary["ledger"]["dropped"] == dropped
        assert summary["ledger"]["noted"] == noted
        assert summary["longest_row"] <= 20
        config = json.loads((out / "manifest.json").read_text())["config"]
        assert (config["max_len"], config["truncation"]) == (20, policy)


def test_a_record_over_the_limit_is_rejected_and_the_limit_is_recorded(
    vnprep: Run, bpe_path: Path, tmp_path: Path
) -> None:
    source = tmp_path / "pairs.tsv"
    source.write_text("request\tresponse\nA\t" + "b" * (1 << 20) + "\nA\tB\n", encoding="utf-8")
    out = tmp_path / "out"
    rest = ("--tokenizer", bpe_path, "--out", out, "--json")
    result = vnprep("finetune-pairs", source, *rest, "--max-record-mb", 1)
    assert json.loads(result.out)["ledger"]["rejected"] == {"too-large": 1}
    config = json.loads((out / "manifest.json").read_text())["config"]
    assert config["read"]["max_record_bytes"] == 1 << 20
    (reject,) = (out / "shard-00000.rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["excerpt"].startswith("A\tbbb")


def test_delimiters_by_option(vnprep: Run, bpe_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "pairs.csv"
    for sign, name in (("|", "|"), ("\t", "tab"), (";", ";")):
        source.write_text(f"request{sign}response\na, b{sign}c\n", encoding="utf-8")
        out = tmp_path / f"out{ord(sign)}"
        rest = ("--tokenizer", bpe_path, "--out", out, "--delimiter", name)
        result = vnprep("finetune-pairs", source, *rest)
        assert result.code == 0, result.err
        assert vnprep("inspect", out, "--tsv").out.splitlines()[1].startswith("[BOS] a, b [SEP]")


def test_standard_input_is_prepared_like_a_file(bpe_path: Path, tmp_path: Path) -> None:
    program = "import sys; from vnprep.cli import main; main()"
    command = [sys.executable, "-c", program, "finetune-pairs", "-", "--format", "tsv"]
    command += ["--tokenizer", str(bpe_path), "--out", "out", "--workers", "2"]
    text = "request\tresponse\nBật đèn\tĐã bật\nTắt\t\n"
    for said in ("rejected", "finished already"):
        result = subprocess.run(
            command, input=text, capture_output=True, text=True, cwd=tmp_path, check=True
        )
        assert said in result.stderr
    (reject,) = (tmp_path / "out" / "shard-00000.rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["source"] == "<stdin>"
    (listed,) = (tmp_path / "out" / "inputs-00000.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(listed)["name"] == "<stdin>"


def test_tokenizer_train_takes_every_layout_and_does_not_overwrite(
    vnprep: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.tsv").write_text("input\ttarget\n[BOS] một hai\tmột hai [EOS]\n")
    (tmp_path / "b.csv").write_text("request,response\nba,bốn\n")
    (tmp_path / "c.jsonl").write_text('{"text": "năm"}\n{"text": 6}\n')
    (tmp_path / "d.txt").write_text("sáu\n")
    out = tmp_path / "t.json"
    result = vnprep("tokenizer", "train", tmp_path, "--vocab-size", 300, "--out", out, "--json")
    assert result.code == 0, result.err
    summary = json.loads(result.out)
    size = len(("một hai" + "ba" + "bốn" + "năm" + "sáu\n").encode())
    assert (summary["texts_read"], summary["bytes_read"]) == (5, size)
    assert (summary["texts_used"], summary["bytes_used"]) == (5, size)
    assert "trained on 5 texts" in result.err
    assert "all that was read" in result.err
    assert summary["excluded"] == {"not-text": 1}
    again = vnprep("tokenizer", "train", tmp_path / "d.txt", "--vocab-size", 300, "--out", out)
    assert again.code == 1
    assert "--overwrite" in again.err


def test_tokenizer_train_samples_the_whole_of_its_inputs(vnprep: Run, tmp_path: Path) -> None:
    lines = [f"dòng {number:06d} có một số riêng" for number in range(100_000)]
    for number, name in enumerate(("a.txt", "b.txt")):
        half = lines[number * 50_000 : (number + 1) * 50_000]
        (tmp_path / name).write_text("\n".join(half) + "\n", encoding="utf-8")
    summaries = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.json"
        result = vnprep(
            *("tokenizer", "train", tmp_path / "a.txt", tmp_path / "b.txt", "--split", "line"),
            *("--vocab-size", 320, "--sample-mb", 1, "--out", out, "--json"),
        )
        assert result.code == 0, result.err
        summaries.append({**json.loads(result.out), "out": ""})
    summary = summaries[0]
    assert summaries[1] == summary
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert summary["texts_read"] == 100_000
    assert summary["bytes_read"] == sum(len(line.encode()) for line in lines)
    assert 0.9 * (1 << 20) < summary["bytes_used"] <= 1 << 20
    share = summary["bytes_used"] / summary["bytes_read"]
    assert abs(summary["texts_used"] / 100_000 - share) < 0.01
    assert "spread over all of them (--sample-mb 1)" in result.err


def test_tokenizer_train_reads_chats_and_quoted_tables(vnprep: Run, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "chào"}, {"role": "assistant", "content": "vâng ạ"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"hội thoại": turns}, ensure_ascii=False))
    (tmp_path / "bars.csv").write_text("text|x\nbốn|y\n", encoding="utf-8")
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "năm " * (1 << 19)}))
    (tmp_path / "notes.doc").write_text("passed over")
    (tmp_path / "excel.tsv").write_text('text\n"một ""hai"" ba"\n', encoding="utf-8")
    result = vnprep(
        *("tokenizer", "train", tmp_path, "--vocab-size", 300, "--out", tmp_path / "t.json"),
        *("--messages-field", "hội thoại", "--quoted-tsv", "--delimiter", "|", "--json"),
        *("--max-record-mb", 1),
    )
    assert result.code == 0, result.err
    summary = json.loads(result.out)
    assert summary["excluded"] == {"too-large": 1}
    assert summary["texts_used"] == 4
    assert summary["bytes_used"] == len('chàovâng ạmột "hai" babốn'.encode())
    assert "whose ending tells no format" in result.err


def test_inspect_of_a_row_that_is_not_there(vnprep: Run, make_data: Any, tmp_path: Path) -> None:
    folder = make_data(tmp_path / "d", [[[5], [6]]])
    result = vnprep("inspect", folder, "--row", 9)
    assert result.code == 1
    assert "rows are numbered 0 to 0" in result.err
    assert vnprep("inspect", folder, "--tsv", "--json").code == 2
    assert vnprep("inspect", tmp_path / "nowhere").code == 2
    (tmp_path / "empty").mkdir()
    assert "no finished data set" in vnprep("inspect", tmp_path / "empty").err


def test_append_adds_what_is_new_and_verify_says_what_is_unfinished(
    vnprep: Run, bpe_path: Path, tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"Quạt {name}\n", encoding="utf-8")
    out = tmp_path / "out"

    def run(*names: str) -> Any:
        inputs = [tmp_path / name for name in names]
        return vnprep("pretrain-text", *inputs, "--tokenizer", bpe_path, "--out", out, "--append")

    assert "inputs: 1 added, 0 there already" in run("a.txt").err
    assert "inputs: 1 added, 1 there already" in run("a.txt", "b.txt").err
    assert "inputs: 0 added, 2 there already" in run("a.txt", "b.txt").err
    both = vnprep(
        "pretrain-text", out, "--tokenizer", bpe_path, "--out", out, "--append", "--overwrite"
    )
    assert both.code == 2
    assert "cannot be given together" in both.err
    (out / ".work").mkdir()
    (out / ".work" / "identity.json").write_text("{}")
    verified = vnprep("verify", out)
    assert verified.code == 0
    assert "is unfinished, which is no damage" in verified.err
    assert json.loads(vnprep("verify", out, "--json").out)["unfinished_run"] is True
