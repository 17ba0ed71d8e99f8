"""The DeepSpeed files that come with the project, and files that are refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer import engine, optimizers
from vnprep.errors import TrainingError

FOLDER = Path(__file__).parents[3] / "ds_configs"
FILES = sorted(FOLDER.glob("*.json"))
STAGES = {"cpu": 1, "zero1": 1, "zero2": 2, "zero3": 3, "zero3_offload": 3, "zero3_nvme": 3}
OFFLOADED = {"zero3_offload": "cpu", "zero3_nvme": "nvme"}


@pytest.fixture(scope="module", autouse=True)
def quiet_import() -> None:
    """Import DeepSpeed once; the warnings of its own imports are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed  # noqa: F401


def settings_in(config: dict[str, Any]) -> Iterator[str]:
    """Name every setting, those of sections too."""
    for name, value in config.items():
        yield name
        if isinstance(value, dict):
            yield from settings_in(value)


def test_the_files_are_those_we_know() -> None:
    assert {path.stem for path in FILES} == set(STAGES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_is_accepted_and_is_what_its_name_says(path: Path) -> None:
    config = engine.read_config(path)
    shape = engine.batch_shape(config, None, None, path)
    complete = engine.final_config(config, shape, 1.0)
    engine.check_config(complete, path)
    assert engine.zero_stage(complete) == STAGES[path.stem]
    assert engine.precision(complete) == ("fp32" if path.stem == "cpu" else "bf16")
    offload = complete["zero_optimization"].get("offload_optimizer")
    assert (offload or {}).get("device") == OFFLOADED.get(path.stem)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_setting_has_its_reason_in_the_readme(path: Path) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    missing = [
        name
        for name in settings_in(json.loads(path.read_text()))
        if f"`{name}`" not in readme and f".{name}`" not in readme
    ]
    assert missing == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_default_that_changes_the_result_is_silent(path: Path) -> None:
    names = set(settings_in(json.loads(path.read_text())))
    assert {"gradient_clipping", "overlap_comm", "communication_data_type"} <= names
    assert {"grad_accum_dtype", "zero_force_ds_cpu_optimizer"} <= names
    assert path.stem == "cpu" or "check_grad_overflow" in names


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    config = {
        "train_batch_size": 999,
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 9.0,
    }
    assert engine.batch_shape(config, None, None, tmp_path) == engine.BatchShape(4, 2)
    shape = engine.batch_shape(config, 3, None, tmp_path)
    assert shape == engine.BatchShape(3, 2)
    complete = engine.final_config(config, shape, 0.5)
    assert complete == {
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
    }
    assert config["train_batch_size"] == 999


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "holds no JSON object"),
        ('{"optimizer": {"type": "AdamW"}}', "'optimizer', which this trainer sets itself"),
        ('{"scheduler": {"type": "WarmupLR"}}', "use --schedule"),
        ('{"fp16": {"enabled": true}}', "use bf16"),
        ('{"gradient_clipping": "auto"}', 'a value "auto"'),
        ('{"zero_optimization": {"compute_grad_norm": false}}', "no bad gradient would be noticed"),
        ('{"zero_optimization": {"stage3_prefetch_bucket_size": "auto"}}', 'a value "auto"'),
    ],
)
def test_a_file_that_cannot_serve_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(content)
    with pytest.raises(TrainingError, match=message):
        engine.read_config(path)


def test_fp16_that_is_off_is_no_reason_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{"fp16": {"enabled": false}}')
    assert engine.read_config(path) == {"fp16": {"enabled": False}}


def test_a_missing_file_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"ds_configs/zero1\.json"):
        engine.read_config(tmp_path / "zero9.json")


@pytest.mark.parametrize("number", [0, -1, 1.5, "8", True, None])
def test_a_batch_size_that_is_no_number_is_refused(tmp_path: Path, number: object) -> None:
    with pytest.raises(TrainingError, match="train_micro_batch_size_per_gpu is"):
        engine.batch_shape({"train_micro_batch_size_per_gpu": number}, None, None, tmp_path)


def test_what_deepspeed_refuses_is_said_before_anything_is_built(tmp_path: Path) -> None:
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 7}}
    with pytest.raises(TrainingError, match="DeepSpeed refuses this configuration"):
        engine.check_config(config, tmp_path / "ds.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient_cliping": 1.0}, "did you mean 'gradient_clipping'?"),
        ({"zero_optimisation": {"stage": 3}}, "did you mean 'zero_optimization'?"),
        ({"data_types": {"grad_acum_dtype": "fp32"}}, "did you mean 'data_types.grad_accum_dtype'"),
        ({"aio": {"queue_dept": 8}}, "did you mean 'aio.queue_depth'"),
        ({"xyzzy": 1}, "'xyzzy', which DeepSpeed does not know"),
    ],
)
def test_a_setting_that_deepspeed_would_pass_over_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    config = {"train_micro_batch_size_per_gpu": 1} | change
    with pytest.raises(TrainingError) as refused:
        engine.check_config(config, tmp_path / "ds.json")
    assert message in str(refused.value)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 5, bias=False))
    model[2].weight = model[0].weight  # tied: it must be in one group, once
    matrices, vectors = optimizers.parameter_groups(model, 0.1)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert [parameter.shape for parameter in matrices["params"]] == [torch.Size([5, 4])]
    assert all(parameter.ndim == 1 for parameter in vectors["params"])
    assert len(vectors["params"]) == 2
