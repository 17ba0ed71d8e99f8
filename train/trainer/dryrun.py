"""What a run would be: sizes, steps, and estimates of memory and disk. Nothing is written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from modeling.config import ModelConfig
from modeling.foreign import fresh
from modeling.foreign_config import ForeignConfig
from modeling.loss import ACCELERATOR_CHUNK_TOKENS
from modeling.model import LlamaForCausalLM
from trainer import engine
from trainer.lora import LoraSettings, add_adapters
from trainer.optimizers import is_muons
from trainer.preflight import Plan

GIB = 1024**3


def parameter_counts(config: ModelConfig, lora: LoraSettings | None = None) -> dict[str, int]:
    """Count the parameters without making them: all, trained, of embeddings and head, Muon's."""
    with torch.device("meta"):
        model = fresh(config) if isinstance(config, ForeignConfig) else LlamaForCausalLM(config)
        if lora is not None:
            assert isinstance(model, LlamaForCausalLM), "refused in preflight"
            add_adapters(model, lora, seed=0)
    named = list(model.named_parameters())
    return {
        "all": sum(p.numel() for _, p in named),
        "trained": sum(p.numel() for _, p in named if p.requires_grad),
        "embeddings": sum(p.numel() for name, p in named if ".layers." not in name and p.ndim == 2),
        "matrices": sum(p.numel() for name, p in named if is_muons(name, p)),
    }


