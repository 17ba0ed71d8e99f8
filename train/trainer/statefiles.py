"""The files of a checkpoint: one for each rank, with the pieces of the state that it held.

A file is a safetensors file. Its keys are ``KIND:PARAMETER:START`` for a run of elements of a
flattened parameter from START on, and ``KIND:PARAMETER`` for a number; KIND is ``weight`` for the
fp32 weight, else the optimizer's own word (``exp_avg``, ``step``, …). The metadata holds the
shapes of the whole parameters. So any number of ranks can read what any number of ranks wrote, and
reading runs no code, as unpickling would.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from trainer.fragments import Partition, Piece, before_loading, partitions
from vnprep.durable import canonical_json, start_writing_out
from vnprep.errors import TrainingError
from vnprep.shards.manifest import FileRecord

WEIGHT = "weight"
_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}
_SHAPES = "shapes"
#: Bytes after which the system is told to begin to bring a file to disk.
_WRITE_OUT = 64 << 20


def file_name(rank: int) -> str:
    """Return the name of a rank's file."""
    return f"rank-{rank:05d}.safetensors"


def write_state(engine: Any, folder: Path, rank: int) -> FileRecord:
    """Write what this rank updates, tensor after tensor; nothing is sent between the ranks.

    Returns:
        The file's record: its name in ``folder``, size and hash. The hash is of what was to be
        written, taken on the way: what the disk made of it is not asked.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / file_name(rank)
    held = partitions(engine)
    digest = hashlib.sha256()
    size = last = 0
    with path.open("wb") as file:
        for block in _blocks(held):
            file.write(block)
            digest.update(block)
            size += len(block)
            if size - last >= _WRITE_OUT:
                start_writing_out(file)
                last = size
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(path.name, size, digest.hexdigest())


def _blocks(held: list[Partition]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a rank's file."""
    yield _header(held)
    for partition in held:
        for _, value in _numbers(partition):
            yield torch.tensor(value, dtype=torch.float64).view(1).view(torch.uint8).numpy().data
    for partition in held:
        with partition.held(changes=False):
            for _, piece, tensor in _runs(partition):
                run = tensor.detach().view(-1)[piece.offset : piece.offset + piece.numel]
                yield run.cpu().contiguous().view(torch.uint8).numpy().data


def _header(held: list[Partition]) -> bytes:
    shapes: dict[str, list[int]] = {}
    header: dict[str, Any] = {}
    end = 0

    def add(key: str, kind: str, shape: list[int], size: int) -> None:
        nonlocal end
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size

    for partition in held:
        shapes |= {piece.name: list(piece.shape) for piece in partition.own_pieces}
        for key, _ in _numbers(partition):
            add(key, "F64", [], 8)
    for partition in held:
        for kind, piece, tensor in _runs(partition):
            key = f"{kind}:{piece.name}:{piece.start}"
            size = piece.numel * tensor.element_size()
            add(key, _DTYPES[tensor.dtype], [piece.numel], size)
    header["__metadata__"] = {"format": "pt", _SHAPES: canonical_json(shapes)}
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % 8)  # the first tensor stands at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text


def _numbers(partition: Partition) -> list[tuple[str, float]]:
    """Return the key and the value of each number in the optimizer's state."""
    numbers = {
        kind: float(value)
        for kind, value in sorted(partition.state.items())
        if not isinstance(value, Tensor) or value.ndim == 0
    }
    return [
        (f"{kind}:{name}", value)
        for name in dict.fromkeys(piece.name for piece in partition.own_pieces)
        for kind, value in numbers.items()
    ]


def _runs(partition: Partition) -> Iterator[tuple[str, Piece, Tensor]]:
    """Yield kind, piece and the tensor that holds it, in the order of the file."""
    tensors = {WEIGHT: partition.tensor} | {
        kind: value
        for kind, value in sorted(partition.state.items())
        if isinstance(value, Tensor) and value.ndim > 0
    }
    for piece in partition.own_pieces:
        for kind, tensor in tensors.items():
            yield kind, piece, tensor


@dataclass(frozen=True)
class _Run:
    """Where a run of elements stands: its first and last (excluded) element, file and key."""

    start: int
    end: int
    file: Any
    key: str


