"""Pack indexes beside the shards that they are for, one for each length.

DIR/pack-2048.arrow   a row a packed row: its windows as (row, start, length); Arrow IPC
DIR/pack-2048.json    written last: the other's SHA-256, and that of the manifest it was made for

The same shards and length always give the same index. So a stale one, made for another manifest,
is passed over: packing in memory gives what it should say. A damaged one is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vnprep.durable import (
    TEMPORARY_SUFFIX,
    canonical_json,
    readable_json,
    sha256_file,
    sha256_text,
    write_text,
)
from vnprep.errors import ShardError, TrainingError
from vnprep.packing.index import PackIndex
from vnprep.shards.manifest import MANIFEST_NAME, FileRecord
from vnprep.shards.read import ShardSet, file_problem
from vnprep.shards.write import write_shard

FORMAT = "vnprep-pack"
FORMAT_VERSION = 1
#: What every file of a pack index begins with, temporary ones included.
PREFIX = "pack-"

_NAMES = re.compile(r"pack-([1-9][0-9]*)\.(arrow|json)")


@dataclass(frozen=True)
class PackRecord:
    """What is known of a pack index.

    Attributes:
        seq_len: positions of a packed row.
        packed_rows: of an epoch.
        windows: stored rows, those cut counted by their pieces.
        tokens: positions that hold one.
        manifest_sha256: of the ``manifest.json`` that it was made for.
        file: the Arrow file.
    """

    seq_len: int
    packed_rows: int
    windows: int
    tokens: int
    manifest_sha256: str
    file: FileRecord

    @property
    def fill(self) -> float:
        """The part of all packed positions that holds a token."""
        return self.tokens / (self.packed_rows * self.seq_len)

    def write(self, folder: Path) -> None:
        """Write the record, with a hash over its own content."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        body["record_sha256"] = sha256_text(canonical_json(body))
        write_text(folder / _record_name(self.seq_len), readable_json(body))

    @classmethod
    def read(cls, path: Path) -> PackRecord:
        """Read and check a record.

        Raises:
            ShardError: it is unreadable, altered, or of another format version.
        """
        try:
            text = path.read_bytes().decode("utf-8")
            body = json.loads(text)
            layout = readable_json(body)  # so that a change of white space alone is found, too
            stated = body.pop("record_sha256")
            whole = text == layout and stated == sha256_text(canonical_json(body))
            version = (body.pop("format"), body.pop("format_version"))
            if not whole or version != (FORMAT, FORMAT_VERSION):
                raise _damaged(path, "changed, or written by another version of vnprep")
            record = cls(**{**body, "file": FileRecord(**body["file"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, f"unreadable ({type(error).__name__}: {error})") from None
        if (_record_name(record.seq_len), _file_name(record.seq_len)) != (
            path.name,
            record.file.name,
        ):
            raise _damaged(path, f"made for seq_len {record.seq_len}, as another file")
        return record


def pack_shards(shards: ShardSet, seq_len: int) -> PackIndex:
    """Pack the rows of a data folder in memory.

    Raises:
        TrainingError: nothing can be learned from them, or fine-tuning rows are too long.
    """
    check_rows(shards, seq_len)
    return PackIndex.pack(shards.lengths, seq_len)


def check_rows(shards: ShardSet, seq_len: int) -> None:
    """See that rows can be shown in samples of ``seq_len`` positions.

    Raises:
        TrainingError: no position carries loss, or fine-tuning rows are longer than ``seq_len``:
            an answer is never cut here.
    """
    manifest = shards.manifest
    if not len(shards) or not manifest.supervised_tokens:
        raise TrainingError(
            f"{len(shards):,} rows and no position that carries loss: nothing can be learned",
            place=shards.folder,
            remedy="prepare the data again and read its closing table",
        )
    if manifest.stage == "pretrain" or manifest.longest_row <= seq_len:
        return
    too_long = np.flatnonzero(shards.lengths > seq_len)
    longest = int(shards.lengths.max())
    first = shards[int(too_long[0])].origin
    raise TrainingError(
        f"{len(too_long):,} rows are longer than seq_len {seq_len:,} (the longest has {longest:,} "
        f"positions; the first is row {too_long[0]:,}, {first.source}:{first.line}), "
        "and an answer is never cut in training",
        place=shards.folder,
        remedy=f"train with a sequence length of {longest} or more, "
        f"or prepare the data again with at most {seq_len} positions a row",
    )


def write_pack(shards: ShardSet, index: PackIndex) -> PackRecord:
    """Write an index into the folder of its shards; until it is whole, there is none."""
    folder, seq_len = shards.folder, index.seq_len
    with _turn(folder):
        for leftover in folder.glob(f"{PREFIX}{seq_len}.*{TEMPORARY_SUFFIX}"):
            if leftover.is_file():
                leftover.unlink()  # of a run that was killed while it wrote
        (folder / _record_name(seq_len)).unlink(missing_ok=True)
        batch = index.to_batch()
        file = write_shard(folder / _file_name(seq_len), batch.schema, [batch])
        record = PackRecord(
            seq_len, len(index), len(index.row), index.tokens, _manifest_sha256(folder), file
        )
        record.write(folder)
    return record


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Let one process at a time write; the next one waits, and writes the same bytes."""
    with (folder / MANIFEST_NAME).open("rb") as file:
        with contextlib.suppress(OSError):  # some network file systems lock no file opened to read
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def find_pack(folder: Path, seq_len: int) -> tuple[PackRecord, PackIndex] | None:
    """Return a folder's index for a length; None if there is none, or one for another manifest.

    Raises:
        ShardError: there is one, but it is damaged.
    """
    path = folder / _record_name(seq_len)
    if not path.exists():
        return None
    record = PackRecord.read(path)
    if record.manifest_sha256 != _manifest_sha256(folder):
        return None
    if problem := file_problem(folder, record.file, "full"):
        raise _damaged(folder / record.file.name, problem)
    return record, _map(folder, record)


def is_pack_file(name: str) -> bool:
    """Tell whether a file of a data folder belongs to a pack index."""
    return _NAMES.fullmatch(name) is not None


def pack_problems(folder: Path, lengths: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
    """Yield file and fault for all that is wrong with a folder's pack indexes.

    Args:
        folder: a data folder whose own files are whole.
        lengths: positions of its rows, [rows].
    """
    found = [match for path in sorted(folder.iterdir()) if (match := _NAMES.fullmatch(path.name))]
    for seq_len in sorted({int(match[1]) for match in found}):
        name = _record_name(seq_len)
        again = f"vnprep pack --seq-len {seq_len} writes it again"
        if not (folder / name).exists():
            yield _file_name(seq_len), f"its record {name} is missing; {again}"
            continue
        try:
            pack = find_pack(folder, seq_len)
        except ShardError as error:
            yield Path(error.place or name).name, error.cause
            continue
        if pack is None:
            yield name, f"made for another manifest; {again}"
        elif problem := pack[1].problem(lengths):
            yield pack[0].file.name, problem


def _map(folder: Path, record: PackRecord) -> PackIndex:
    path = folder / record.file.name
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        index = PackIndex.from_batch(reader.get_batch(0), record.seq_len)
    except (pa.ArrowException, OSError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"unreadable ({type(error).__name__}: {error})") from None
    if (len(index), len(index.row)) != (record.packed_rows, record.windows):
        raise _damaged(path, "its rows are not as many as its record says")
    return index


def _damaged(path: Path, cause: str) -> ShardError:
    return ShardError(
        f"the pack index is damaged: {cause}",
        place=path,
        remedy="write it again with vnprep pack, or remove its files (training then packs anew)",
    )


def _manifest_sha256(folder: Path) -> str:
    return sha256_file(folder / MANIFEST_NAME)


def _record_name(seq_len: int) -> str:
    return f"{PREFIX}{seq_len}.json"


def _file_name(seq_len: int) -> str:
    return f"{PREFIX}{seq_len}.arrow"