def state_bytes(counts: dict[str, int], stage: int, ranks: int, *, bf16: bool, muon: bool) -> int:
    """Estimate weights, gradients and optimizer state on one rank, in bytes.

    With N parameters, all of them trained: weights 2N in bf16, 4N in fp32; gradients 4N (added up
    in fp32), under bf16 at ZeRO 0 and 1 2N more; Adam's two averages 8N (Muon has one, 4N); fp32
    masters 4N wherever ZeRO or bf16 keeps them. ZeRO 1 divides masters and averages by the ranks,
    ZeRO 2 (in fp32 ZeRO 1) the gradients, too, ZeRO 3 the weights, too (arXiv:1910.02054, with
    DeepSpeed 0.19's own copies).
    """
    n = counts["trained"]
    weights = (2 if bf16 else 4) * counts["all"]
    gradients = 4 * n + (2 * n if bf16 and stage < 2 else 0)
    averages = 8 * n - (4 * counts["matrices"] if muon else 0)
    masters = 4 * n if bf16 or stage > 0 else 0
    parts = [weights, gradients, averages + masters]
    divided = [stage >= 3, stage >= 2 or (stage == 1 and not bf16), stage >= 1]
    return sum(part // ranks if over else part for part, over in zip(parts, divided, strict=True))


def activation_bytes(model: ModelConfig, tokens: int, *, bf16: bool) -> int:
    """Estimate what the backward pass needs of ``tokens`` positions, in bytes.

    Counted from the layers: a position keeps 6 widths (the norms' inputs and outputs, queries,
    attention's output), keys and values, and 4 inner widths (gate, up, silu, product) a layer.
    The loss adds one chunk of fp32 logits and the head's fp32 gradient.
    """
    key_values = 2 * model.num_key_value_heads * model.head_dim
    a_layer = 6 * model.hidden_size + key_values + 4 * model.intermediate_size
    layers = tokens * model.num_hidden_layers * a_layer * (2 if bf16 else 4)
    chunk = min(tokens, ACCELERATOR_CHUNK_TOKENS) * model.vocab_size * 4
    return layers + chunk + 4 * model.vocab_size * model.hidden_size


def describe(plan: Plan, ranks: int) -> dict[str, Any]:
    """Collect what a run would be, as plain JSON; bytes are estimates."""
    options, shape = plan.options, plan.shape
    bf16, muon = engine.precision(plan.deepspeed) == "bf16", options.optimizer == "muon"
    counts = parameter_counts(plan.model, plan.lora)
    activations = activation_bytes(plan.model, shape.micro_batch * plan.loader.seq_len, bf16=bf16)
    manifests = [shards.manifest for shards in plan.sets]
    # Master weights and averages of what is trained, in fp32, of all ranks together.
    checkpoint = 12 * counts["trained"] - (4 * counts["matrices"] if muon else 0)
    needed = checkpoint * (options.keep_last + 1) + (2 if bf16 else 4) * counts["all"]
    return {
        "parameters": counts["all"],
        "trained_parameters": counts["trained"],
        "embedding_parameters": counts["embeddings"],
        "rows": sum(manifest.rows for manifest in manifests),
        "tokens": sum(manifest.tokens for manifest in manifests),
        "supervised_tokens": sum(manifest.supervised_tokens for manifest in manifests),
        "packed_rows": plan.loader.samples,
        "packed_fill": round(plan.loader.fill, 4),
        "seq_len": plan.loader.seq_len,
        "ranks": ranks,
        "micro_batch": shape.micro_batch,
        "accumulation": shape.accumulation,
        "positions_per_step": shape.micro_batch * shape.accumulation * ranks * plan.loader.seq_len,
        "steps": plan.steps,
        "steps_per_epoch": plan.loader.steps_per_epoch,
        "warmup_steps": plan.schedule.warmup_steps,
        "zero_stage": engine.zero_stage(plan.deepspeed),
        "precision": engine.precision(plan.deepspeed),
        "activation_bytes": activations,
        "rank_bytes": {
            str(stage): state_bytes(counts, stage, ranks, bf16=bf16, muon=muon) + activations
            for stage in (0, 1, 2, 3)
        },
        "checkpoint_bytes": checkpoint,
        "disk_bytes_needed": needed,
        "disk_bytes_free": shutil.disk_usage(_existing(options.out)).free,
    }


def _existing(path: Path) -> Path:
    """Return the nearest folder that is there."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def to_text(facts: dict[str, Any]) -> str:
    """Say ``describe``'s facts in lines."""
    rank_bytes = facts["rank_bytes"].items()
    memory = "\n".join(
        f"  ZeRO {stage}: {count / GIB:9.3f} GiB"
        + ("   <- this run" if int(stage) == facts["zero_stage"] else "")
        for stage, count in rank_bytes
    )
    trained = facts["trained_parameters"]
    trained = "" if trained == facts["parameters"] else f"; {trained:,} are trained"
    enough = facts["disk_bytes_free"] > facts["disk_bytes_needed"]
    return (
        f"{facts['parameters']:,} parameters, {facts['embedding_parameters']:,} of them in "
        f"embeddings and head{trained}\n"
        f"{facts['rows']:,} rows, {facts['tokens']:,} tokens, {facts['supervised_tokens']:,} of "
        f"them with loss: {facts['packed_rows']:,} packed rows of {facts['seq_len']:,}, "
        f"{facts['packed_fill']:.1%} full\n"
        f"{_counted(facts['ranks'], 'rank')} × micro-batch {facts['micro_batch']} × accumulation "
        f"{facts['accumulation']} × {facts['seq_len']} = {facts['positions_per_step']:,} "
        f"positions a step\n"
        f"{facts['steps']:,} steps, {facts['steps_per_epoch']:,} an epoch, "
        f"{facts['warmup_steps']:,} of warm-up\n"
        f"memory of a rank in {facts['precision']}, estimated, "
        f"{facts['activation_bytes'] / GIB:.3f} GiB of it activations and loss:\n{memory}\n"
        f"a checkpoint {facts['checkpoint_bytes'] / GIB:.3f} GiB; at most "
        f"{facts['disk_bytes_needed'] / GIB:.3f} GiB in all, "
        f"{facts['disk_bytes_free'] / GIB:.1f} GiB free: " + ("enough" if enough else "NOT ENOUGH")
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ranks_of(given: int | None) -> int:
    """Return the ranks to plan for: those asked for, else the launcher's, else one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if given is None else given


def as_json(facts: dict[str, Any]) -> str:
    """Return the facts as one JSON object."""
    return json.dumps(facts, indent=2)
