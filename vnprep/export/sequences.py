"""Rows → the whole sequences they were made from, block by block, in columnar form.

A row is stored shifted (``input = seq[:-1]``, ``target = seq[1:]``). Other programs shift for
themselves, so they are given ``seq``: the input and the last target. That target is never masked
away, for a sequence ends with ``[EOS]`` or, where an answer was cut, with the answer's last token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.errors import ShardError
from vnprep.shards.manifest import Manifest

Ids = NDArray[np.unsignedinteger | np.signedinteger]
Mask = NDArray[np.uint8]
Offsets = NDArray[np.int64]

_REMEDY = "prepare the data again"


@dataclass(frozen=True)
class Sequences:
    """Whole sequences end to end.

    Attributes:
        tokens: ``[BOS] … [EOS]`` of every row, [rows + positions].
        learnt: 1 on a token that the model is taught to predict; 0 on every ``[BOS]``, which
            nothing predicts. ``learnt[1:]`` of a sequence is the row's ``loss_mask``. Shaped as
            ``tokens``.
        offsets: where each sequence begins, and the end of the last, [rows + 1].
    """

    tokens: Ids
    learnt: Mask
    offsets: Offsets


@dataclass(frozen=True)
class Block:
    """The rows of one record batch: flat views of the mapped file.

    Row ``i`` is ``offsets[i]:offsets[i + 1]`` of ``input``, ``target`` and ``loss_mask``.
    """

    input: Ids
    target: Ids
    loss_mask: Mask
    offsets: Offsets

    @property
    def sequence_offsets(self) -> Offsets:
        """Where each whole sequence begins; it is one token longer than its row, [rows + 1]."""
        return self.offsets + np.arange(len(self.offsets))

    def sequences(self) -> Sequences:
        """Undo the shift."""
        offsets = self.sequence_offsets
        first, last = offsets[:-1], offsets[1:] - 1
        tokens = np.empty(int(offsets[-1]), dtype=self.input.dtype)
        is_input = np.ones(len(tokens), dtype=np.bool_)
        is_input[last] = False
        tokens[is_input] = self.input
        tokens[last] = self.target[self.offsets[1:] - 1]
        learnt = np.zeros(len(tokens), dtype=np.uint8)
        is_target = np.ones(len(tokens), dtype=np.bool_)
        is_target[first] = False
        learnt[is_target] = self.loss_mask
        return Sequences(tokens, learnt, offsets)


def read_blocks(folder: Path, manifest: Manifest) -> Iterator[Block]:
    """Yield the rows of a data folder in order, one shard mapped at a time.

    Args:
        folder: a folder that was checked against its manifest.
        manifest: its manifest.

    Raises:
        ShardError: a shard holds an id that its tokenizer does not have.
    """
    for shard in manifest.shards:
        path = folder / shard.file.name
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                block = _block(reader.get_batch(number))
                _check_ids(block, manifest.tokenizer.vocab_size, path)
                yield block


def sequence_lengths(folder: Path, manifest: Manifest) -> Iterator[Offsets]:
    """Yield the lengths of the whole sequences, [rows] a block; reads no tokens."""
    for shard in manifest.shards:
        with pa.memory_map(str(folder / shard.file.name)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                offsets = reader.get_batch(number).column("input").offsets.to_numpy()
                yield np.diff(offsets).astype(np.int64) + 1


def _block(batch: pa.RecordBatch) -> Block:
    offsets = batch.column("input").offsets.to_numpy().astype(np.int64)
    part = slice(int(offsets[0]), int(offsets[-1]))
    flat = {
        name: batch.column(name).values.to_numpy()[part]
        for name in ("input", "target", "loss_mask")
    }
    return Block(flat["input"], flat["target"], flat["loss_mask"], offsets - offsets[0])


def _check_ids(block: Block, vocab_size: int, path: Path) -> None:
    """Refuse ids that a narrower type of the export would wrap in silence."""
    for name, column in (("input", block.input), ("target", block.target)):
        lowest, highest = int(column.min(initial=0)), int(column.max(initial=0))
        if lowest < 0 or highest >= vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise ShardError(
                f"{name} holds the id {wrong:,}, but the tokenizer's ids end at {vocab_size - 1:,}",
                place=path,
                remedy=_REMEDY,
            )
