"""Open an input as bytes, decompressed."""

from __future__ import annotations

import contextlib
import io
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from vnprep.errors import InputError
from vnprep.sources.xz import XzReader

_BUFFER = 1 << 20

# pyarrow's decoders notice a stream that was cut short; several zstd bindings return what they
# have and say nothing.
_ARROW = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@contextlib.contextmanager
def open_bytes(path: Path, start: int = 0) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` are decompressed.

    Args:
        path: the file.
        start: where to begin; only a file that is not compressed may begin elsewhere than at 0.

    Raises:
        InputError: it cannot be opened, or a compressed file is damaged or cut short.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_open(path))
            if start:
                file.seek(start)
            yield file
    except (EOFError, OSError, lzma.LZMAError) as error:
        raise InputError(
            f"cannot be read ({error})",
            place=path,
            remedy="check that the file is whole and readable, then run the same command again",
        ) from None


def _open(path: Path) -> BinaryIO:
    suffix = path.suffix.lower()
    if (suffix == ".xz" or suffix in _ARROW) and not path.stat().st_size:
        raise EOFError("cut short: not even its header is there")  # to the decoders, an empty text
    if suffix == ".xz":
        return io.BufferedReader(XzReader(path.open("rb")), _BUFFER)
    if suffix in _ARROW:
        stream = pa.input_stream(str(path), compression=_ARROW[suffix])
        return cast(BinaryIO, io.BufferedReader(stream, _BUFFER))
    return path.open("rb", buffering=_BUFFER)
