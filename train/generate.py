"""Ask a trained model: each request's answer on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cli_errors import show_errors
from inference.device import DEVICE_OPTION, on_device
from inference.sampling import Answer, Sampling, generate, request_prompts, text_prompts
from modeling.weights import LoadedModel, load_model
from vnprep.errors import InputError

_EPILOG = """\b
Examples:
  python train/generate.py runs/ft "Bật quạt phòng ngủ lên mức 2"
  python train/generate.py runs/ft --file requests.txt --json > answers.jsonl
  python train/generate.py runs/ft --temperature 0.8 --top-p 0.95 --seed 7 "Tắt đèn bếp"
  python train/generate.py runs/pre --continue "Hà Nội là"
"""


@click.command(epilog=_EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("requests", nargs=-1)
@click.option(
    "--file",
    "files",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Read requests from a UTF-8 file, one a line; blank lines are skipped.",
)
@click.option(
    "--continue",
    "continue_text",
    is_flag=True,
    help="Go on with a text, as in pretraining ([BOS] TEXT), instead of answering a request "
    "([BOS] REQUEST [SEP]).",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Longest answer in tokens, [EOS] included.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="0 takes the likeliest token each time; higher is more varied.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="Draw only from the likeliest tokens that together reach this probability.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Decides the draws when the temperature is above 0.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as said above.")
@DEVICE_OPTION
@show_errors
def main(
    run: Path,
    requests: tuple[str, ...],
    files: tuple[Path, ...],
    continue_text: bool,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    as_json: bool,
    device: str,
) -> None:
    """Let the model in the folder RUN answer REQUESTS; the answers go to stdout, in order.

    Of an answer that reached --max-new-tokens before [EOS], stderr says so. With --json each line
    has request, response, stopped (whether [EOS] was reached) and tokens (the new token ids).
    """
    texts = [*requests, *(line for file in files for line in read_requests(file))]
    if not texts:
        raise click.UsageError("no request: give one after the folder, or --file")
    loaded = load_model(run)
    _warn_about_stage(loaded, continue_text)
    tokenizer = loaded.tokenizer()
    model = on_device(loaded.model, device)
    encode = text_prompts if continue_text else request_prompts
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    answers = generate(model, tokenizer, encode(tokenizer, texts), sampling)
    for text, answer in zip(texts, answers, strict=True):
        _print(text, answer, as_json, continue_text)


def read_requests(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file that are not blank.

    Raises:
        InputError: it cannot be read, is not UTF-8, or holds no request.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8").split("\n")
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", place=path, remedy="check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 (byte 0x{error.object[error.start]:02x} at offset {error.start:,})",
            place=path,
            remedy="save the file as UTF-8",
        ) from None
    requests = [line.rstrip("\r") for line in lines if line.strip()]
    if not requests:
        raise InputError("no request in this file", place=path, remedy="write one a line")
    return requests


def _warn_about_stage(loaded: LoadedModel, continue_text: bool) -> None:
    if loaded.stage == "pretrain" and not continue_text:
        click.echo(
            "note: this model was pretrained only and never saw a request; "
            "--continue lets it go on with a text",
            err=True,
        )


def _print(request: str, answer: Answer, as_json: bool, continue_text: bool) -> None:
    if as_json:
        line = {
            "request": request,
            "response": answer.text,
            "stopped": answer.stopped,
            "tokens": answer.token_ids,
        }
        click.echo(json.dumps(line, ensure_ascii=False))
        return
    click.echo(request + answer.text if continue_text else answer.text)
    if not answer.stopped:
        click.echo(
            f"note: no [EOS] after {len(answer.token_ids)} tokens; the answer above is cut",
            err=True,
        )


if __name__ == "__main__":
    main()
