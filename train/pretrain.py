"""Pretrain a language model on shards that vnprep wrote; a thin script over ``loop``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainer.command_line import training_options
from trainer.options import TrainOptions
from trainer.program import main, run

EXAMPLES = """\b
Examples:
  deepspeed train/pretrain.py --data data/law --model tiny \\
      --deepspeed_config ds_configs/zero1.json --out runs/pre --steps 300
\b
  # on CPUs, two ranks
  deepspeed --num_accelerators 2 train/pretrain.py --data data/law --model tiny \\
      --deepspeed_config ds_configs/cpu.json --out runs/pre --steps 300
\b
  # going on with a model of others (see train/adopt.py)
  deepspeed train/pretrain.py --data data/law --init Qwen3-0.6B \\
      --deepspeed_config ds_configs/zero1.json --out runs/pre --lr 1e-4
\b
  # one process, no launcher
  python train/pretrain.py --data data/law --model tiny \\
      --deepspeed_config ds_configs/cpu.json --out runs/pre --epochs 1
"""


@click.command(epilog=EXAMPLES)
@click.option("--model", help="Preset (tiny, small, 110m, …) or a model's config.json.")
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="Instead of --model: folder of the run, of the model, or of a Llama or Qwen3 in Hugging "
    "Face's form to go on with.",
)
@training_options("pretrain")
def pretrain(**values: Any) -> int:
    """Pretrain a model from nothing, or go on with one.

    The run's folder gets checkpoints, metrics.jsonl, loss.png and, at the end, model/. The same
    command run again continues where it stopped.
    """
    return run(TrainOptions.collect("pretrain", values))


if __name__ == "__main__":
    main(pretrain)
