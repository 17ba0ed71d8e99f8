"""Which encoder serves: the fast one, if it gives the reference's ids on the text at hand.

It is compared three times: on texts that are known to part tokenizers, on a sample of the real
input before the work begins, and on a slice of every unit while it goes on. One difference, and
the reference does all of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vnprep.errors import EncoderMismatch, TokenizerError
from vnprep.texts import text_offsets
from vnprep.tokenizer.encode import Encoder, ReferenceEncoder
from vnprep.tokenizer.fast import FastEncoder
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.vietnamese.normalize import to_nfc

# Some 5 ms of the reference's time, to the 300 ms that a unit takes.
_CHECKED_BYTES = 16 << 10

_PROBES = (
    "Tôi đang bật đèn phòng khách lên mức 2, nhiệt độ 37,5°C.",
    " Ở đâu?  Hai dấu cách,\tmột tab\n\n\nba dòng mới \r\n",
    "Ừ, NƯỚC VIỆT NAM — “độc lập” … 100.000₫ (10%) a/b c_d e-mail@x.vn https://x.vn/?q=1&r=2",
    "I'll don't WE'VE it's l'été 'S",
    "[PAD][BOS] [EOS] [SEP] <s></s> <|endoftext|> <unk>",
    "日本語 한국어 русский ελληνικά العربية हिन्दी ไทย",
    "😀👨‍👩‍👧‍👦🇻🇳 e\u0301\u0323 \u200b\ufeff\u00a0\u2028\u3000x\u00ad",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 4,
    "0123456789 ١٢٣ ½ ² Ⅷ 3.14159e-10 0x1F",
    '{"a": [1, 2.5, null], \'b\': "\\n"}\t// ++i; #include <x>\x7f\x01',
    "   ",
    "\n",
    "x",
)


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder serves.

    Attributes:
        name: ``gigatoken`` or ``tokenizers``.
        reason: why the fast one does not serve; empty if it does.
    """

    name: str
    reason: str = ""


def choose_encoder(tokenizer: LoadedTokenizer, sample: pa.LargeStringArray) -> EncoderChoice:
    """Choose the encoder for a tokenizer and texts like those of a sample, which are NFC."""
    try:
        fast = FastEncoder(tokenizer)
    except TokenizerError as error:
        return EncoderChoice(ReferenceEncoder.name, error.cause)
    probes = [*_PROBES, *(f"a {token} b{token}" for token in _added_tokens(tokenizer))]
    texts = pa.concat_arrays([pa.array(map(to_nfc, probes), type=pa.large_string()), sample])
    found = first_difference(ReferenceEncoder(tokenizer), fast, texts)
    if found is None:
        return EncoderChoice(FastEncoder.name)
    return EncoderChoice(ReferenceEncoder.name, difference(texts[found].as_py()))


def difference(text: str) -> str:
    """Say on what text the encoders differ."""
    return f"gigatoken and tokenizers give different ids for {text[:60]!r}"


def make_encoder(tokenizer: LoadedTokenizer, name: str) -> Encoder:
    """Make the encoder that ``choose_encoder`` named."""
    return FastEncoder(tokenizer) if name == FastEncoder.name else ReferenceEncoder(tokenizer)


def first_difference(reference: Encoder, other: Encoder, texts: pa.LargeStringArray) -> int | None:
    """Return the number of the first text for which two encoders give different ids."""
    ids, offsets = reference.encode(texts)
    other_ids, other_offsets = other.encode(texts)
    if np.array_equal(offsets, other_offsets) and np.array_equal(ids, other_ids):
        return None
    for number in range(len(texts)):
        one = ids[offsets[number] : offsets[number + 1]]
        two = other_ids[other_offsets[number] : other_offsets[number + 1]]
        if not np.array_equal(one, two):
            return number
    raise AssertionError("the encoders differ, but on no text")


class UnitCheck:
    """Compares the fast encoder with the reference on a slice of every unit.

    Args:
        tokenizer: the reference's.
        encoder: which of the two serves; the reference itself needs no check.
    """

    def __init__(self, tokenizer: LoadedTokenizer, encoder: Encoder) -> None:
        self._reference = ReferenceEncoder(tokenizer)
        self._encoder = encoder
        self._done = isinstance(encoder, ReferenceEncoder)

    def __call__(self, texts: pa.LargeStringArray) -> None:
        """Compare on the first texts that come.

        Raises:
            EncoderMismatch: the ids differ.
        """
        if self._done or not len(texts):
            return
        self._done = True
        part = sample(texts, _CHECKED_BYTES)
        found = first_difference(self._reference, self._encoder, part)
        if found is not None:
            raise EncoderMismatch(difference(part[found].as_py()))


def sample(texts: pa.LargeStringArray, limit: int) -> pa.LargeStringArray:
    """Return the first texts of some ``limit`` bytes; of a long first text, its beginning."""
    if not len(texts):
        return texts
    offsets = text_offsets(texts)
    count = int(np.searchsorted(offsets - offsets[0], limit, side="right")) - 1
    if count:
        return texts.slice(0, count)
    # Cut by bytes, and leave out the character that this may cut.
    start = texts[0].as_buffer()[:limit]
    return pa.array([bytes(start).decode("utf-8", "ignore")], type=pa.large_string())


def _added_tokens(tokenizer: LoadedTokenizer) -> Sequence[str]:
    content = json.loads(tokenizer.text)
    return [token["content"] for token in content.get("added_tokens") or []]
