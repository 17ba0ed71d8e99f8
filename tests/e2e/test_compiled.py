"""Runs with compiled layers: the same curve, and checkpoints that do not show it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

pytestmark = pytest.mark.e2e

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Server, Workshop


def test_a_compiled_run_is_the_same_and_goes_on_uncompiled(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    reference = workshop.losses(staged[1])
    whole, out = workshop.folder / "compiled", workshop.folder / "uncompiled"
    arguments = workshop.pretraining(whole, workshop.config(1), compile_backend="aot_eager")
    result = server.run(2, "pretrain.py", *arguments, "--compile")
    assert result.code == 0, result.text
    assert "ZeRO 1, fp32, cpu, compiled · " in result.text
    assert workshop.losses(whole) == pytest.approx(reference, abs=1e-5)
    shutil.copytree(whole, out)
    shutil.rmtree(out / "model")
    for step in (10, 12):
        shutil.rmtree(out / "checkpoints" / f"step-{step:08d}")
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(1)))
    assert result.code == 0, result.text
    assert "continuing after step 5 " in result.text and "compiled" not in result.text.split("·")[2]
    assert workshop.losses(out)[:5] == workshop.losses(whole)[:5]
    assert workshop.losses(out) == pytest.approx(reference, abs=1e-5)
