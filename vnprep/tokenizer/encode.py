"""Texts → token ids, columnar: the reference, by ``tokenizers``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.errors import TokenizerError
from vnprep.tokenizer.load import LoadedTokenizer

TokenIds = NDArray[np.uint32]
Offsets = NDArray[np.int64]


class Encoder(Protocol):
    """Encodes each text alone, without special tokens.

    Attributes:
        name: what the manifest calls it.
    """

    name: str

    def encode(self, texts: pa.LargeStringArray) -> tuple[TokenIds, Offsets]:
        """Encode texts.

        Returns:
            All ids end to end, [tokens], and where each text's begin, [texts + 1].

        Raises:
            TokenizerError: the tokenizer cannot encode them.
        """


class ReferenceEncoder:
    """``tokenizers``: it defines which ids are right."""

    name = "tokenizers"

    def __init__(self, tokenizer: LoadedTokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: pa.LargeStringArray) -> tuple[TokenIds, Offsets]:
        """Encode texts; see ``Encoder``."""
        return encode(self._tokenizer, texts.to_pylist())


def encode(tokenizer: LoadedTokenizer, texts: Sequence[str]) -> tuple[TokenIds, Offsets]:
    """Encode each text alone, without special tokens; see ``Encoder``."""
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
    ids = np.empty(int(offsets[-1]), dtype=np.uint32)
    for number, part in enumerate(parts):
        ids[offsets[number] : offsets[number + 1]] = part
    return ids, offsets


def holds_special(
    ids: NDArray[np.integer], offsets: Offsets, tokenizer: LoadedTokenizer
) -> NDArray[np.bool_]:
    """Tell which texts came out with a special token's id, [texts].

    A byte-level tokenizer never does this; one whose vocabulary looks words up whole may turn
    the word ``[EOS]`` into the special token.
    """
    texts = np.zeros(len(offsets) - 1, dtype=np.bool_)
    for special in tokenizer.special.as_dict().values():
        hits = ids == special
        if hits.any():
            texts[np.searchsorted(offsets, np.flatnonzero(hits), side="right") - 1] = True
    return texts
