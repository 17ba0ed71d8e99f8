"""``vnprep tokenizer``."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import click

from vnprep.cli.options import format_option, inputs_argument, json_option
from vnprep.config import ReadOptions

_SAMPLE_TEXTS = 2000


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
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@json_option
def train(
    inputs: tuple[str, ...],
    vocab_size: int,
    out: Path,
    format_name: str | None,
    split: Any,
    text_field: str,
    request_field: str,
    response_field: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a ByteLevel BPE tokenizer on any inputs that vnprep reads.

    [PAD], [BOS], [EOS] and [SEP] get the ids 0 to 3. The file is a plain tokenizer.json: the
    libraries tokenizers and transformers load it as it is.

    \b
    Examples:
      vnprep tokenizer train data/pretrain.tsv pairs.tsv --vocab-size 4000 --out tokenizer.json
      vnprep tokenizer train wiki.jsonl.zst books/ --vocab-size 32000 --out tokenizer.json
    """
    from vnprep.cli.console import stderr
    from vnprep.durable import write_text
    from vnprep.errors import NoRowsError, OutputError
    from vnprep.sources.plan import find_inputs
    from vnprep.tokenizer.corpus import Corpus
    from vnprep.tokenizer.load import parse_tokenizer
    from vnprep.tokenizer.measure import tokens_per_syllable
    from vnprep.tokenizer.train import to_text, train_tokenizer

    if out.exists() and not overwrite:
        raise OutputError("exists already", place=out, remedy="pass --overwrite to replace it")
    options = ReadOptions(
        "text",
        format=format_name,
        text_split=split,
        text_field=text_field,
        request_field=request_field,
        response_field=response_field,
    )
    corpus = Corpus(find_inputs(inputs, format_name), options)
    trained = train_tokenizer(corpus, vocab_size, show_progress=sys.stderr.isatty())
    if not corpus.texts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in corpus.excluded.items())
        raise NoRowsError(f"no text to train on ({reasons or 'nothing was read'})")
    text = to_text(trained)
    loaded = parse_tokenizer(text)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    sample = list(
        itertools.islice(Corpus(find_inputs(inputs, format_name), options), _SAMPLE_TEXTS)
    )
    summary = {
        "out": str(out),
        "vocab_size": loaded.vocab_size,
        "texts": corpus.texts,
        "characters": corpus.characters,
        "excluded": dict(sorted(corpus.excluded.items())),
        "tokens_per_syllable": round(tokens_per_syllable(loaded, sample), 3),
        "fingerprint": loaded.fingerprint,
    }
    console = stderr()
    console.print(f"{out}: {loaded.vocab_size:,} tokens, trained on {corpus.texts:,} texts")
    if loaded.vocab_size < vocab_size:
        console.print(f"  fewer than {vocab_size:,}: the texts hold no more pairs to merge")
    if corpus.excluded:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in corpus.excluded.items())
        console.print(f"  left out: {reasons}", style="yellow")
    console.print(
        f"  {summary['tokens_per_syllable']} tokens a syllable on {len(sample):,} of its own texts"
    )
    if as_json:
        click.echo(json.dumps(summary, ensure_ascii=False))
