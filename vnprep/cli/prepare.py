"""``vnprep pretrain-tsv``, ``pretrain-text`` and ``finetune-pairs``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vnprep.cli.options import (
    Command,
    delimiter_option,
    format_option,
    inputs_argument,
    prepare_options,
)
from vnprep.config import MEBIBYTE, PrepareConfig, ReadOptions, Stage, truncations


def _truncation_options(stage: Stage) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        command = click.option(
            "--truncation",
            type=click.Choice(truncations(stage)),
            default="drop",
            show_default=True,
            help="What happens to rows longer than --max-len; counted either way.",
        )(command)
        return click.option(
            "--max-len", type=click.IntRange(min=2), help="Most positions in a row."
        )(command)

    return add


@click.command("pretrain-tsv", short_help="Pretraining data from input/target TSV.")
@inputs_argument
@prepare_options
@_truncation_options("pretrain")
def pretrain_tsv(inputs: tuple[str, ...], **options: Any) -> None:
    """Prepare pretraining data from input/target TSV.

    The header is input<TAB>target; the cells carry their markers and must be the same text,
    shifted: "[BOS] Tôi đang bật đèn<TAB>Tôi đang bật đèn [EOS]".

    \b
    Example:
      vnprep pretrain-tsv data/pretrain.tsv --tokenizer tokenizer.json --out pre/
    """
    _run("pretrain", ReadOptions("seed-tsv", format="tsv"), inputs, **options)


@click.command("pretrain-text", short_help="Pretraining data from plain documents.")
@inputs_argument
@format_option
@click.option(
    "--split",
    type=click.Choice(["file", "paragraph", "line"]),
    default="file",
    show_default=True,
    help="What one document is in a .txt file.",
)
@click.option(
    "--text-field", default="text", show_default=True, help="Field or column with the text."
)
@click.option("--quoted-tsv", is_flag=True, help="Cells of a TSV may be quoted, as from Excel.")
@delimiter_option
@prepare_options
@_truncation_options("pretrain")
def pretrain_text(
    inputs: tuple[str, ...],
    format_name: str | None,
    split: Any,
    text_field: str,
    quoted_tsv: bool,
    delimiter: str | None,
    **options: Any,
) -> None:
    """Prepare pretraining data from plain documents.

    Takes .txt, .jsonl, .json, .csv, .tsv, .parquet and .arrow; text also with .gz, .bz2, .xz or
    .zst. INPUT is a file, a folder, a glob, or - for standard input.

    \b
    Examples:
      vnprep pretrain-text books/ --tokenizer tokenizer.json --out pre/
      vnprep pretrain-text wiki.jsonl.zst news.txt.gz --split line \\
          --tokenizer tokenizer.json --out pre/
    """
    read = ReadOptions(
        "text",
        format=format_name,
        text_split=split,
        text_field=text_field,
        quoted_tsv=quoted_tsv,
        delimiter=delimiter,
    )
    _run("pretrain", read, inputs, **options)


@click.command("finetune-pairs", short_help="Fine-tuning data from requests and responses.")
@inputs_argument
@format_option
@click.option("--request-field", default="request", show_default=True, help="Field or column.")
@click.option("--response-field", default="response", show_default=True, help="Field or column.")
@click.option(
    "--messages-field",
    default="messages",
    show_default=True,
    help="Field with chat messages ({role, content}), where there is no request field.",
)
@click.option("--quoted-tsv", is_flag=True, help="Cells of a TSV may be quoted, as from Excel.")
@delimiter_option
@prepare_options
@_truncation_options("finetune")
def finetune_pairs(
    inputs: tuple[str, ...],
    format_name: str | None,
    request_field: str,
    response_field: str,
    messages_field: str,
    quoted_tsv: bool,
    delimiter: str | None,
    **options: Any,
) -> None:
    """Prepare fine-tuning data from requests and responses; only responses carry loss.

    Takes .tsv, .csv, .jsonl, .json, .parquet and .arrow with the columns request and response,
    chat messages, or .txt with "Request: …" and "Response: …" lines; text also with .gz, .bz2,
    .xz or .zst. INPUT is a file, a folder, a glob, or - for standard input.

    \b
    Examples:
      vnprep finetune-pairs pairs.tsv --tokenizer tokenizer.json --out ft/
      vnprep finetune-pairs lenh.csv --request-field "Câu lệnh" --response-field "Trả lời" \\
          --tokenizer tokenizer.json --out ft/
    """
    read = ReadOptions(
        "pairs",
        format=format_name,
        request_field=request_field,
        response_field=response_field,
        messages_field=messages_field,
        quoted_tsv=quoted_tsv,
        delimiter=delimiter,
    )
    _run("finetune", read, inputs, **options)


def _run(
    stage: Stage,
    read: ReadOptions,
    inputs: tuple[str, ...],
    *,
    tokenizer_path: Path,
    special: dict[str, str],
    out: Path,
    eos_loss: bool,
    workers: int | None,
    unit_mb: float,
    max_record_mb: int,
    overwrite: bool,
    append: bool,
    as_json: bool,
    max_len: int | None,
    truncation: Any,
) -> None:
    if overwrite and append:
        raise click.UsageError("--overwrite and --append cannot be given together")
    from vnprep.cli.console import closing_table, progress, stderr
    from vnprep.engines.local import default_workers
    from vnprep.prepare import prepare
    from vnprep.tokenizer.load import load_tokenizer

    began = time.monotonic()
    read = replace(read, max_record_bytes=max_record_mb * MEBIBYTE)
    unit_bytes = math.ceil(unit_mb * MEBIBYTE)
    config = PrepareConfig(stage, read, eos_loss, max_len, truncation, unit_bytes)
    tokenizer = load_tokenizer(tokenizer_path, special)
    with progress() as report:
        prepared = prepare(
            inputs,
            out,
            config,
            tokenizer,
            workers=workers or default_workers(),
            mode="overwrite" if overwrite else "append" if append else "new",
            report=report,
            tell=lambda line: click.echo(line, err=True),
        )
    seconds = time.monotonic() - began
    console = stderr()
    if append:
        console.print(f"{prepared.added:,} inputs added, {prepared.skipped:,} were there already")
    elif prepared.done_now == 0:
        console.print(f"{out} was finished already, by the same command on the same input")
    console.print(closing_table(prepared, out, seconds))
    if as_json:
        manifest = prepared.manifest
        summary = {
            "out": str(out),
            "stage": manifest.stage,
            "rows": manifest.rows,
            "tokens": manifest.tokens,
            "supervised_tokens": manifest.supervised_tokens,
            "longest_row": manifest.longest_row,
            "shards": len(manifest.shards),
            "ledger": manifest.ledger.to_json(),
            "shards_made_now": prepared.done_now,
            "inputs_added": prepared.added,
            "inputs_skipped": prepared.skipped,
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(summary, ensure_ascii=False))
