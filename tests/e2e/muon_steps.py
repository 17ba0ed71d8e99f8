"""A rank that does a few steps of Muon in DeepSpeed's engine, and writes the whole weights down.

muon_steps.py batches.pt out stage precision grad-clip
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "train"))

from trainer import environment  # noqa: E402

environment.prepare()

import torch  # noqa: E402
import torch._dynamo  # noqa: E402

from modeling.config import ModelConfig  # noqa: E402
from modeling.model import LlamaForCausalLM  # noqa: E402
from trainer import engine as deepspeed_engine  # noqa: E402
from trainer.distributed import join, leave  # noqa: E402
from trainer.optimizers import check_muon  # noqa: E402

#: The compiler takes longer than the steps.
torch._dynamo.config.disable = True


def main(source: str, out: str, stage: str, precision: str, clip: str) -> None:
    """Write ``out`` on rank 0."""
    content = torch.load(source)
    world = join()
    torch.manual_seed(0)
    raw: dict[str, Any] = {
        "bf16": {"enabled": precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": {"stage": int(stage), "overlap_comm": False},
    }
    if stage == "3":
        raw["zero_optimization"]["reduce_scatter"] = False
    batches = content["batches"]
    shape = deepspeed_engine.BatchShape(2, len(batches) // world.size)
    config = deepspeed_engine.final_config(raw, shape, float(clip))
    check_muon(config, float(clip), Path("ds.json"))
    muon = deepspeed_engine.MuonSettings(0.02, 0.95)
    settings = deepspeed_engine.AdamWSettings(1e-3, (0.9, 0.95), 0.1, muon=muon)
    model = LlamaForCausalLM(ModelConfig(**content["model"]))
    engine = deepspeed_engine.build_engine(model, settings, config, world)
    supervised = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
    own = batches[world.rank :: world.size]
    own_clip = float(clip) if deepspeed_engine.clips_itself(config) else None
    for _ in range(3):
        for batch in own:
            engine.backward(engine(**batch) * (world.size / supervised), scale_wrt_gas=False)
            if batch is not own[-1]:
                engine.step()
        deepspeed_engine.update(engine, 1e-3, own_clip)
    weights = deepspeed_engine.whole_weights(engine, world)
    if world.is_main:
        torch.save(weights, out)
    leave(world, together=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
