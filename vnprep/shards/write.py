"""Write one shard: an Arrow IPC file, uncompressed so that it can be memory-mapped."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa

from vnprep.durable import canonical_json, replacing, start_writing_out
from vnprep.shards.ledger import Excluded
from vnprep.shards.manifest import FileRecord


class HashingFile:
    """A file object that hashes what passes through it, so that nothing is read twice."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write and hash."""
        view = memoryview(data)
        self._digest.update(view)
        self.bytes += view.nbytes
        return self._file.write(view)

    def tell(self) -> int:
        """Return the bytes written so far."""
        return self.bytes

    def flush(self) -> None:
        """Flush the file below."""
        self._file.flush()

    def close(self) -> None:
        """Do nothing: the file below belongs to the caller."""

    def readable(self) -> bool:
        """Return False."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False."""
        return False

    def record(self, name: str) -> FileRecord:
        """Return name, size and hash of what was written."""
        return FileRecord(name, self.bytes, self._digest.hexdigest())


def write_shard(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> FileRecord:
    """Write a shard that appears only when it is whole; return its size and SHA-256.

    That its name is on disk is left to the record that vouches for it.
    """
    with replacing(path, name_durable=False) as file:
        hashing = HashingFile(file)
        with pa.ipc.new_file(hashing, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
                start_writing_out(file)
    return hashing.record(path.name)


class ExcludedWriter:
    """Writes what is left out of a shard, one JSON object a line, as it comes.

    The file appears when the block ends, and only if anything was left out; see ``write_shard``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = contextlib.ExitStack()
        self._file: HashingFile | None = None

    def __enter__(self) -> ExcludedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, excluded: Iterable[Excluded]) -> None:
        """Write some records."""
        for record in excluded:
            if self._file is None:
                file = self._stack.enter_context(replacing(self._path, name_durable=False))
                self._file = HashingFile(file)
            # A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.
            line = canonical_json(record.to_json()) + "\n"
            self._file.write(line.encode("utf-8", "backslashreplace"))

    def record(self) -> FileRecord | None:
        """Return the file's size and SHA-256, or None if there is none."""
        return None if self._file is None else self._file.record(self._path.name)


def write_excluded(path: Path, excluded: Iterable[Excluded]) -> FileRecord:
    """Write what was left out, all at once; there must be something."""
    with ExcludedWriter(path) as writer:
        writer.write(excluded)
    record = writer.record()
    assert record is not None, "nothing was left out"
    return record
