"""Every command of the README's tour, one after another, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

Shell = Callable[..., str]

pytestmark = pytest.mark.e2e


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return ``run(command line)`` → stdout, in a folder with train/, ds_configs/ and samples."""
    for name in ("train", "ds_configs", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
    }

    def run(line: str) -> str:
        result = subprocess.run(
            line, shell=True, cwd=tmp_path, env=environment, text=True, capture_output=True
        )
        assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    return run


def test_from_text_and_pairs_to_a_model_that_transformers_loads(
    shell: Shell, tmp_path: Path
) -> None:
    shell("head -400 data/pretrain.tsv > text.tsv; head -200 data/smarthome_train.tsv > pairs.tsv")
    shell("vnprep tokenizer train text.tsv pairs.tsv --vocab-size 600 --out tokenizer.json")
    shell("vnprep pretrain-tsv text.tsv --tokenizer tokenizer.json --out pre")
    shell("vnprep finetune-pairs pairs.tsv --tokenizer tokenizer.json --out ft")
    assert "whole" in shell("vnprep verify ft")
    assert shell("vnprep inspect ft --sample 2").count("[SEP]") == 4
    launch = "deepspeed --num_accelerators 2 --master_port 29617"
    config = "--deepspeed_config ds_configs/cpu.json"
    shell(f"{launch} train/pretrain.py --data pre --model tiny {config} --out runs/pre --steps 6")
    shell(f"{launch} train/finetune.py --data ft --init runs/pre {config} --out runs/ft --epochs 2")
    assert (tmp_path / "runs/ft/loss.png").read_bytes().startswith(b"\x89PNG")
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "runs/ft/metrics.jsonl").read_text().splitlines()
        if '"loss"' in line
    ]
    assert losses[-1] < losses[0]

    request = "Bật quạt phòng ngủ lên mức 2"
    answer = json.loads(shell(f'python train/generate.py runs/ft --json "{request}"'))
    shell("python train/export.py runs/ft --out hf")
    program = (
        "import sys, json\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, tokenizer = (kind.from_pretrained('hf') for kind in "
        "(AutoModelForCausalLM, AutoTokenizer))\n"
        "chat = [{'role': 'user', 'content': sys.argv[1]}]\n"
        "given = tokenizer.apply_chat_template(chat, add_generation_prompt=True, "
        "return_tensors='pt', return_dict=True)\n"
        "new = model.generate(**given, max_new_tokens=128, do_sample=False)\n"
        "text = tokenizer.decode(new[0, given['input_ids'].shape[1]:], skip_special_tokens=True)\n"
        "print(json.dumps(text))\n"
    )
    (tmp_path / "load.py").write_text(program)
    assert json.loads(shell(f'python load.py "{request}"')) == answer["response"]
