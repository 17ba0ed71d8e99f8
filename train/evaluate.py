"""Let a fine-tuned model answer every request of a file and count what is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from cli_errors import show_errors
from inference.device import on_device
from inference.options import (
    BATCH_SIZE_OPTION,
    CHECKPOINT_OPTION,
    DEVICE_OPTION,
    RUN_ARGUMENT,
)
from inference.progress import Progress
from inference.sampling import Sampling, generate, request_prompts
from inference.scoring import Pair, Result, Score, read_pairs, score, score_by_task
from trainer.runmodel import load_run
from vnprep.errors import TrainingError
from vnprep.tokenizer.encode import encode
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.vietnamese.normalize import clean_turn

#: An answer that runs on this far beyond every expected one is not going to be right.
_SPARE_TOKENS = 16
_EPILOG = """\b
Examples:
  python train/evaluate.py runs/ft --pairs data/smarthome_heldout.tsv
  python train/evaluate.py runs/ft --pairs heldout.tsv --show 20
  python train/evaluate.py runs/ft --pairs heldout.tsv --min-exact 95 --min-stop 99
  python train/evaluate.py runs/ft --pairs heldout.tsv --json > score.json
"""


@click.command(epilog=_EPILOG)
@RUN_ARGUMENT
@click.option(
    "--pairs",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="TSV with the columns request and response; with a column task, each task is counted.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    help="Longest answer in tokens, [EOS] included. Default: the longest expected response and "
    f"{_SPARE_TOKENS} more.",
)
@BATCH_SIZE_OPTION
@click.option(
    "--show",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Wrong answers to print.",
)
@click.option(
    "--min-exact", type=click.FloatRange(0, 100), help="Exit 1 below this exact match, %."
)
@click.option("--min-stop", type=click.FloatRange(0, 100), help="Exit 1 below this stop rate, %.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a report.")
@CHECKPOINT_OPTION
@DEVICE_OPTION
@show_errors
def main(
    run: Path,
    pairs: Path,
    max_new_tokens: int | None,
    batch_size: int,
    show: int,
    min_exact: float | None,
    min_stop: float | None,
    as_json: bool,
    checkpoint: str | None,
    device: str,
) -> None:
    """Score the model in the folder RUN on request/response pairs.

    An answer is exact when it is the expected response, character by character, and [EOS] follows
    it. The likeliest token is taken at every step, so the score is the same each time.
    """
    wanted = read_pairs(pairs)
    loaded = load_run(run, checkpoint)
    tokenizer = loaded.tokenizer()
    model = on_device(loaded.answering(), device)
    progress = Progress(len(wanted))
    answers = generate(
        model,
        tokenizer,
        request_prompts(tokenizer, [pair.request for pair in wanted]),
        Sampling(max_new_tokens or longest_response(tokenizer, wanted) + _SPARE_TOKENS),
        batch_size=batch_size,
        on_batch=progress.add if len(wanted) > batch_size else None,
    )
    progress.end()
    results = [Result(pair, answer) for pair, answer in zip(wanted, answers, strict=True)]
    if as_json:
        click.echo(json.dumps(_as_json(results, show), ensure_ascii=False, indent=2))
    else:
        _print_report(results, show)
    _check_minimum(score(results), min_exact, min_stop)


def longest_response(tokenizer: LoadedTokenizer, pairs: Sequence[Pair]) -> int:
    """Return the length of the longest expected response in tokens, [EOS] included."""
    _, offsets = encode(tokenizer, [clean_turn(pair.response) for pair in pairs])
    return int(np.diff(offsets).max()) + 1


def _as_json(results: list[Result], show: int) -> dict[str, Any]:
    wrong = [result for result in results if not result.exact][:show]
    return {
        **score(results).to_json(),
        "tasks": {task: part.to_json() for task, part in score_by_task(results).items()},
        "wrong": [
            {
                "request": result.pair.request,
                "expected": result.pair.response,
                "response": result.answer.text,
                "stopped": result.answer.stopped,
            }
            for result in wrong
        ],
    }


def _print_report(results: list[Result], show: int) -> None:
    total = score(results)
    click.echo(f"requests       {total.requests:,}")
    click.echo(f"exact match    {total.exact_percent:6.2f} %   {total.exact:,}")
    click.echo(f"[EOS] reached  {total.stopped_percent:6.2f} %   {total.stopped:,}")
    for task, part in score_by_task(results).items():
        click.echo(f"  {task:12} {part.exact_percent:6.2f} %   {part.exact:,} of {part.requests:,}")
    wrong = [result for result in results if not result.exact]
    if wrong and show:
        click.echo(f"\nwrong answers ({min(show, len(wrong)):,} of {len(wrong):,}):")
    for result in wrong[:show]:
        end = "" if result.answer.stopped else "   (no [EOS])"
        click.echo(f"  request   {result.pair.request}")
        click.echo(f"  expected  {result.pair.response}")
        click.echo(f"  answered  {result.answer.text}{end}\n")


def _check_minimum(total: Score, min_exact: float | None, min_stop: float | None) -> None:
    for name, minimum, reached in (
        ("exact match", min_exact, total.exact_percent),
        ("[EOS] reached", min_stop, total.stopped_percent),
    ):
        if minimum is not None and reached < minimum:
            raise TrainingError(
                f"{name} {reached:.2f} % is below the minimum of {minimum:g} %",
                remedy="train longer or on more pairs, or look at the wrong answers with --show",
            )


if __name__ == "__main__":
    main()
