"""Requests → prompts: the same token ids as in training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vnprep.errors import InputError
from vnprep.tokenizer.encode import encode, holds_special
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.vietnamese.normalize import clean_turn, to_nfc

_EXCERPT = 60


def request_ids(tokenizer: LoadedTokenizer, requests: Sequence[str]) -> list[list[int]]:
    """Encode each request alone, as fine-tuning does, without special tokens.

    Raises:
        InputError: a request is empty, or is no text that the tokenizer can encode.
    """
    texts = [clean_turn(request) for request in requests]
    for text in texts:
        if not text:
            raise InputError("an empty request", remedy="write what the model should answer")
    return _encode(tokenizer, texts)


def request_prompts(tokenizer: LoadedTokenizer, requests: Sequence[str]) -> list[list[int]]:
    """Encode each request as fine-tuning does: ``[BOS] REQ [SEP]``; raises as ``request_ids``."""
    special = tokenizer.special
    return [[special.bos, *ids, special.sep] for ids in request_ids(tokenizer, requests)]


def text_prompts(tokenizer: LoadedTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Encode the beginning of a text as pretraining does: ``[BOS] TEXT``."""
    encoded = _encode(tokenizer, [to_nfc(text) for text in texts])
    return [[tokenizer.special.bos, *ids] for ids in encoded]


def _encode(tokenizer: LoadedTokenizer, texts: list[str]) -> list[list[int]]:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                f"not valid Unicode: {text[:_EXCERPT]!a}", remedy="give UTF-8 text"
            ) from None
    ids, offsets = encode(tokenizer, texts)
    for text, injected in zip(texts, holds_special(ids, offsets, tokenizer), strict=True):
        if injected:
            raise InputError(
                f"the tokenizer makes a special token of a word in this text: {text[:_EXCERPT]!r}",
                remedy="take that word out; a byte-level tokenizer does not have this limit",
            )
    return [ids[start:end].tolist() for start, end in pairwise(offsets.tolist())]
