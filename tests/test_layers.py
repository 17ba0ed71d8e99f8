"""Imports go down only, no stage imports another, and the data side needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import vnprep

ROOT = Path(vnprep.__file__).parent

#: From the bottom up. A module may import what stands on a lower line, or its own package.
LAYERS = [
    {"errors"},
    {"durable", "config", "interrupts", "startup", "texts", "tokenizer.special"},
    {"vietnamese", "examples"},
    {"tokenizer.load", "tokenizer.train", "tokenizer.sample"},
    {"tokenizer.encode"},
    {"truncation", "tokenizer.measure", "tokenizer.fast", "tokenizer.probe"},
    {"tokenizer.parity", "packing.bins"},
    {"packing.index"},
    {"shards"},
    {"sources", "packing.file"},
    {"pipeline", "loading", "tokenizer.corpus", "tokenizer.report", "audit", "export"},
    {"engines"},
    {"run"},
    {"cli"},
    {"__main__"},
]


def _modules() -> dict[str, set[str]]:
    """Return every module's imports from vnprep, both by their name inside vnprep."""
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        imports = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                head, _, rest = node.module.partition(".")
                if head == "vnprep":
                    imports.add(rest or "__init__")
        found[name] = imports
    return found


def _layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    raise AssertionError(f"{module} stands in no layer: add it to LAYERS")


def test_imports_go_down_only() -> None:
    modules = _modules()
    assert len(modules) > 30
    for module, imports in modules.items():
        if module in ("__init__", "tokenizer", "packing"):
            continue
        for imported in imports - {"__init__"}:
            same_package = module.split(".")[0] == imported.split(".")[0]
            assert _layer(imported) < _layer(module) or (
                same_package and _layer(imported) == _layer(module)
            ), f"{module} imports {imported}, which is not below it"


def test_the_data_side_imports_neither_torch_nor_deepspeed() -> None:
    names = [f"vnprep.{name}" for name in _modules() if name != "__init__"]
    program = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print(sorted({'torch', 'deepspeed', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_help_needs_no_heavy_import() -> None:
    program = (
        "import sys\nfrom vnprep.cli import cli\n"
        "print(sorted({'pyarrow', 'numpy', 'tokenizers', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
