"""Which parameters are Muon's, and where Muon is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from trainer.optimizers import check_muon, is_muons
from vnprep.errors import TrainingError


def config(stage: int, precision: str, **zero: Any) -> dict[str, Any]:
    return {"bf16": {"enabled": precision == "bf16"}, "zero_optimization": {"stage": stage, **zero}}


@pytest.mark.parametrize(
    ("given", "clip"),
    [
        (config(0, "fp32"), 1.0),
        (config(1, "bf16"), 1.0),
        (config(1, "fp32"), 0.0),
        (config(2, "bf16"), 0.0),
        (config(3, "bf16", reduce_scatter=False), 0.0),
    ],
)
def test_where_muon_works(given: dict[str, Any], clip: float) -> None:
    check_muon(given, clip, Path("ds.json"))


@pytest.mark.parametrize(
    ("given", "clip", "message"),
    [
        (config(0, "bf16"), 0.0, "without ZeRO"),
        (config(1, "fp32"), 1.0, r"clipping would scale Muon's update.*--grad-clip 0"),
        (config(2, "bf16"), 1.0, "at ZeRO 2 in bf16"),
        (config(3, "bf16", reduce_scatter=False), 1.0, "at ZeRO 3 in bf16"),
        (config(3, "bf16"), 0.0, "reduce_scatter"),
        (config(3, "bf16", offload_optimizer={"device": "cpu"}), 0.0, "offloading"),
    ],
)
def test_where_it_is_refused(given: dict[str, Any], clip: float, message: str) -> None:
    with pytest.raises(TrainingError, match=f"(?s){message}"):
        check_muon(given, clip, Path("ds.json"))


def test_embeddings_head_and_norms_are_not_muons(make_config: Any) -> None:
    shape: ModelConfig = make_config(tie_word_embeddings=False)
    names = {name for name, p in LlamaForCausalLM(shape).named_parameters() if is_muons(name, p)}
    assert "model.layers.0.mlp.gate_up_proj.weight" in names
    assert not [name for name in names if "norm" in name or "embed" in name or "head" in name]
