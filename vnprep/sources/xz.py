"""Read ``.xz``: every stream of a file, and nothing else.

The standard library's reader takes whatever follows the first stream and is none for the end of
the file, so that a damaged second one is lost in silence; and it refuses the padding with NULs
that the format allows.
"""

from __future__ import annotations

import io
import lzma
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 1 << 18
_ALIGNED = 4  # padding comes in as many bytes


class XzReader(io.RawIOBase):
    """The decompressed bytes of a file, which it closes with itself.

    Reading raises ``lzma.LZMAError`` where the file is damaged or holds anything but streams and
    padding, and ``EOFError`` where it is cut short.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer, or a part of it; return the bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        while True:
            if self._stream.eof and not self._next_stream():
                return 0
            block = self._file.read(_BLOCK) if self._stream.needs_input else b""
            if self._stream.needs_input and not block:
                raise EOFError("cut short: its last stream has no end")
            data = self._stream.decompress(block, len(view))
            if data:
                view[: len(data)] = data
                return len(data)

    def _next_stream(self) -> bool:
        """Pass over padding; tell whether anything follows."""
        rest, padding = self._stream.unused_data, 0
        while True:
            begins = rest.lstrip(b"\0")
            padding += len(rest) - len(begins)
            if begins:
                break
            rest = self._file.read(_BLOCK)
            if not rest:
                break
        if padding % _ALIGNED:
            raise lzma.LZMAError(f"{padding} NUL bytes after a stream are no padding")
        if begins:
            self._file.seek(-len(begins), io.SEEK_CUR)
            self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        return bool(begins)
