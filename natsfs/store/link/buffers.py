"""Buffers for large payloads, used again when nobody looks at them any more.

The allocator gives memory of this size back to the kernel as soon as it is free, and gets it again
page by page, which costs twice what receiving into it does: 100 MiB of batches took 89 ms of
processor time with fresh buffers and 39 ms with memory that is kept.

Concurrency: synchronous, for one thread.  Others may hold buffers, not ask for them.
"""

from __future__ import annotations

import sys
from collections import deque

#: Bytes of buffers that are remembered, in use or not: some batches of the reader's size (1 MiB)
#: under way, and those that are being looked at.
KEPT_BYTES = 16 * 1024 * 1024

#: How many buffers are looked at for one that is free.  They are lent in turn, so the free ones
#: come first.
LOOKS = 8

#: What `sys.getrefcount` says of a buffer that nobody else refers to, not even by a memoryview:
#: the shelf's reference, the variable's, and the argument's.
_UNUSED = 3


class Shelf:
    """Lends buffers.  They need not be returned: one is free when its last user forgets it."""

    def __init__(self) -> None:
        self._buffers: deque[bytearray] = deque()
        self._size = 0

    def take(self, size: int) -> bytearray:
        """A buffer of exactly *size* bytes with anything in it."""
        for _ in range(min(LOOKS, len(self._buffers))):
            buffer = self._buffers[0]
            self._buffers.rotate(-1)
            if len(buffer) == size and sys.getrefcount(buffer) == _UNUSED:
                return buffer
        buffer = bytearray(size)
        self._buffers.append(buffer)
        self._size += size
        while self._size > KEPT_BYTES:
            self._size -= len(self._buffers.popleft())
        return buffer
