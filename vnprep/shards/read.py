"""Read a data folder: memory-mapped shards behind one row number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.durable import sha256_file
from vnprep.errors import ShardError
from vnprep.shards.manifest import FileRecord, Manifest, ShardRecord
from vnprep.shards.schema import Origin, shard_schema
from vnprep.tokenizer.load import LoadedTokenizer, parse_tokenizer

Check = Literal["full", "sizes"]
Ids = NDArray[np.unsignedinteger | np.signedinteger]
Mask = NDArray[np.uint8]

_REMEDY = "vnprep verify lists all damage; prepare the data again"


@dataclass(frozen=True)
class Row:
    """One example. The arrays are views of the mapped file, all of one length."""

    input: Ids
    target: Ids
    loss_mask: Mask
    origin: Origin


def file_problem(folder: Path, record: FileRecord, check: Check) -> str | None:
    """Say what is wrong with a file that the manifest names, or return None."""
    path = folder / record.name
    try:
        if not path.is_file():
            return "missing"
        size = path.stat().st_size
        if size != record.bytes:
            return f"{size:,} bytes, the manifest says {record.bytes:,}"
        if check == "full" and sha256_file(path) != record.sha256:
            return "its bytes changed (sha256 differs from the manifest's)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


class FlatBatch:
    """A record batch as flat numpy arrays: views of the mapped file."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.offsets, self.input = _flat(batch.column("input"))
        _, self.target = _flat(batch.column("target"))
        _, self.loss_mask = _flat(batch.column("loss_mask"))
        self.source = batch.column("source")
        self.line = batch.column("line")
        self.byte_offset = batch.column("byte_offset")

    def arrays(self, index: int) -> tuple[Ids, Ids, Mask]:
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.input[part], self.target[part], self.loss_mask[part]

    def origin(self, index: int) -> Origin:
        return Origin(
            self.source[index].as_py(), self.line[index].as_py(), self.byte_offset[index].as_py()
        )


def _flat(column: pa.ListArray) -> tuple[NDArray[np.int32], NDArray[np.unsignedinteger]]:
    return column.offsets.to_numpy(), column.values.to_numpy()


class ShardSet:
    """The rows of a data folder, in manifest order, by one global index.

    Use ``ShardSet.open(folder)``.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._batches: list[FlatBatch] = []
        counts: list[int] = []
        schema = shard_schema(manifest.tokenizer.vocab_size - 1)
        for shard in manifest.shards:
            for batch in _map_shard(folder / shard.file.name, shard, schema):
                self._batches.append(FlatBatch(batch))
                counts.append(batch.num_rows)
        self._row_starts = np.cumsum([0, *counts])
        self._starts: list[int] = self._row_starts.tolist()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        check: Check = "full",
        progress: Callable[[int], None] | None = None,
    ) -> ShardSet:
        """Open a data folder whose files match its manifest.

        Args:
            folder: what a vnprep command wrote.
            check: ``full`` hashes every file; ``sizes`` compares sizes alone.
            progress: called with the bytes of each file that was checked.

        Raises:
            ShardError: anything is missing, damaged or of another format.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        for record in manifest.files:
            if problem := file_problem(folder, record, check):
                raise ShardError(problem, place=folder / record.name, remedy=_REMEDY)
            if progress is not None:
                progress(record.bytes)
        return cls(folder, manifest)

    @property
    def tokenizer_path(self) -> Path:
        """The copy of the tokenizer that made the ids."""
        return self.folder / self.manifest.tokenizer_file.name

    def tokenizer(self) -> LoadedTokenizer:
        """Load the tokenizer that made the ids, with the special ids that the manifest names."""
        text = self.tokenizer_path.read_text(encoding="utf-8")
        return parse_tokenizer(text, special=self.manifest.tokenizer.special)

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Positions of every row, [rows]."""
        parts = [np.diff(batch.offsets).astype(np.int64) for batch in self._batches]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the files itself; a copy of them would be sent to it otherwise.
        return ShardSet.open, (self.folder, "sizes")

    @property
    def flat(self) -> Sequence[FlatBatch]:
        """The record batches of all shards, in row order."""
        return self._batches

    def locate(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of each row's record batch in ``flat``, and where it begins there.

        Args:
            rows: row numbers from 0 on, [rows].
        """
        numbers = np.searchsorted(self._row_starts, rows, side="right") - 1
        places = rows - self._row_starts[numbers]
        # One look-up a row, since one array of all offsets would be a copy of gigabytes.
        begins = [
            self._batches[number].offsets[place]
            for number, place in zip(numbers.tolist(), places.tolist(), strict=True)
        ]
        return numbers, np.array(begins, dtype=np.int64)

    def __getitem__(self, index: int) -> Row:
        batch, place = self._find(index)
        return Row(*batch.arrays(place), batch.origin(place))

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def arrays(self, index: int) -> tuple[Ids, Ids, Mask]:
        """Return a row's ``input``, ``target`` and ``loss_mask`` alone: the quick way for training.

        Raises:
            IndexError: there is no such row.
        """
        batch, place = self._find(index)
        return batch.arrays(place)

    def _find(self, index: int) -> tuple[FlatBatch, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        number = bisect_right(self._starts, index) - 1
        return self._batches[number], index - self._starts[number]


def _map_shard(path: Path, shard: ShardRecord, schema: pa.Schema) -> list[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        for batch in batches:
            # Cheap, since it walks offsets and not tokens; without it a damaged dictionary, if the
            # file is not hashed, ends the process by a fault of memory.
            batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise ShardError(str(error), place=path, remedy=_REMEDY) from None
    if not reader.schema.equals(schema):
        raise ShardError("its columns are not those of a vnprep shard", place=path, remedy=_REMEDY)
    if sum(batch.num_rows for batch in batches) != shard.rows:
        raise ShardError(
            "its rows are not as many as the manifest says", place=path, remedy=_REMEDY
        )
    for batch in batches:
        offsets = batch.column("input").offsets
        if any(not batch.column(name).offsets.equals(offsets) for name in ("target", "loss_mask")):
            raise ShardError(
                "its input, target and loss_mask differ in length", place=path, remedy=_REMEDY
            )
    return batches
