"""Tokens a second and MFU of training: ours under DeepSpeed, without it, and transformers' model.

    python tests/benchmarks/train_speed.py [--preset 110m] [--seq-len 2048] [--rounds 5] [--json]

All sides train a model of one shape on the same packed batches in one run and take turns; medians
are printed. The first takes its batches from the loader's thread, as training does, and tells how
long it waited. On CUDA: bf16, ``ds_configs/zero1.json``, layers compiled; on a CPU: float32,
``ds_configs/cpu.json``. ``transformers`` gets the same documents by a block-diagonal mask.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "train"), str(Path(__file__).parent)]

from trainer import environment  # noqa: E402

environment.prepare()

import torch  # noqa: E402
from training import head, sides  # noqa: E402
from training.data import make_data  # noqa: E402

from modeling.presets import PRESETS  # noqa: E402
from trainer.distributed import World, join, leave  # noqa: E402
from trainer.feed import Feed, StepData  # noqa: E402
from trainer.throughput import flops_per_token, peak_flops  # noqa: E402
from vnprep.loading.loader import PackedLoader  # noqa: E402


def arguments() -> argparse.Namespace:
    """Parse the command line; what is left out depends on the device."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="110m" if cuda else "tiny", choices=PRESETS)
    parser.add_argument("--seq-len", type=int, default=2048 if cuda else 256)
    parser.add_argument("--micro-batch", type=int, default=16 if cuda else 8)
    parser.add_argument("--vocab-size", type=int, default=32_000 if cuda else 8_064)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10 if cuda else 3, help="of a round")
    parser.add_argument("--supervised", type=float, default=1.0, help="share of tokens with loss")
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--no-compile", action="store_true", help="on CUDA, too")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure, and print a table."""
    options, world = arguments(), join()
    with tempfile.TemporaryDirectory() as folder:
        facts = measure(options, world, Path(folder))
    leave(world, together=True)
    print(json.dumps(facts, indent=2) if options.json else table(facts))


def measure(options: argparse.Namespace, world: World, folder: Path) -> dict[str, Any]:
    """Run every side in turn and return what was found, as plain JSON."""
    cuda = world.device.type == "cuda"
    config = replace(PRESETS[options.preset], vocab_size=options.vocab_size)
    compiled = cuda and not options.no_compile
    needed = options.micro_batch * options.seq_len * 8
    shards = make_data(folder, needed, options.supervised, options.seq_len)
    loader = PackedLoader(shards, seq_len=options.seq_len, micro_batch=options.micro_batch)
    ds_config = ROOT / "ds_configs" / ("zero1.json" if cuda else "cpu.json")
    makers: dict[str, Callable[[], sides.Step]] = {
        "deepspeed": lambda: sides.deepspeed(config, ds_config, world, compiled),
        "plain": lambda: sides.plain(config, world.device, compiled),
        "transformers": lambda: sides.transformers(config, world.device),
    }
    running, failed = _made(makers)
    rates: dict[str, list[float]] = {name: [] for name in running}
    waits: list[float] = []
    for number in range(options.rounds + 1):  # the first warms up and does not count
        for name in list(running):
            print(f"round {number} of {options.rounds}: {name}", file=sys.stderr, flush=True)
            try:
                rate, wait = _round(running[name], loader, number, options.steps, world)
            except Exception as error:  # a side that fails is named, and the others go on
                failed[name] = f"{type(error).__name__}: {error}"
                del running[name]
                continue
            if number:
                rates[name].append(rate)
                waits += [wait] if name == "deepspeed" else []
    medians = {name: statistics.median(found) for name, found in rates.items() if found}
    with torch.device("meta"):
        from modeling.model import LlamaForCausalLM

        parameters = sum(p.numel() for p in LlamaForCausalLM(config).parameters())
    flops = flops_per_token(config, parameters, parameters, options.seq_len)
    peak = peak_flops(world.device, "bf16" if cuda else "fp32", options.peak_tflops)
    tokens = min(8192 if cuda else 2048, options.micro_batch * options.seq_len)
    return {
        "device": torch.cuda.get_device_name()
        if cuda
        else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "preset": options.preset,
        "parameters": parameters,
        "positions": [options.micro_batch, options.seq_len],
        "vocab_size": options.vocab_size,
        "supervised": options.supervised,
        "compiled": compiled,
        "fill": round(loader.fill, 4),
        "tokens_per_s": {name: round(rate, 1) for name, rate in medians.items()},
        "mfu": {
            n: None if peak is None else round(r * flops / peak, 4) for n, r in medians.items()
        },
        "data_wait": round(statistics.mean(waits), 6) if waits else None,
        "head": head.compare(
            config.hidden_size, options.vocab_size, tokens, world.device, options.rounds
        ),
        "failed": failed,
    }


def _made(
    makers: dict[str, Callable[[], sides.Step]],
) -> tuple[dict[str, sides.Step], dict[str, str]]:
    running: dict[str, sides.Step] = {}
    failed: dict[str, str] = {}
    for name, make in makers.items():
        try:
            running[name] = make()
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return running, failed


def _round(
    step: sides.Step, loader: PackedLoader, number: int, steps: int, world: World
) -> tuple[float, float]:
    """Return tokens a second over some steps, and the share of time that data was waited for."""
    first = number * steps
    with Feed(loader, range(first, first + steps), world.device) as feed:
        data: StepData | None = feed.next()  # the thread has begun
        tokens, waited = 0, 0.0
        _wait(world)
        began = time.perf_counter()
        while data is not None:
            step(data)
            tokens += data.tokens
            data = feed.next()
            waited += feed.waited
        _wait(world)
        spent = time.perf_counter() - began
    return tokens / spent, waited / spent


def _wait(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize()


def table(facts: dict[str, Any]) -> str:
    """Write the findings for people."""
    rates, own = facts["tokens_per_s"], facts["tokens_per_s"].get("deepspeed")
    rows, seq_len = facts["positions"]
    compiled = ", compiled" if facts["compiled"] else ""
    lines = [
        f"{facts['device']}, torch {facts['torch']}{compiled}",
        f"{facts['preset']}: {facts['parameters'] / 1e6:,.1f} M parameters, {rows} × {seq_len:,} "
        f"positions, vocabulary {facts['vocab_size']:,}, {facts['supervised']:.0%} with loss",
        f"{'':<14}{'tokens/s':>12}{'MFU':>9}{'ours under DeepSpeed is … times':>34}",
    ]
    for name, rate in rates.items():
        mfu = facts["mfu"][name]
        share = "-" if mfu is None else f"{mfu:.1%}"
        ratio = "-" if own is None else f"{own / rate:.2f}"
        lines.append(f"{name:<14}{rate:>12,.0f}{share:>9}{ratio:>34}")
    lines += [f"{name:<14}failed: {why}" for name, why in facts["failed"].items()]
    if facts["data_wait"] is not None:
        lines.append(f"data wait      {facts['data_wait']:.3%} of the time, under DeepSpeed")
    ms, mib = facts["head"]["milliseconds"], facts["head"]["mib"]
    lines.append(f"loss, chunked  {ms['chunked']:.1f} ms, {mib['chunked']:,.0f} MiB")
    times = mib["full"] / mib["chunked"]
    lines.append(f"over all       {ms['full']:.1f} ms, {mib['full']:,.0f} MiB: {times:.1f} times")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
