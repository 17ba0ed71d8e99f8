"""SHA-256 of what goes by; of large files in a thread, beside the search for cuts."""

from __future__ import annotations

import hashlib
import queue
import threading

# Blocks that wait to be hashed: enough to even out, little to hold.
_WAITING = 4


class Digest:
    """Hashes blocks in the order they are fed.

    The first block is hashed at once; so a small file costs no thread.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._blocks: queue.Queue[bytes | None] | None = None
        self._thread: threading.Thread | None = None
        self._fed = 0

    def feed(self, block: bytes) -> None:
        """Take the next block."""
        self._fed += 1
        if self._fed == 1:
            self._sha256.update(block)
            return
        if self._blocks is None:
            self._blocks = queue.Queue(_WAITING)
            self._thread = threading.Thread(target=self._hash, args=(self._blocks,), daemon=True)
            self._thread.start()
        self._blocks.put(block)

    def _hash(self, blocks: queue.Queue[bytes | None]) -> None:
        while (block := blocks.get()) is not None:
            self._sha256.update(block)

    def hexdigest(self) -> str:
        """Return the hexadecimal hash of all that was fed; nothing may be fed afterwards."""
        if self._blocks is not None and self._thread is not None:
            self._blocks.put(None)
            self._thread.join()
        return self._sha256.hexdigest()
