"""The README and the guides name only commands, options and files that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from vnprep.cli import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join([README, *GUIDES])
LINES = TEXT.replace("\\\n", " ").splitlines()


def _options(command: click.Command) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def test_every_vnprep_command_and_its_options_exist() -> None:
    found = 0
    for line in LINES:
        for use in re.findall(r"(?:^|\$ |`)vnprep ([a-z][^`|#]*)", line):
            words = use.split()
            command: click.Command = cli
            while isinstance(command, click.Group):
                assert words[0] in command.commands, line
                command = command.commands[words.pop(0)]
            given = set(re.findall(r"--[a-z][a-z-]*", " ".join(words)))
            assert given <= _options(command), f"{given - _options(command)} in: {line}"
            found += 1
    assert found > 10


@pytest.mark.parametrize(
    "script", ["pretrain", "finetune", "adopt", "generate", "evaluate", "export"]
)
def test_every_training_option_exists(script: str) -> None:
    shown = subprocess.run(
        [sys.executable, ROOT / "train" / f"{script}.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    uses = [line for line in LINES if f"train/{script}.py" in line]
    assert uses
    for line in uses:
        for name in re.findall(r"--[a-z][a-z_-]*", line.split(f"train/{script}.py")[1]):
            assert name in shown, f"{name} in: {line}"


def test_the_python_examples_compile_and_their_imports_exist() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "README.md", "exec")
        for line in re.findall(r"^(?:from|import) .*$", block, re.MULTILINE):
            if "llama_cpp" not in line:  # not among the project's own needs
                exec(line, {})


def test_every_file_and_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)`", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"`((?:train|ds_configs|data|tests)/[\w./]+\.\w+)`", TEXT):
        assert (ROOT / name).exists(), name
    assert "@@" not in TEXT, "a figure is still missing"
