"""Large compressed files are unpacked once, so that all workers share them like any other.

A compressed stream can be read from its beginning alone. Left packed, a large file would be the
work of one process and one shard of any size; unpacked into the work folder, it is cut into units
like an uncompressed one. What is unpacked goes when the run is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from vnprep.errors import OutputError
from vnprep.sources.inputs import Input
from vnprep.sources.opening import open_bytes

#: Unpack nowhere: only count the units that there would be.
NOWHERE = Path("/dev/null")

_BLOCK = 4 << 20
# Text packs to about a fourth: a file below that share of a unit makes hardly more than one.
_SHARE = 4


def is_worth_unpacking(item: Input, size: int, unit_bytes: int) -> bool:
    """Tell whether a file of ``size`` packed bytes is likely to make several units."""
    return item.compressed and size > unit_bytes // _SHARE


def _write(out: BinaryIO, block: bytes, to: Path) -> None:
    try:
        out.write(block)
        out.flush()
    except OSError as error:  # of this file, not of the one that is read
        raise OutputError(
            f"cannot be written ({error.strerror})",
            place=to,
            remedy="a large compressed input is unpacked here: make room for all of its text, "
            "then run the same command again",
        ) from None


def unpack(item: Input, to: Path, feed: Callable[[bytes], None]) -> tuple[Input, int]:
    """Unpack a file.

    Args:
        item: a compressed input.
        to: the file to write, or ``NOWHERE``.
        feed: called with every block.

    Returns:
        The unpacked file, which is reported under the name of the packed one, and its bytes.

    Raises:
        InputError: the file is damaged or cut short.
        OutputError: it cannot be written.
    """
    total = 0
    with to.open("wb") as out, open_bytes(item.path) as packed:
        while block := packed.read(_BLOCK):
            feed(block)
            _write(out, block, to)
            total += len(block)
    return replace(item, where=str(to), compressed=False, label=item.name), total
