"""``vnprep pretrain-tsv``, ``pretrain-text`` and ``finetune-pairs``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from vnprep.cli.options import (
    Command,
    delimiter_option,
    format_option,
    inputs_argument,
    prepare_options,
)
from vnprep.cli.running import run
from vnprep.config import ReadOptions, Stage, truncations


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
    run("pretrain", ReadOptions("seed-tsv", format="tsv"), inputs, **options)


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
    run("pretrain", read, inputs, **options)


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
    run("finetune", read, inputs, **options)
