"""``vnprep export``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Literal

import click

from vnprep.cli.options import data_argument, json_option


@click.command("export", short_help="Write a data set for Hugging Face or Megatron-LM.")
@data_argument
@click.option(
    "--to",
    "form",
    type=click.Choice(["hf", "megatron"]),
    required=True,
    help="Hugging Face datasets, or Megatron-LM's .bin and .idx.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder to write; it appears when it is whole.",
)
@click.option(
    "--shifted",
    is_flag=True,
    help="hf: input_ids and labels as stored, for training loops that do not shift labels.",
)
@json_option
def export_command(
    folder: Path, form: Literal["hf", "megatron"], out: Path, shifted: bool, as_json: bool
) -> None:
    """Write a data set in the form of another training program; row i stays row i.

    hf: a folder for datasets.load_from_disk, with input_ids and labels. Both are the whole
    sequence, labels with -100 where there is no loss, since the models of transformers shift the
    labels themselves.

    megatron: text_document.bin and .idx, a document a row; and, where not every token carries
    loss, loss_mask_document.bin and .idx of the same shape.

    \b
    Examples:
      vnprep export ft/ --to hf --out ft-hf/
      vnprep export pre/ --to megatron --out pre-megatron/
    """
    from vnprep.cli.console import stderr
    from vnprep.cli.counting import counting
    from vnprep.export.huggingface import HuggingFace
    from vnprep.export.megatron import Megatron
    from vnprep.export.run import export
    from vnprep.export.target import Target

    if shifted and form != "hf":
        raise click.UsageError("--shifted is for --to hf; Megatron always shifts for itself")
    began = time.monotonic()
    target: Target = HuggingFace(shifted) if form == "hf" else Megatron()
    with counting() as report:
        exported = export(folder, target, out, report)
    seconds = time.monotonic() - began
    manifest = exported.source.manifest
    console = stderr()
    console.print(
        f"{out}: {manifest.rows:,} rows, {len(exported.files) + 1} files, "
        f"{exported.bytes / 1e6:,.1f} MB in {seconds:.1f} s"
    )
    if note := target.note(manifest):
        console.print(f"  {note}", style="yellow", soft_wrap=True)
    if as_json:
        summary = {
            "out": str(out),
            "to": form,
            "rows": manifest.rows,
            "tokens": manifest.tokens,
            "supervised_tokens": manifest.supervised_tokens,
            "files": [record.name for record in exported.files],
            "bytes": exported.bytes,
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(summary, ensure_ascii=False))
