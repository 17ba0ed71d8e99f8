"""Texts → token ids by ``gigatoken``: the same ids some fifty times faster, where it can.

It knows a fixed list of tokenizers, and it always recognises added tokens inside text. So it is
given the tokenizer without its special tokens, which then are ordinary text, as vnprep wants
them; ``vnprep.tokenizer.parity`` decides whether it may be used at all.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

from vnprep.errors import TokenizerError
from vnprep.texts import text_bytes, text_offsets
from vnprep.tokenizer.encode import Offsets, TokenIds
from vnprep.tokenizer.load import LoadedTokenizer


def warm_up() -> None:
    """Import what the encoder needs, which takes a quarter of a second, before it is wanted."""
    with contextlib.suppress(ImportError):
        import awkward
        import gigatoken

        del awkward, gigatoken


class FastEncoder:
    """``gigatoken``.

    Args:
        tokenizer: what to be.

    Raises:
        TokenizerError: gigatoken is not installed, or does not know this kind of tokenizer.
    """

    name = "gigatoken"

    def __init__(self, tokenizer: LoadedTokenizer) -> None:
        try:
            import awkward
            import gigatoken
        except ImportError as error:
            raise TokenizerError(
                f"gigatoken cannot be imported ({error})", remedy="pip install gigatoken"
            ) from None
        self._awkward: Any = awkward
        try:
            self._backend = gigatoken.Tokenizer.from_json(_without_specials(tokenizer.text))
        except Exception as error:  # a ValueError for what it does not know, and others
            raise TokenizerError(f"gigatoken does not know this tokenizer ({error})") from None

    def encode(self, texts: pa.LargeStringArray) -> tuple[TokenIds, Offsets]:
        """Encode texts; see ``vnprep.tokenizer.encode.Encoder``."""
        if not len(texts):
            return np.zeros(0, dtype=np.uint32), np.zeros(1, dtype=np.int64)
        contents, index = self._awkward.contents, self._awkward.index
        # gigatoken reads 64-bit offsets and nothing else; neither side copies.
        strings = contents.ListOffsetArray(
            index.Index64(text_offsets(texts)),
            contents.NumpyArray(text_bytes(texts), parameters={"__array__": "char"}),
            parameters={"__array__": "string"},
        )
        # Its own threads gain nothing here: processes are the parallelism.
        result = self._backend.encode_batch(self._awkward.Array(strings), parallel=False).layout
        offsets = np.asarray(result.offsets.data)
        ids = np.asarray(result.content.data)[offsets[0] : offsets[-1]]
        return ids, offsets - offsets[0]


def _without_specials(text: str) -> str:
    """Return the tokenizer's JSON without special tokens, and without NFC, which texts have."""
    content: dict[str, Any] = json.loads(text)
    content["added_tokens"] = [
        token for token in content.get("added_tokens") or [] if not token.get("special")
    ]
    if (content.get("normalizer") or {}).get("type") == "NFC":
        content["normalizer"] = None
    content["model"].pop("dropout", None)
    content["truncation"] = content["padding"] = None
    return json.dumps(content, ensure_ascii=False)