class StateReader:
    """The state in a checkpoint's files, whoever wrote them; they are mapped, not read whole.

    Args:
        paths: the files, which have been found whole.

    Attributes:
        shapes: those of the parameters, by name.

    Raises:
        TrainingError: a file is none of these, sound as it may be.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._runs: dict[str, list[_Run]] = defaultdict(list)
        self._numbers: dict[str, tuple[Any, str]] = {}
        self._kinds: dict[str, set[str]] = defaultdict(set)
        for path in paths:
            try:
                file = safe_open(path, framework="pt", device="cpu")
                self._index(file)
            except Exception as error:  # safetensors has errors of several kinds
                raise TrainingError(
                    f"no file of a checkpoint's state ({error})",
                    place=path,
                    remedy="take another checkpoint",
                ) from None
        for runs in self._runs.values():
            runs.sort(key=lambda run: run.start)

    def _index(self, file: Any) -> None:
        for name, shape in json.loads(file.metadata()[_SHAPES]).items():
            self.shapes[name] = tuple(shape)
        for key in file.keys():  # noqa: SIM118  (it is no dictionary)
            kind, name, *start = key.split(":")
            if not start:
                self._numbers[key] = (file, key)
                continue
            self._kinds[name].add(kind)
            (size,) = file.get_slice(key).get_shape()
            first = int(start[0])
            self._runs[f"{kind}:{name}"].append(_Run(first, first + size, file, key))

    def kinds(self, name: str) -> set[str]:
        """Return what is there of a parameter: ``weight`` and kinds of optimizer state."""
        return self._kinds.get(name, set())

    def number(self, kind: str, name: str) -> float | None:
        """Return a number of a parameter's optimizer state, or None."""
        found = self._numbers.get(f"{kind}:{name}")
        return None if found is None else float(found[0].get_tensor(found[1]))

    def read(self, kind: str, name: str, start: int, out: Tensor) -> None:
        """Fill a flat tensor with the elements of a parameter from ``start`` on.

        Raises:
            TrainingError: some of them are in no file.
        """
        place, end = start, start + out.numel()
        for run in self._runs.get(f"{kind}:{name}", ()):
            if run.start <= place < run.end:
                last = min(end, run.end)
                part = run.file.get_slice(run.key)[place - run.start : last - run.start]
                out[place - start : last - start].copy_(part)
                place = last
            if place == end:
                return
        raise TrainingError(
            f"holds no {kind} of {name} from element {place:,} on",
            remedy="take a checkpoint of this model",
        )


def read_state(engine: Any, reader: StateReader) -> None:
    """Give the optimizer its weights and state; ``refresh_weights`` brings them to the module.

    No rank waits for another here, so one that fails leaves none behind.

    Raises:
        TrainingError: the files hold another model.
    """
    held = partitions(engine)
    before_loading(engine)
    for partition in held:
        _check_shapes(partition, reader)
        with torch.no_grad(), partition.held(changes=True):
            _fill(partition, reader)


def _check_shapes(partition: Partition, reader: StateReader) -> None:
    for piece in partition.pieces:
        found = reader.shapes.get(piece.name)
        if found != piece.shape:
            raise TrainingError(
                f"holds {piece.name} of shape {found}, the model needs {piece.shape}",
                remedy="take a checkpoint of this model",
            )


def _fill(partition: Partition, reader: StateReader) -> None:
    kinds = set[str]().union(*(reader.kinds(piece.name) for piece in partition.pieces))
    for kind in sorted(kinds):
        if kind != WEIGHT and not partition.state:
            partition.start_optimizer()
        tensor = partition.tensor if kind == WEIGHT else _state_tensor(partition, kind)
        flat = tensor.detach().view(-1)
        for piece in partition.pieces:
            out = flat[piece.offset : piece.offset + piece.numel]
            if kind == WEIGHT or kind in reader.kinds(piece.name):
                reader.read(kind, piece.name, piece.start, out)
            else:  # a parameter that has had no gradient yet
                out.zero_()
    _fill_numbers(partition, reader)


def _fill_numbers(partition: Partition, reader: StateReader) -> None:
    names = {piece.name for piece in partition.pieces}
    for kind, value in partition.state.items():
        if isinstance(value, Tensor) and value.ndim > 0:
            continue
        numbers = {n for name in names if (n := reader.number(kind, name)) is not None}
        if len(numbers) > 1:
            raise TrainingError(
                f"holds {kind} {sorted(numbers)} for parameters that are updated as one",
                remedy="continue with the ZeRO stage that it was written with",
            )
        for number in numbers:
            if isinstance(value, Tensor):
                value.fill_(number)
            else:
                partition.state[kind] = type(value)(number)


def _state_tensor(partition: Partition, kind: str) -> Tensor:
    """Return the optimizer's tensor of a kind; some are made later than at the first step."""
    if kind not in partition.state:
        partition.optimizer.state[partition.tensor][kind] = torch.zeros_like(partition.tensor)
    tensor: Tensor = partition.state[kind]
    return tensor


def read_weights(reader: StateReader) -> dict[str, Tensor]:
    """Return the whole fp32 weights, by the names of the module's parameters."""
    weights = {}
    for name, shape in reader.shapes.items():
        flat = torch.empty(torch.Size(shape).numel(), dtype=torch.float32)
        reader.read(WEIGHT, name, 0, flat)
        weights[name] = flat.view(shape)
    return weights
