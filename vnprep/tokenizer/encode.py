"""Texts → token ids, columnar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vnprep.errors import TokenizerError
from vnprep.examples import Ids
from vnprep.tokenizer.load import LoadedTokenizer


def encode(tokenizer: LoadedTokenizer, texts: Sequence[str]) -> tuple[Ids, Ids]:
    """Encode each text alone, without special tokens.

    Returns:
        All ids end to end, [tokens], and where each text's begin, [texts + 1].
    """
    try:
        encodings = tokenizer.backend.encode_batch_fast(list(texts), add_special_tokens=False)
    except Exception as error:  # tokenizers raises bare Exception
        raise TokenizerError(
            f"the tokenizer cannot encode this text ({error})",
            remedy="take a byte-level tokenizer, which can encode any text",
        ) from None
    parts = [encoding.ids for encoding in encodings]
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    ids = np.empty(int(offsets[-1]), dtype=np.int64)
    for number, part in enumerate(parts):
        ids[offsets[number] : offsets[number + 1]] = part
    return ids, offsets


def holds_special(ids: Ids, offsets: Ids, tokenizer: LoadedTokenizer) -> np.ndarray:
    """Tell which texts came out with a special token's id, [texts].

    A byte-level tokenizer never does this; one whose vocabulary looks words up whole may turn
    the word ``[EOS]`` into the special token.
    """
    special = np.fromiter(tokenizer.special.as_dict().values(), dtype=np.int64)
    hits = np.concatenate(([0], np.cumsum(np.isin(ids, special), dtype=np.int64)))
    return np.asarray(hits[offsets[1:]] > hits[offsets[:-1]])
