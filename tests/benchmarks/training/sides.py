"""What is measured: one optimizer step of each side, on the same batches.

Every side trains a model of the same shape in the same precision: float32 on the CPU, bf16 weights
with float32 masters on CUDA, AdamW, gradients clipped at 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention import document_mask
from modeling.config import ModelConfig
from modeling.model import LlamaForCausalLM
from trainer import engine as deepspeed_engine
from trainer.compiling import compile_layers
from trainer.distributed import World
from trainer.feed import StepData
from trainer.guard import Guard
from trainer.optimizers import parameter_groups
from trainer.step import OptimizerStep

#: Does one optimizer step.
Step = Callable[[StepData], None]
LR = 1e-4


class MasterAdamW:
    """AdamW on float32 masters of bf16 weights, which is what DeepSpeed does in bf16."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = [p for p in model.parameters() if p.requires_grad]
        self._masters = [p.detach().float().clone().requires_grad_() for p in self._weights]
        self._optimizer = torch.optim.AdamW(
            self._masters, lr=LR, fused=self._masters[0].is_cuda, weight_decay=0.1
        )

    def step(self) -> None:
        """Clip, update the masters, round them to the weights."""
        for weight, master in zip(self._weights, self._masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        nn.utils.clip_grad_norm_(self._masters, 1.0)
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self._weights, self._masters)


class PlainAdamW:
    """AdamW on the weights themselves."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=LR)

    def step(self) -> None:
        """Clip and update."""
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()


def deepspeed(config: ModelConfig, ds_config: Path, world: World, compiled: bool) -> Step:
    """Ours, as ``train/pretrain.py`` runs it."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    if compiled:
        compile_layers(model, "inductor")
    raw = json.loads(ds_config.read_text())
    shape = deepspeed_engine.BatchShape(1, 1)
    final = deepspeed_engine.final_config(raw, shape, 1.0)
    settings = deepspeed_engine.AdamWSettings(LR, (0.9, 0.95), 0.1)
    engine = deepspeed_engine.build_engine(model, settings, final, world)
    step = OptimizerStep(engine, world, Guard(0.0, 1.0, {}), None)

    def run(data: StepData) -> None:
        step.run(data, LR, asked=lambda: False, waited=0.0)

    return run


def plain(config: ModelConfig, device: torch.device, compiled: bool) -> Step:
    """Ours, in a loop without DeepSpeed."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    if compiled:
        compile_layers(model, "inductor")
    return _loop(model.to(device, _dtype(device)), lambda batch: model(**batch))


def transformers(config: ModelConfig, device: torch.device) -> Step:
    """Hugging Face's model in the same loop, with a block-diagonal mask and scaled_dot_product."""
    import transformers as library

    torch.manual_seed(0)
    content = config.to_hf()
    own = library.AutoConfig.for_model(content.pop("model_type"), **content)
    model = library.AutoModelForCausalLM.from_config(own).to(device, _dtype(device))

    def loss(batch: dict[str, Tensor]) -> Tensor:
        mask = document_mask(batch["document_ids"], batch["document_ids"])
        logits = model(
            batch["input_ids"],
            attention_mask=mask,
            position_ids=batch["position_ids"],
            use_cache=False,
        ).logits
        return F.cross_entropy(
            logits.float().flatten(0, 1), batch["labels"].flatten(), reduction="sum"
        )

    return _loop(model, loss)


def _loop(model: Any, loss: Callable[[dict[str, Tensor]], Tensor]) -> Step:
    on_cuda = next(model.parameters()).is_cuda
    optimizer = MasterAdamW(model) if on_cuda else PlainAdamW(model)

    def run(data: StepData) -> None:
        for batch in data.batches:
            (loss(batch) / data.supervised).backward()
        optimizer.step()

    return run


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32
