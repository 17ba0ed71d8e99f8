"""Short answers of the model while it trains, to be read beside its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from inference.sampling import Sampling, generate, request_prompts, text_prompts
from modeling.model import LlamaForCausalLM
from trainer.distributed import World
from trainer.metrics import SampleText
from trainer.options import Stage, TrainOptions
from trainer.stop import StopRequest
from vnprep.errors import InputError, TrainingError
from vnprep.shards.read import ShardSet
from vnprep.tokenizer.load import LoadedTokenizer

#: Rows of the validation data that give a prompt, if the user gives none.
_FROM_VALIDATION = 3
#: Tokens of a document that a pretrained model is to continue.
_BEGINNING = 12


@dataclass(frozen=True)
class Prompt:
    """What a model is asked, as a reader sees it and as token ids."""

    text: str
    token_ids: tuple[int, ...]


def choose_prompts(
    options: TrainOptions, shards: ShardSet, valid: ShardSet | None, positions: int
) -> tuple[Prompt, ...]:
    """Return the prompts of a run: the user's, else some beginnings of the validation data.

    Args:
        options: of the run.
        shards: training data; its tokenizer encodes.
        valid: validation data, or None.
        positions: of the model; a prompt must leave room for an answer.

    Raises:
        TrainingError: a prompt is too long or cannot be encoded, or the file of prompts cannot be
            read.
    """
    if options.sample_every == 0:
        return ()
    texts = [*options.sample_prompt]
    if options.sample_prompts is not None:
        texts += _read_lines(options.sample_prompts)
    if texts:
        tokenizer = shards.tokenizer()
        encode = request_prompts if options.stage == "finetune" else text_prompts
        try:
            ids = encode(tokenizer, texts)
        except InputError as error:
            raise TrainingError(error.cause, place="--sample-prompt", remedy=error.remedy) from None
        prompts = tuple(Prompt(text, tuple(each)) for text, each in zip(texts, ids, strict=True))
        _check_room(prompts, positions)
        return prompts
    found = () if valid is None else _from_data(valid, options.stage)
    return tuple(prompt for prompt in found if len(prompt.token_ids) < positions)


def _check_room(prompts: Sequence[Prompt], positions: int) -> None:
    for prompt in prompts:
        if len(prompt.token_ids) >= positions:
            raise TrainingError(
                f"{len(prompt.token_ids):,} tokens, but the model has {positions:,} positions",
                place="--sample-prompt",
                remedy="shorten it",
            )


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"cannot be read ({error})", place=path, remedy="give a UTF-8 file, a prompt a line"
        ) from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise TrainingError("holds no prompt", place=path, remedy="write a prompt a line")
    return texts


def _from_data(shards: ShardSet, stage: Stage) -> tuple[Prompt, ...]:
    """Take the first rows' requests, or the beginnings of their documents."""
    tokenizer = shards.tokenizer()
    prompts = []
    for number in range(min(_FROM_VALIDATION, len(shards))):
        ids, _, mask = shards.arrays(number)
        # The position that predicts the answer's first token has [SEP] as its input.
        length = int(np.argmax(mask != 0)) + 1 if stage == "finetune" else _BEGINNING
        prompts.append(_shown(ids[:length].tolist(), tokenizer))
    return tuple(prompts)


def _shown(ids: list[int], tokenizer: LoadedTokenizer) -> Prompt:
    words = [each for each in ids if tokenizer.special.name(each) is None]
    return Prompt(tokenizer.backend.decode(words), tuple(ids))


class _StopAskedError(Exception):
    """Every rank has raised it at the same token."""


class Sampler:
    """Lets the model answer, with all ranks taking part in every forward pass, as ZeRO 3 needs.

    Args:
        prompts: what it is asked.
        tokenizer: the model's.
        max_new_tokens: longest answer.
        world: the ranks.
        stop: asked at each token.
    """

    def __init__(
        self,
        prompts: tuple[Prompt, ...],
        tokenizer: LoadedTokenizer,
        max_new_tokens: int,
        world: World,
        stop: StopRequest,
    ) -> None:
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._sampling = Sampling(max_new_tokens)
        self._world = world
        self._stop = stop

    def run(self, engine: Any, step: int) -> list[SampleText] | None:
        """Answer every prompt, the likeliest token at each place; all ranks call this.

        Args:
            engine: DeepSpeed's.
            step: optimizer steps done, for the record.

        Returns:
            A sample for each prompt, or None if the run was asked to stop.
        """
        model: LlamaForCausalLM = engine.module
        hook = model.lm_head.register_forward_hook(self._together)
        engine.eval()
        try:
            ids = [prompt.token_ids for prompt in self._prompts]
            # Compiled layers would be compiled anew for each length of prompt and cache.
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                answers = generate(model, self._tokenizer, ids, self._sampling)
        except _StopAskedError:
            return None
        finally:
            engine.train()
            hook.remove()
        return [
            SampleText(step, prompt.text, answer.text, answer.stopped)
            for prompt, answer in zip(self._prompts, answers, strict=True)
        ]

    def _together(self, _module: Any, _inputs: Any, logits: Tensor) -> None:
        """Give every rank the logits of rank 0: so all choose alike, and end alike."""
        if self._world.any(self._stop.asked()):
            raise _StopAskedError
        if self._world.size > 1:
            dist.broadcast(logits, 0)


def is_due(every: int, step: int, total: int) -> bool:
    """Tell whether something that is done every so many steps, and at the end, is due.

    Args:
        every: steps between; 0 is at the end alone.
        step: optimizer steps done.
        total: of the run.
    """
    return step == total or (every > 0 and step > 0 and step % every == 0)
