"""Hugging Face ``datasets``: a folder for ``load_from_disk``, memory-mapped as it is.

The columns are ``input_ids`` and ``labels``. Models of ``transformers`` shift the labels
themselves: the logits at position ``i`` are held against ``labels[i + 1]``. So a row is the whole
sequence, ``input_ids = [BOS] … [EOS]``, and ``labels`` is the same with -100 on every token that
carries no loss; after the model's own shift that is ``where(loss_mask, target, -100)``.
With ``shifted`` the columns are ``input`` and ``where(loss_mask, target, -100)`` as stored, for
training loops that do not shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.durable import readable_json, replacing, sha256_text
from vnprep.export.sequences import Block, read_blocks
from vnprep.export.target import Advance, Source
from vnprep.shards.manifest import FileRecord, Manifest
from vnprep.shards.write import HashingFile

#: The label that PyTorch's cross entropy, and so every model of transformers, ignores.
IGNORED = -100

#: A file is closed when it has this many bytes: what ``datasets`` itself takes for a shard.
FILE_BYTES = 500_000_000

_LIST = pa.list_(pa.field("item", pa.int32(), nullable=False))
_SCHEMA = pa.schema([pa.field("input_ids", _LIST), pa.field("labels", _LIST)])
_BYTES_A_TOKEN, _BYTES_A_ROW = 8, 8


@dataclass(frozen=True)
class HuggingFace:
    """Writes ``data-00000.arrow`` …, ``state.json`` and ``dataset_info.json``.

    Attributes:
        shifted: whether labels stand beside the token that predicts them.
        file_bytes: about how large a data file becomes.
    """

    shifted: bool = False
    file_bytes: int = FILE_BYTES
    name: str = "hf"

    def bytes_needed(self, manifest: Manifest) -> int:
        """Return about what the data files take."""
        tokens = manifest.tokens + (0 if self.shifted else manifest.rows)
        return tokens * _BYTES_A_TOKEN + manifest.rows * _BYTES_A_ROW

    def note(self, manifest: Manifest) -> str:  # noqa: ARG002
        """Say which way round the labels are, when it is not the usual one."""
        if not self.shifted:
            return ""
        return "labels are shifted already: models of transformers would shift them once more"

    def write(self, source: Source, out: Path, advance: Advance) -> list[FileRecord]:
        """Write the data files, one record batch in memory at a time, then their index."""
        batches = self._batches(source, advance)
        files: list[FileRecord] = []
        batch = next(batches, None)
        while batch is not None:
            path = out / f"data-{len(files):05d}.arrow"
            with replacing(path) as file:
                hashing = HashingFile(file)
                with pa.ipc.new_stream(hashing, _SCHEMA) as writer:
                    while batch is not None and hashing.bytes < self.file_bytes:
                        writer.write_batch(batch)
                        batch = next(batches, None)
            files.append(hashing.record(path.name))
        state: dict[str, object] = {
            "_data_files": [{"filename": record.name} for record in files],
            # datasets builds the names of its caches on this.
            "_fingerprint": sha256_text(f"{source.identity} {self.shifted}")[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        # No features: datasets takes them from the Arrow schema, and its names for list types
        # differ from version to version.
        info = {"description": "Written by vnprep export.", "citation": "", "license": ""}
        return [*files, _json(out, "state.json", state), _json(out, "dataset_info.json", info)]

    def _batches(self, source: Source, advance: Advance) -> Iterator[pa.RecordBatch]:
        for block in read_blocks(source.folder, source.manifest):
            yield _shifted(block) if self.shifted else _whole(block)
            advance(len(block.input))


def _whole(block: Block) -> pa.RecordBatch:
    sequences = block.sequences()
    tokens = sequences.tokens.astype(np.int32, copy=False)
    return _batch(tokens, np.where(sequences.learnt, tokens, IGNORED), sequences.offsets)


def _shifted(block: Block) -> pa.RecordBatch:
    target = block.target.astype(np.int32, copy=False)
    labels = np.where(block.loss_mask, target, IGNORED)
    return _batch(block.input.astype(np.int32, copy=False), labels, block.offsets)


def _batch(
    ids: NDArray[np.int32], labels: NDArray[np.signedinteger], offsets: NDArray[np.int64]
) -> pa.RecordBatch:
    starts = pa.array(offsets, type=pa.int32())
    arrays = [
        pa.ListArray.from_arrays(starts, pa.array(values, type=pa.int32()), type=_LIST)
        for values in (ids, labels)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)


def _json(out: Path, name: str, value: object) -> FileRecord:
    with replacing(out / name) as file:
        hashing = HashingFile(file)
        hashing.write(readable_json(value).encode("utf-8"))
    return hashing.record(name)
