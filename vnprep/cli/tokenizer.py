"""``vnprep tokenizer``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vnprep.cli.options import delimiter_option, format_option, inputs_argument, json_option
from vnprep.config import MEBIBYTE, ReadOptions

if TYPE_CHECKING:
    from vnprep.tokenizer.report import Trained
    from vnprep.tokenizer.sample import Sample


@click.group("tokenizer")
def tokenizer_group() -> None:
    """Train a tokenizer.

    \b
    Example:
      vnprep tokenizer train data/ --vocab-size 16000 --out tokenizer.json
    """


@tokenizer_group.command("train")
@inputs_argument
@click.option("--vocab-size", type=click.IntRange(min=1), default=16000, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("tokenizer.json"),
    show_default=True,
    help="File to write.",
)
@format_option
@click.option(
    "--split",
    type=click.Choice(["file", "paragraph", "line"]),
    default="file",
    show_default=True,
    help="What one document is in a .txt file.",
)
@click.option("--text-field", default="text", show_default=True, help="Field with the text.")
@click.option("--request-field", default="request", show_default=True, help="Field of pairs.")
@click.option("--response-field", default="response", show_default=True, help="Field of pairs.")
@click.option(
    "--messages-field",
    default="messages",
    show_default=True,
    help="Field with chat messages ({role, content}), where there is no request field.",
)
@click.option("--quoted-tsv", is_flag=True, help="Cells of a TSV may be quoted, as from Excel.")
@delimiter_option
@click.option(
    "--max-record-mb",
    type=click.IntRange(min=1, max=1024),
    default=64,
    show_default=True,
    help="MiB of the longest record; a longer one is left out without being held.",
)
@click.option(
    "--sample-mb",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="MiB of text to train on at most, which bounds the memory; more is sampled evenly.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@json_option
def train(
    inputs: tuple[str, ...],
    vocab_size: int,
    out: Path,
    sample_mb: int,
    overwrite: bool,
    as_json: bool,
    **reading: Any,
) -> None:
    """Train a ByteLevel BPE tokenizer on any inputs that vnprep reads.

    [PAD], [BOS], [EOS] and [SEP] get the ids 0 to 3. The file is a plain tokenizer.json: the
    libraries tokenizers and transformers load it as it is. All inputs are read; of more text than
    --sample-mb a sample is used that is spread over the whole, and is the same every time.

    \b
    Examples:
      vnprep tokenizer train data/pretrain.tsv pairs.tsv --vocab-size 4000 --out tokenizer.json
      vnprep tokenizer train wiki.jsonl.zst books/ --vocab-size 32000 --out tokenizer.json
    """
    from vnprep.durable import write_text
    from vnprep.errors import OutputError
    from vnprep.tokenizer.load import parse_tokenizer
    from vnprep.tokenizer.report import Trained
    from vnprep.tokenizer.train import check_vocab_size, to_text, train_tokenizer

    if out.exists() and not overwrite:
        raise OutputError("exists already", place=out, remedy="pass --overwrite to replace it")
    check_vocab_size(vocab_size)
    sample, excluded = _read(inputs, _read_options(**reading), sample_mb * MEBIBYTE)
    text = to_text(train_tokenizer(sample, vocab_size, show_progress=sys.stderr.isatty()))
    loaded = parse_tokenizer(text)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    trained = Trained(loaded, sample, excluded)
    _tell(out, trained, vocab_size, sample_mb)
    if as_json:
        summary = {"out": str(out), "sample_mb": sample_mb, **trained.to_json()}
        click.echo(json.dumps(summary, ensure_ascii=False))


def _read_options(
    format_name: str | None, split: Any, max_record_mb: int, **fields: Any
) -> ReadOptions:
    """Make the options of reading; ``fields`` are called as they are there."""
    limit = max_record_mb * MEBIBYTE
    return ReadOptions(
        "text", format=format_name, text_split=split, max_record_bytes=limit, **fields
    )


def _read(
    inputs: tuple[str, ...], options: ReadOptions, limit: int
) -> tuple[Sample, Mapping[str, int]]:
    """Read all inputs; return the sample, and what was left out by reason."""
    from vnprep.cli.counting import counting
    from vnprep.errors import NoRowsError
    from vnprep.sources.plan import find_inputs
    from vnprep.tokenizer.corpus import Corpus
    from vnprep.tokenizer.sample import draw_sample

    found = find_inputs(inputs, options.format, tell=lambda line: click.echo(line, err=True))
    with counting() as count:
        corpus = Corpus(found, options, lambda done, total: count("reading", done, total))
        sample = draw_sample(corpus, limit)
    if not sample.texts_read:
        reasons = ", ".join(f"{count} {reason}" for reason, count in corpus.excluded.items())
        raise NoRowsError(f"no text to train on ({reasons or 'nothing was read'})")
    return sample, corpus.excluded


def _tell(out: Path, trained: Trained, vocab_size: int, sample_mb: int) -> None:
    """Say on stderr what was made of what."""
    from vnprep.cli.console import stderr

    console, sample = stderr(), trained.sample
    console.print(f"{out}: {trained.tokenizer.vocab_size:,} tokens")
    used = f"  trained on {sample.texts_used:,} texts, {sample.bytes_used / 1e6:,.1f} MB"
    if sample.is_all:
        console.print(f"{used}: all that was read")
    else:
        console.print(
            f"{used}: a sample of {sample.texts_read:,} texts, {sample.bytes_read / 1e6:,.1f} MB, "
            f"spread over all of them (--sample-mb {sample_mb})",
            soft_wrap=True,
        )
    if trained.tokenizer.vocab_size < vocab_size:
        console.print(f"  fewer than {vocab_size:,}: the texts hold no more pairs to merge")
    if trained.excluded:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in trained.excluded.items())
        console.print(f"  left out: {reasons}", style="yellow")
    console.print(
        f"  {trained.tokens_per_syllable} tokens a syllable on {len(trained.measured):,} "
        "of its own texts"
    )
