"""Ask a trained model: each request's answer on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cli_errors import show_errors
from inference.console import chat
from inference.conversation import Conversation
from inference.device import on_device
from inference.options import (
    BATCH_SIZE_OPTION,
    CHECKPOINT_OPTION,
    DEVICE_OPTION,
    RUN_ARGUMENT,
)
from inference.progress import Progress
from inference.requests import answer_line, answers_written, read_requests
from inference.sampling import Answer, Sampling, generate, request_prompts, text_prompts, to_answer
from inference.streaming import TextStream, TokenWriter
from modeling.model import LlamaForCausalLM
from modeling.weights import LoadedModel
from trainer.runmodel import load_run
from vnprep.errors import OutputError
from vnprep.tokenizer.load import LoadedTokenizer

#: Batches that are answered before their answers are written, so that requests of like length can
#: go together.
_BATCHES_AHEAD = 8
_EPILOG = """\b
Examples:
  python train/generate.py runs/ft "Bật quạt phòng ngủ lên mức 2"
  python train/generate.py runs/ft --chat
  python train/generate.py runs/ft --file requests.jsonl --out answers.jsonl
  python train/generate.py runs/ft --temperature 0.8 --top-p 0.95 --seed 7 "Tắt đèn bếp"
  python train/generate.py runs/pre --continue --stream "Hà Nội là"
"""


@click.command(epilog=_EPILOG)
@RUN_ARGUMENT
@click.argument("requests", nargs=-1)
@click.option(
    "--file",
    "files",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Read requests from a UTF-8 file: .jsonl with a field request, .tsv with a column "
    "request, else one a line; blank lines are skipped.",
)
@click.option(
    "--chat",
    "chatting",
    is_flag=True,
    help="Talk: a request a line on stdin, each answered with those before in mind.",
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
    "--top-k",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Draw only from this many of the likeliest tokens; 0 for all.",
)
@click.option(
    "--repetition-penalty",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Above 1, tokens already in the request or the answer are made less likely.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Decides the draws when the temperature is above 0.",
)
@click.option("--stream", is_flag=True, help="Show each answer while it is made, one at a time.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as said above.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the answers to this file as with --json, as they are made.",
)
@click.option("--resume", is_flag=True, help="Go on with an --out of the same requests.")
@CHECKPOINT_OPTION
@BATCH_SIZE_OPTION
@DEVICE_OPTION
@show_errors
def main(
    run: Path,
    requests: tuple[str, ...],
    files: tuple[Path, ...],
    chatting: bool,
    continue_text: bool,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int,
    repetition_penalty: float,
    seed: int,
    stream: bool,
    as_json: bool,
    out: Path | None,
    resume: bool,
    checkpoint: str | None,
    batch_size: int,
    device: str,
) -> None:
    """Let the model in the folder RUN answer REQUESTS; the answers go to stdout, in order.

    Of an answer that reached --max-new-tokens before [EOS], stderr says so. With --json each line
    has request, response, stopped (whether [EOS] was reached), stop_reason (eos or length) and
    tokens (the new token ids).
    """
    batch_options = bool(requests or files or continue_text or as_json or out or resume)
    if chatting and batch_options:
        raise click.UsageError("--chat reads requests from stdin; give it without the others")
    if stream and (as_json or out):
        raise click.UsageError("--stream shows text; give it without --json and --out")
    if resume and out is None:
        raise click.UsageError("--resume goes on with a file; give --out")
    texts = [*requests, *(line for file in files for line in read_requests(file))]
    if not texts and not chatting:
        raise click.UsageError("no request: give one after the folder, or --file, or --chat")
    loaded = load_run(run, checkpoint)
    _warn_about_stage(loaded, continue_text)
    tokenizer = loaded.tokenizer()
    model = on_device(loaded.answering(), device)
    sampling = Sampling(max_new_tokens, temperature, top_p, seed, top_k, repetition_penalty)
    if chatting:
        chat(Conversation(model, tokenizer, sampling))
        return
    encode = text_prompts if continue_text else request_prompts
    prompts = encode(tokenizer, texts)
    if stream:
        _stream(model, tokenizer, texts, prompts, sampling, continue_text)
    elif out is not None:
        _write(model, tokenizer, texts, prompts, sampling, batch_size, out, resume)
    else:
        answers = _in_order(model, tokenizer, prompts, sampling, batch_size)
        for text, answer in zip(texts, answers, strict=True):
            _print(text, answer, as_json, continue_text)


def _in_order(
    model: LlamaForCausalLM,
    tokenizer: LoadedTokenizer,
    prompts: list[list[int]],
    sampling: Sampling,
    batch_size: int,
    done: int = 0,
) -> Iterator[Answer]:
    """Yield the answers but the first ``done``, some batches at a time, and show how far it is."""
    progress = Progress(len(prompts), done)
    window = batch_size * _BATCHES_AHEAD
    for start in range(done, len(prompts), window):
        answers = generate(
            model,
            tokenizer,
            prompts[start : start + window],
            sampling,
            batch_size=batch_size,
            first_row=start,
            on_batch=progress.add if len(prompts) > batch_size else None,
        )
        progress.end()
        yield from answers


def _write(
    model: LlamaForCausalLM,
    tokenizer: LoadedTokenizer,
    texts: list[str],
    prompts: list[list[int]],
    sampling: Sampling,
    batch_size: int,
    out: Path,
    resume: bool,
) -> None:
    if out.exists() and not resume:
        raise OutputError(
            "exists already", place=out, remedy="give another --out, or --resume to go on with it"
        )
    done = answers_written(out, texts) if resume else 0
    cut = 0
    try:
        with out.open("a", encoding="utf-8") as file:
            answers = _in_order(model, tokenizer, prompts, sampling, batch_size, done)
            for text, answer in zip(texts[done:], answers, strict=True):
                file.write(answer_line(text, answer) + "\n")
                file.flush()
                cut += not answer.stopped
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", place=out) from None
    click.echo(f"wrote {out}: {len(texts) - done:,} answers, {cut:,} without [EOS]", err=True)


def _stream(
    model: LlamaForCausalLM,
    tokenizer: LoadedTokenizer,
    texts: list[str],
    prompts: list[list[int]],
    sampling: Sampling,
    continue_text: bool,
) -> None:
    for number, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        click.echo(text if continue_text else "", nl=False)
        stream, written = TextStream(tokenizer), []
        for token in TokenWriter(model, tokenizer).write(prompt, sampling, number):
            written.append(token)
            if token != tokenizer.special.eos:
                click.echo(stream.add(token), nl=False)
                sys.stdout.flush()
        click.echo(stream.end())
        _warn_if_cut(to_answer(tokenizer, written))


def _warn_about_stage(loaded: LoadedModel, continue_text: bool) -> None:
    if loaded.stage == "pretrain" and not continue_text:
        click.echo(
            "note: this model was pretrained only and never saw a request; "
            "--continue lets it go on with a text",
            err=True,
        )


def _print(request: str, answer: Answer, as_json: bool, continue_text: bool) -> None:
    if as_json:
        click.echo(answer_line(request, answer))
        return
    click.echo(request + answer.text if continue_text else answer.text)
    _warn_if_cut(answer)


def _warn_if_cut(answer: Answer) -> None:
    if not answer.stopped:
        click.echo(
            f"note: no [EOS] after {len(answer.token_ids)} tokens; the answer above is cut",
            err=True,
        )


if __name__ == "__main__":
    main()
