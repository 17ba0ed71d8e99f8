"""The ceiling: what each part of a preparation takes alone, on one core, on the same bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from vnprep.config import ReadOptions, Stage
from vnprep.examples import Segments, build
from vnprep.sources.chunks import Chunk
from vnprep.sources.fields import wanted_fields
from vnprep.sources.jsonl_columns import parse
from vnprep.texts import text_bytes, text_offsets
from vnprep.tokenizer.encode import Encoder
from vnprep.tokenizer.fast import FastEncoder
from vnprep.tokenizer.load import load_tokenizer
from vnprep.vietnamese.quick_check import suspects


def measure(
    source: Path, tokenizer_path: Path, stage: Stage, limit: int = 64 << 20
) -> dict[str, float]:
    """Return nanoseconds that each part takes for a byte of input.

    Args:
        source: JSON Lines.
        tokenizer_path: of the encoder.
        stage: decides the fields and the columns.
        limit: how many bytes of the input to measure with.
    """
    with source.open("rb") as file:
        raw = file.read(limit)
    raw = raw[: raw.rfind(b"\n") + 1]
    blocks = _blocks(raw)
    names = wanted_fields(ReadOptions("text" if stage == "pretrain" else "pairs"))
    tokenizer = load_tokenizer(tokenizer_path)
    encoder = FastEncoder(tokenizer)
    took: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        took[name] = (time.perf_counter() - began) * 1e9 / len(raw)

    timed("sha256 of the input", lambda: hashlib.sha256(raw))
    timed("UTF-8 check", lambda: [Chunk(block, "", 0, 1).is_utf8 for block in blocks])
    parsed: list[list[pa.Array]] = []
    timed("JSON to columns", lambda: parsed.extend(_parsed(block, names) for block in blocks))
    texts = [_interleaved(columns) for columns in parsed]
    timed("NFC check", lambda: [suspects(text_bytes(part), text_offsets(part)) for part in texts])
    encoded: list[Segments] = []
    timed("encode", lambda: encoded.extend(_encode(encoder, part, stage) for part in texts))
    columns = []
    timed(
        "three columns",
        lambda: columns.extend(
            build(part, tokenizer.special, keep_targets=stage == "pretrain") for part in encoded
        ),
    )
    arrays = [array for part in columns for array in (part.input, part.target, part.loss_mask)]
    timed("sha256 of the output", lambda: [hashlib.sha256(array) for array in arrays])
    timed("write and fsync", lambda: _write(arrays))
    return took


def _blocks(raw: bytes, size: int = 4 << 20) -> list[bytes]:
    blocks, start = [], 0
    while start < len(raw):
        end = raw.find(b"\n", min(start + size, len(raw) - 1)) + 1
        blocks.append(raw[start:end])
        start = end
    return blocks


def _parsed(block: bytes, names: tuple[str, ...]) -> list[pa.Array]:
    columns = parse(block, block.count(b"\n"), names)
    assert columns is not None, "the benchmark wants clean JSON Lines"
    return columns


def _interleaved(columns: list[pa.Array]) -> pa.LargeStringArray:
    if len(columns) == 1:
        return columns[0]
    rows = len(columns[0])
    order = np.arange(2 * rows).reshape(2, rows).T.reshape(-1)
    return pa.concat_arrays(columns).take(pa.array(order))


def _encode(encoder: Encoder, texts: pa.LargeStringArray, stage: Stage) -> Segments:
    ids, offsets = encoder.encode(texts)
    width = 1 if stage == "pretrain" else 2
    supervised = np.arange(len(texts)) % width == width - 1
    records = np.arange(len(texts) // width + 1) * width
    ended = np.ones(len(texts), dtype=np.bool_)
    return Segments(ids.astype(np.uint16), offsets, records, supervised, ended)


def _write(arrays: list[np.ndarray]) -> None:
    with tempfile.TemporaryFile() as file:
        for array in arrays:
            file.write(array)
        file.flush()
        os.fsync(file.fileno())
