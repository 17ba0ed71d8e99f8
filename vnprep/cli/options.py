"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vnprep.sources.formats import FORMAT_NAMES

Command = TypeVar("Command", bound=Callable[..., Any])

inputs_argument = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")

data_argument = click.argument(
    "folder", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR"
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")

format_option = click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMAT_NAMES),
    help="Format of the inputs.  [default: by file ending]",
)

delimiter_option = click.option(
    "--delimiter",
    type=click.Choice([",", ";", "|", "tab"]),
    callback=lambda _context, _option, value: "\t" if value == "tab" else value,
    help="What parts the cells of a CSV.  [default: comma, or as its header tells]",
)


def special_names(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Turn ``("bos=<s>", …)`` into ``{"bos": "<s>", …}``."""
    names: dict[str, str] = {}
    for value in values:
        role, equals, text = value.partition("=")
        if role not in ("pad", "bos", "eos", "sep") or not equals or not text:
            raise click.BadParameter(
                f"{value!r} is not of the form pad=TOKEN, bos=TOKEN, eos=TOKEN or sep=TOKEN"
            )
        names[role] = text
    return names


def prepare_options(command: Command) -> Command:
    """Add what all preparing commands take."""
    options = [
        click.option(
            "--tokenizer",
            "tokenizer_path",
            type=click.Path(path_type=Path),
            required=True,
            help="A tokenizer.json, from 'vnprep tokenizer train' or elsewhere.",
        ),
        click.option(
            "--special",
            multiple=True,
            callback=special_names,
            metavar="ROLE=TOKEN",
            help="Name a special token of a foreign tokenizer, e.g. bos='<s>'. Repeatable.",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            required=True,
            help="Folder to write.",
        ),
        click.option(
            "--eos-loss/--no-eos-loss",
            default=True,
            show_default=True,
            help="Whether predicting [EOS] carries loss; without, a model hardly learns to stop.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Processes; any number writes the same bytes.  [default: all processors]",
        ),
        click.option(
            "--unit-mb",
            type=click.FloatRange(min=0, min_open=True),
            default=16,
            show_default=True,
            help="MiB of input for each shard; a fraction gives small ones.",
        ),
        click.option(
            "--max-record-mb",
            type=click.IntRange(min=1, max=1024),
            default=64,
            show_default=True,
            help="MiB of the longest record; a longer one is rejected without being held.",
        ),
        click.option("--overwrite", is_flag=True, help="Replace a data set that stands in --out."),
        click.option(
            "--append", is_flag=True, help="Add inputs that are new to the data set in --out."
        ),
        click.option(
            "--max-rejects",
            metavar="N|P%",
            help="Write nothing if more records are rejected: a number, or a share of all read.",
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Say what would be done and how large it will be; write nothing.",
        ),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command
