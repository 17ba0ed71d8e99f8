"""Megatron-LM's indexed dataset: ``.bin`` holds the tokens, ``.idx`` says where documents are.

Layout of ``.idx``, little-endian (Megatron-LM, ``core/datasets/indexed_dataset.py``)::

    "MMIDIDX\\0\\0"   u64 version = 1   u8 code of the tokens' type
    u64 sequences    u64 entries of the document index
    i32 lengths [sequences]   i64 byte offsets in .bin [sequences]   i64 document index [entries]

Every row is a document of one sequence, ``[BOS] … [EOS]``. Megatron has no place for a loss mask
beside the tokens, and its own fine-tuning encodes chat text anew, with other ids at the seams. So
where some token carries no loss, a second pair of the same shape holds 1 on the tokens that do.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vnprep.durable import replacing
from vnprep.export.sequences import read_blocks, sequence_lengths
from vnprep.export.target import Advance, Source
from vnprep.shards.manifest import FileRecord, Manifest
from vnprep.shards.write import HashingFile

#: What ``--data-path`` of Megatron takes is the folder and one of these.
TOKENS_PREFIX, MASK_PREFIX = "text_document", "loss_mask_document"

_MAGIC, _VERSION = b"MMIDIDX\x00\x00", 1
_TYPE_CODES = {"uint8": 1, "int32": 4, "uint16": 8}
_BYTES_A_ROW = 4 + 8 + 8

# Megatron takes uint16 below this vocabulary; some of its tools expect the type that it would take.
_UINT16_BELOW = 65_500
_CHUNK = 1 << 20

TokenType = np.dtype[np.unsignedinteger | np.signedinteger]

#: The pairs of files by their prefix, with the type in ``.bin``.
Pairs = dict[str, TokenType]


@dataclass(frozen=True)
class Megatron:
    """Writes ``text_document.bin`` and ``.idx``, and ``loss_mask_document`` where it is needed."""

    name: str = "megatron"

    def bytes_needed(self, manifest: Manifest) -> int:
        """Return about what the files take."""
        tokens, rows = manifest.tokens + manifest.rows, manifest.rows
        total = tokens * _token_type(manifest).itemsize + rows * _BYTES_A_ROW
        return total + (tokens + rows * _BYTES_A_ROW) * needs_mask(manifest)

    def note(self, manifest: Manifest) -> str:
        """Say that the mask must be read, where there is one."""
        if not needs_mask(manifest):
            return ""
        return (
            f"Megatron's GPTDataset reads {TOKENS_PREFIX} alone and would put loss on every token; "
            f"read {MASK_PREFIX} beside it: same shape, 1 on the tokens that carry loss"
        )

    def write(self, source: Source, out: Path, advance: Advance) -> list[FileRecord]:
        """Write both files of each pair, one record batch in memory at a time."""
        pairs = {TOKENS_PREFIX: _token_type(source.manifest)}
        if needs_mask(source.manifest):
            pairs[MASK_PREFIX] = np.dtype("uint8")
        files = _write_bins(source, out, pairs, advance)
        return files + [_write_idx(source, out, name, kind) for name, kind in pairs.items()]


def needs_mask(manifest: Manifest) -> bool:
    """Tell whether some token of a sequence, beside its ``[BOS]``, carries no loss."""
    return manifest.supervised_tokens < manifest.tokens


def _token_type(manifest: Manifest) -> TokenType:
    small = manifest.tokenizer.vocab_size < _UINT16_BELOW
    return np.dtype("uint16") if small else np.dtype("int32")


def _write_bins(source: Source, out: Path, pairs: Pairs, advance: Advance) -> list[FileRecord]:
    kind = pairs[TOKENS_PREFIX].newbyteorder("<")
    with contextlib.ExitStack() as stack:
        bins = {
            name: HashingFile(stack.enter_context(replacing(out / f"{name}.bin"))) for name in pairs
        }
        for block in read_blocks(source.folder, source.manifest):
            sequences = block.sequences()
            bins[TOKENS_PREFIX].write(sequences.tokens.astype(kind, copy=False))
            if MASK_PREFIX in bins:
                bins[MASK_PREFIX].write(sequences.learnt)
            advance(len(block.input))
    return [file.record(f"{name}.bin") for name, file in bins.items()]


def _write_idx(source: Source, out: Path, name: str, kind: TokenType) -> FileRecord:
    rows = source.manifest.rows
    path = out / f"{name}.idx"
    with replacing(path) as file:
        hashing = HashingFile(file)
        head = struct.pack("<QBQQ", _VERSION, _TYPE_CODES[kind.name], rows, rows + 1)
        hashing.write(_MAGIC + head)
        for lengths in sequence_lengths(source.folder, source.manifest):
            hashing.write(lengths.astype("<i4"))
        for pointers in _pointers(source, kind.itemsize):
            hashing.write(pointers)
        for start in range(0, rows + 1, _CHUNK):
            hashing.write(np.arange(start, min(start + _CHUNK, rows + 1), dtype="<i8"))
    return hashing.record(path.name)


def _pointers(source: Source, itemsize: int) -> Iterator[NDArray[np.int64]]:
    """Yield the byte offset of every sequence, block by block."""
    start = 0
    for lengths in sequence_lengths(source.folder, source.manifest):
        ends = start + np.cumsum(lengths * itemsize)
        yield (ends - lengths * itemsize).astype("<i8")
        start = int(ends[-1]) if len(ends) else start
