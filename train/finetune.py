"""Fine-tune a pretrained model on request/response shards; a thin script over ``loop``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainer.command_line import training_options
from trainer.options import TrainOptions
from trainer.program import main, run

EXAMPLES = """\b
Examples:
  deepspeed train/finetune.py --data data/pairs --init runs/pre \\
      --deepspeed_config ds_configs/zero1.json --out runs/ft --epochs 3
\b
  # small adapters (LoRA) instead of all weights; OUT/model is the merged model
  deepspeed train/finetune.py --data data/pairs --init Qwen3-0.6B --lora 16 \\
      --deepspeed_config ds_configs/zero1.json --out runs/ft --epochs 3
\b
  # on CPUs, two ranks, watching the loss on held-out pairs
  deepspeed --num_accelerators 2 train/finetune.py --data data/pairs --init runs/pre \\
      --valid data/held_out --deepspeed_config ds_configs/cpu.json --out runs/ft --epochs 3
"""


def _refuse_model(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
    """Answer those who carry ``--model`` over from pretraining."""
    if value is not None:
        raise click.UsageError(
            "fine-tuning starts from a model that is there: give --init and its folder, not --model"
        )


@click.command(epilog=EXAMPLES)
@click.option("--model", hidden=True, expose_value=False, callback=_refuse_model)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the run, of the model, or of a Llama or Qwen3 in Hugging Face's form, to "
    "start from.",
)
@training_options("finetune")
def finetune(**values: Any) -> int:
    """Fine-tune a model: loss on the responses and their [EOS] alone.

    The run's folder gets checkpoints, metrics.jsonl, loss.png and, at the end, model/. The same
    command run again continues where it stopped.
    """
    return run(TrainOptions.collect("finetune", values))


if __name__ == "__main__":
    main(finetune)
