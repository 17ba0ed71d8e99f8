"""How many bytes of text the supervised tokens of a data set stand for, for bits per byte."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from vnprep.shards.read import ShardSet
from vnprep.tokenizer.load import LoadedTokenizer

#: Rows that are decoded at a time.
_ROWS = 1024


def supervised_bytes(shards: ShardSet) -> int:
    """Count the UTF-8 bytes of the text that carries loss.

    The text is that which was tokenised (NFC, outer white space removed). A special token stands
    for no byte: ``[EOS]`` costs bits and gives no text, so a model must also pay for saying where
    an answer ends.
    """
    tokenizer = shards.tokenizer()
    lengths = _token_bytes(tokenizer)
    if lengths is None:
        return _decoded_bytes(shards, tokenizer)
    total = 0
    for batch in shards.flat:
        taught = batch.target[np.flatnonzero(batch.loss_mask)]
        total += int(np.bincount(taught, minlength=len(lengths))[: len(lengths)] @ lengths)
    return total


def _token_bytes(tokenizer: LoadedTokenizer) -> NDArray[np.int64] | None:
    """Return the bytes of every token, or None unless each token is a string of bytes.

    That is so in byte-level vocabularies: they write each byte as one character.
    """
    content = json.loads(tokenizer.text)
    decoder = content.get("decoder") or {}
    if decoder.get("type") != "ByteLevel" or content["model"].get("type") != "BPE":
        return None
    lengths = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for token, number in content["model"]["vocab"].items():
        lengths[number] = len(token)
    for added in content.get("added_tokens") or []:
        # These are written as they are, not byte by byte.
        lengths[added["id"]] = 0 if added["special"] else len(added["content"].encode())
    for number in tokenizer.special.as_dict().values():
        lengths[number] = 0
    return lengths


def _decoded_bytes(shards: ShardSet, tokenizer: LoadedTokenizer) -> int:
    """Decode every run of supervised tokens, and count."""
    special = list(tokenizer.special.as_dict().values())
    total = 0
    runs: list[list[int]] = []
    for number in range(len(shards)):
        _, target, mask = shards.arrays(number)
        edges = np.flatnonzero(np.diff(mask != 0, prepend=False, append=False))
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            run = target[begin:end]
            runs.append(run[~np.isin(run, special)].tolist())
        if len(runs) >= _ROWS or number == len(shards) - 1:
            texts = tokenizer.backend.decode_batch(runs)
            total += sum(len(text.encode()) for text in texts)
            runs = []
    return total
