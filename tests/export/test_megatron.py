"""Megatron-LM's own reader opens what the export writes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vnprep.export.megatron import MASK_PREFIX, TOKENS_PREFIX, Megatron

needs_megatron = pytest.mark.skipif(
    find_spec("megatron") is None,
    reason="megatron-core is not installed; it has wheels for Linux: pip install megatron-core",
)

# In a process of its own: importing Megatron takes seconds and warns about what is not installed.
_READ = """
import json, sys
from megatron.core.datasets.indexed_dataset import IndexedDataset
for prefix in sys.argv[1:]:
    data = IndexedDataset(prefix)
    print(json.dumps({
        "dtype": data.index.dtype.__name__,
        "rows": [data[number].tolist() for number in range(len(data))],
        "documents": data.document_indices.tolist(),
        "lengths": data.sequence_lengths.tolist(),
    }))
"""


def _read(*prefixes: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _READ, *map(str, prefixes)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_megatron
def test_megatron_reads_every_token_and_the_mask(
    prepare: Any, run_export: Any, tmp_path: Path
) -> None:
    # Megatron itself goes from uint16 to int32 at a vocabulary of 65,500: 4 of it are special.
    types = {96: "uint16", 65_495: "uint16", 65_496: "int32"}
    made, prefixes = [], []
    for words in types:
        made.append(prepare(words=words, name=f"data{words}"))
        run_export(made[-1].folder, Megatron(), tmp_path / f"mg{words}")
        prefixes += [tmp_path / f"mg{words}" / name for name in (TOKENS_PREFIX, MASK_PREFIX)]
    read = _read(*prefixes)
    for prepared, tokens, mask, dtype in zip(
        made, read[::2], read[1::2], types.values(), strict=True
    ):
        assert tokens["rows"] == prepared.sequences
        assert tokens["dtype"] == dtype
        assert mask["rows"] == prepared.learnt
        assert tokens["documents"] == mask["documents"] == list(range(58))
        assert tokens["lengths"] == mask["lengths"] == [len(row) for row in prepared.sequences]


@needs_megatron
def test_pretraining_data_needs_no_mask_unless_eos_carries_no_loss(
    prepare: Any, run_export: Any, tmp_path: Path
) -> None:
    learnt = prepare("pretrain", name="all")
    run_export(learnt.folder, Megatron(), tmp_path / "mg")
    assert not list((tmp_path / "mg").glob("loss_mask*"))
    no_eos = prepare("pretrain", name="no_eos", eos_loss=False)
    run_export(no_eos.folder, Megatron(), tmp_path / "mg_no_eos")
    tokens, mask = _read(tmp_path / "mg" / TOKENS_PREFIX, tmp_path / "mg_no_eos" / MASK_PREFIX)
    assert tokens["rows"] == learnt.sequences
    assert mask["rows"] == no_eos.learnt
