"""Make a model of others, in Hugging Face's form, one to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from tokenizers import Tokenizer

from cli_errors import show_errors
from modeling.card import CONFIG_NAME, TOKENIZER_NAME
from modeling.config import FAMILIES
from modeling.huggingface import is_huggingface, read_json, stated_tokens, tokenizer_text
from modeling.start import adopt, new_tokens
from modeling.vocabulary import add_tokens, choose_tokens
from modeling.weights import save_model
from vnprep.durable import write_text
from vnprep.errors import OutputError, TrainingError
from vnprep.tokenizer.load import LoadedTokenizer, parse_tokenizer
from vnprep.tokenizer.special import SPECIAL_TOKENS

_ROLES = ("bos", "eos", "pad", "sep")
_EPILOG = """\b
Examples:
  python train/adopt.py Qwen3-0.6B --out start
  python train/adopt.py Llama-3.2-1B --out start --special 'sep=<|reserved_special_token_0|>'
\b
  # then, with the options that it prints
  vnprep finetune-pairs pairs.tsv --tokenizer start/tokenizer.json --special … --out data/pairs
  deepspeed train/finetune.py --data data/pairs --init start …
"""


def special_option(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Turn ``("bos=<s>", …)`` into ``{"bos": "<s>", …}``."""
    names: dict[str, str] = {}
    for value in values:
        role, equals, text = value.partition("=")
        if role not in _ROLES or not equals or not text:
            raise click.BadParameter(f"{value!r} is not of the form {'|'.join(_ROLES)}=TOKEN")
        names[role] = text
    return names


@click.command(epilog=_EPILOG)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write: new or empty.",
)
@click.option(
    "--special",
    multiple=True,
    callback=special_option,
    metavar="ROLE=TOKEN",
    help="Take this token for bos, eos, pad or sep; it is added if the tokenizer has none such. "
    "Repeatable.  [default: what the folder's files name, else a new token]",
)
@click.option(
    "--tokenizer-only",
    is_flag=True,
    help="Write tokenizer.json alone; --init FOLDER then adds the rows when training starts.",
)
@show_errors
def main(folder: Path, out: Path, special: dict[str, str], tokenizer_only: bool) -> None:
    """Make the model in FOLDER, a Llama or Qwen3 in Hugging Face's form, one to start from.

    The request format needs four distinct tokens: [BOS], [SEP], [EOS] and [PAD]. Those that FOLDER
    lacks are added behind all others; each gets the mean of the known embeddings as its own. All
    other ids, and the weights, stay as they are.
    """
    if not is_huggingface(folder):
        raise TrainingError(
            "no model in Hugging Face's form here",
            place=folder,
            remedy="give a folder with config.json; a run of ours needs no such step",
        )
    other = read_json(folder / CONFIG_NAME).get("model_type") not in FAMILIES
    if other and not tokenizer_only:
        raise TrainingError(
            "neither a Llama nor a Qwen3",
            place=folder,
            remedy="add --tokenizer-only, and train with --init and --model-impl hf",
        )
    if out.is_dir() and any(out.iterdir()):
        raise OutputError("is not empty", place=out, remedy="give a new folder with --out")
    tokenizer, tokens = complete_tokenizer(folder, special)
    out.mkdir(parents=True, exist_ok=True)
    if tokenizer_only:
        write_text(out / TOKENIZER_NAME, tokenizer.text)
    else:
        _write_model(folder, out, tokenizer)
    start = ["--init", str(folder if tokenizer_only else out)]
    _print_use(folder, out, tokenizer, tokens, start + (["--model-impl", "hf"] if other else []))


def complete_tokenizer(
    folder: Path, asked: dict[str, str]
) -> tuple[LoadedTokenizer, dict[str, str]]:
    """Give a model's tokenizer the special tokens that it lacks.

    Returns:
        The tokenizer, and the tokens' texts by role.
    """
    text = tokenizer_text(folder)
    vocabulary = parse_vocabulary(text, folder)
    stated = stated_tokens(folder, {number: token for token, number in vocabulary.items()})
    tokens = choose_tokens(vocabulary, stated, asked)
    return parse_tokenizer(add_tokens(text, tokens), tokens), tokens


def parse_vocabulary(text: str, folder: Path) -> dict[str, int]:
    """Return token texts to ids.

    Raises:
        TrainingError: the text is no ``tokenizer.json``.
    """
    try:
        vocabulary: dict[str, int] = Tokenizer.from_str(text).get_vocab(with_added_tokens=True)
    except Exception as error:  # tokenizers raises bare Exception
        raise TrainingError(
            f"not a tokenizer.json ({error})",
            place=folder / TOKENIZER_NAME,
            remedy="download it again",
        ) from None
    return vocabulary


def _write_model(folder: Path, out: Path, tokenizer: LoadedTokenizer) -> None:
    model = adopt(folder, tokenizer, dtype=None)
    write_text(out / TOKENIZER_NAME, tokenizer.text)
    save_model(
        out,
        model.config,
        model.state_dict(),
        out / TOKENIZER_NAME,
        tokenizer.special,
        tokenizer.fingerprint,
        "pretrain",
        new_tokens(folder, tokenizer),
    )


def _print_use(
    folder: Path,
    out: Path,
    tokenizer: LoadedTokenizer,
    tokens: dict[str, str],
    start: list[str],
) -> None:
    """Say what became of each role, and the options that the next steps need."""
    old = parse_vocabulary(tokenizer_text(folder), folder)
    for role, number in tokenizer.special.as_dict().items():
        new = "" if tokens[role] in old else "  (new)"
        click.echo(f"{role}  {number:>7}  {tokens[role]}{new}", err=True)
    defaults = dict(zip(("pad", "bos", "eos", "sep"), SPECIAL_TOKENS, strict=True))
    other = [f"{role}={token}" for role, token in tokens.items() if token != defaults[role]]
    options = ["--tokenizer", str(out / TOKENIZER_NAME)]
    for pair in other:
        options += ["--special", pair]
    click.echo(f"prepare data with  {shlex.join(options)}", err=True)
    click.echo(f"train with         {shlex.join(start)}", err=True)


if __name__ == "__main__":
    main()
