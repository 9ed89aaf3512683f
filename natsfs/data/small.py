"""The content of a small file that is being written: all of it in memory.

Most files are small, and making a spool for one costs 18 % of its creation.

Concurrency: everything here is synchronous.
"""

from __future__ import annotations

from natsfs.data.coverage import Held
from natsfs.data.memory import Memory

#: Bytes of the largest small file: what the store sends in one round trip with its meta.  Nothing
#: of a file is sent before it is larger.
SMALL_BYTES = 512 * 1024


class Small:
    """A file that is empty at first."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._data = bytearray()

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return len(self._data)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put *data* at *offset*; a gap behind the old end reads as zeros."""
        if not data:
            return
        self._grow(offset)
        before = len(self._data)
        self._data[offset : offset + len(data)] = data
        self._memory.held += len(self._data) - before

    def truncate(self, size: int) -> None:
        """Set the size.  What is cut off is forgotten: growing again brings zeros."""
        self._memory.held -= len(self._data[size:])
        del self._data[size:]
        self._grow(size)

    def pieces(self, start: int, stop: int) -> list[Held]:
        """`Spool.pieces`: all is held."""
        stop = min(stop, self.size)
        return [Held(start, stop)] if start < stop else []

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [*start*, *stop*), cut at the size."""
        return bytes(memoryview(self._data)[start:stop])

    def close(self) -> None:
        """Forget everything.  Closing again does nothing."""
        self.truncate(0)

    def _grow(self, size: int) -> None:
        more = size - len(self._data)
        if more > 0:
            self._data.extend(bytes(more))
            self._memory.held += more
