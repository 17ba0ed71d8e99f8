"""From a model of others to one of ours: adopt, prepare, fine-tune on two ranks, resume."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from modeling.start import adopt
from modeling.weights import load_model
from tests.train.foreign import END, hf_config, write_hf
from vnprep.shards.read import ShardSet

pytestmark = pytest.mark.e2e

if TYPE_CHECKING:
    from conftest import Server, Workshop

ROOT = Path(__file__).parents[2]
ROWS = 60


@dataclass(frozen=True)
class Foreign:
    """A model of others, and data that was prepared for it."""

    folder: Path
    hf: Path
    pairs: Path

    def finetuning(self, name: str, config: Path, *more: object) -> list[object]:
        """Arguments of a small run that begins with it."""
        return [
            *("--data", self.pairs, "--init", self.hf, "--out", self.folder / name),
            *("--deepspeed_config", config, "--steps", 6, "--micro-batch", 2, "--lr", 1e-2),
            *("--save-every", 3, "--keep-last", 9, "--min-lr-ratio", 1, "--warmup", 0, *more),
        ]


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Foreign:
    folder = tmp_path_factory.mktemp("foreign")
    # A Qwen3: more modules a layer, which all ranks must call alike under ZeRO 3.
    shape = hf_config("Qwen3", head_dim=8, initializer_range=0.05, max_position_embeddings=256)
    write_hf(folder / "hf", shape)
    lines = (ROOT / "data" / "smarthome_heldout.tsv").read_text().splitlines()
    (folder / "pairs.tsv").write_text("\n".join(lines[: ROWS + 1]) + "\n")
    for command in (
        [ROOT / "train" / "adopt.py", folder / "hf", "--out", folder / "t", "--tokenizer-only"],
        [
            *("-m", "vnprep", "finetune-pairs", folder / "pairs.tsv", "--out", folder / "pairs"),
            *("--tokenizer", folder / "t" / "tokenizer.json", "--special", f"eos={END}"),
            *("--workers", "1"),
        ],
    ):
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            env=server.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
    return Foreign(folder, folder / "hf", folder / "pairs")


@pytest.fixture(scope="session")
def adapted(foreign: Foreign, server: Server, workshop: Workshop) -> dict[int, Path]:
    """The same LoRA run under ZeRO 0, 1, 2 and 3, on two ranks."""
    outs = {}
    for stage in (0, 1, 2, 3):
        arguments = foreign.finetuning(f"zero{stage}", workshop.config(stage), "--lora", 4)
        result = server.run(2, "finetune.py", *arguments, "--lora-dropout", 0.1)
        assert result.code == 0, result.text
        outs[stage] = foreign.folder / f"zero{stage}"
    return outs


def test_adapters_train_alike_under_every_zero_stage(
    adapted: dict[int, Path], workshop: Workshop
) -> None:
    losses = {stage: workshop.losses(out) for stage, out in adapted.items()}
    assert losses[0][-1] < losses[0][0] - 0.1
    weights = {stage: load_file(out / "model/model.safetensors") for stage, out in adapted.items()}
    adapters = {
        stage: load_file(out / "adapter/adapter_model.safetensors")
        for stage, out in adapted.items()
    }
    for stage in (1, 2, 3):
        assert losses[stage] == pytest.approx(losses[0], abs=1e-5)
        torch.testing.assert_close(weights[stage], weights[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(adapters[stage], adapters[0], atol=1e-4, rtol=0)


def test_what_a_lora_run_leaves(foreign: Foreign, adapted: dict[int, Path]) -> None:
    out = adapted[3]
    loaded = load_model(out)
    start = adopt(foreign.hf, ShardSet.open(foreign.pairs).tokenizer())
    before, after = start.state_dict(), loaded.model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # Tokens are new, so their embeddings are trained, and the tied head with them.
    assert changed == {name for name in before if not name.endswith("norm.weight")}
    content = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (content["peft_type"], content["r"]) == ("LORA", 4)
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert settings["lora"]["rank"] == 4 and settings["lora"]["embeddings"] is True


def test_a_lora_run_resumes_bit_for_bit_dropout_and_all(
    foreign: Foreign, adapted: dict[int, Path], server: Server, workshop: Workshop
) -> None:
    out = adapted[1]
    whole, losses = load_file(out / "model/model.safetensors"), workshop.losses(out)
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "step-00000006")
    arguments = foreign.finetuning("zero1", workshop.config(1), "--lora", 4)
    other = server.run(2, "finetune.py", *arguments)
    assert other.code == 1 and "lora" in other.text
    again = server.run(2, "finetune.py", *arguments, "--lora-dropout", 0.1)
    assert again.code == 0, again.text
    assert workshop.losses(out) == losses
    torch.testing.assert_close(load_file(out / "model/model.safetensors"), whole, rtol=0, atol=0)


def test_adapters_train_in_bfloat16_and_sharded(
    foreign: Foreign, server: Server, workshop: Workshop
) -> None:
    config = json.loads(workshop.config(3).read_text())
    config["bf16"] = {"enabled": True}
    path = foreign.folder / "bf16.json"
    path.write_text(json.dumps(config))
    arguments = foreign.finetuning("bf16", path, "--lora", 4, "--lora-targets", "o_proj,down_proj")
    result = server.run(2, "finetune.py", *arguments)
    assert result.code == 0, result.text
    losses = workshop.losses(foreign.folder / "bf16")
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("stage", [1, 3])
def test_another_architecture_trains_resumes_and_is_kept_apart(
    foreign: Foreign, server: Server, workshop: Workshop, tmp_path: Path, stage: int
) -> None:
    import transformers

    shape = transformers.GPT2Config(
        vocab_size=310, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    write_hf(tmp_path / "gpt2", shape)
    out = tmp_path / "out"
    arguments = foreign.finetuning("gpt2", workshop.config(stage), "--model-impl", "hf")
    arguments[arguments.index("--init") + 1] = tmp_path / "gpt2"
    arguments[arguments.index("--out") + 1] = out
    result = server.run(2, "finetune.py", *arguments)
    assert result.code == 0, result.text
    losses, whole = workshop.losses(out), load_file(out / "model/model.safetensors")
    assert losses[-1] < losses[0] - 0.1
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "step-00000006")
    again = server.run(2, "finetune.py", *arguments)
    assert again.code == 0, again.text
    # With dropout, which GPT-2 has: what is dropped is a function of the step.
    assert workshop.losses(out) == losses
    torch.testing.assert_close(load_file(out / "model/model.safetensors"), whole, rtol=0, atol=0)
    refused = server.run(2, "finetune.py", *arguments, "--lora", 4)
    assert refused.code == 1 and "--lora: a model of transformers does not" in refused.text
    assert load_model(out).config.model_type == "gpt2"


def test_pretraining_goes_on_with_a_model_of_others(
    foreign: Foreign, server: Server, workshop: Workshop, tmp_path: Path
) -> None:
    """Its first loss is the model's own, and a folder that does not fit is refused."""
    text = (workshop.pretrain / "tokenizer.json").read_text()
    theirs = write_hf(tmp_path / "hf", hf_config(vocab_size=100), tokenizer=text)
    arguments = workshop.pretraining(tmp_path / "out", workshop.config(1), steps=2)
    place = arguments.index("--model")
    arguments[place : place + 2] = ["--init", tmp_path / "hf"]
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert load_model(tmp_path / "out").config.vocab_size == 128
    assert theirs.config.vocab_size == 100
    arguments[place + 1] = foreign.hf
    arguments[arguments.index("--out") + 1] = tmp_path / "other"
    refused = server.run(2, "pretrain.py", *arguments)
    assert refused.code == 1
    assert "not that of the model with tokens added" in refused.text
