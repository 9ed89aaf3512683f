"""Buffers for payloads, used again when nobody looks at them any more.

The allocator gives memory of this size back to the kernel as soon as it is free, and gets it again
page by page, which costs twice what receiving into it does: 100 MiB of batches took 89 ms of
processor time with fresh buffers and 39 ms with memory that is kept.  So buffers are the kernel's
own pages, huge ones where it has them, and begin where direct I/O wants it: to fill 64 MiB of new
buffers of 4 MiB takes 4 ms with huge pages, 23 with small ones, and 27 in a bytearray; and to give
a MiB of huge pages to the kernel takes 0.11 ms instead of 0.23.

Concurrency: synchronous, for one thread.  Others may hold buffers, not ask for them.
"""

from __future__ import annotations

import mmap
import sys
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

#: Bytes of buffers that are remembered, in use or not: what a stream that is read has ahead of it
#: and under way (16 MiB), what it has just passed or waits for its hash, and what waits for the
#: block cache.
KEPT_BYTES = 64 * 1024 * 1024

#: How many buffers are looked at for one that is free.  They are lent in turn, so the free ones
#: come first.
LOOKS = 8

#: Sizes are rounded up to a multiple of this, or of the other one where they are larger, so that
#: one buffer serves many answers: one default chunk, and an eighth of it.
SMALL_STEP = 16 * 1024
LARGE_STEP = 128 * 1024

#: The smallest buffer that may be in huge pages: one of them, on the usual machines.
HUGE_BYTES = 2 * 1024 * 1024

#: What `sys.getrefcount` says of a buffer that nobody else refers to, not even by a memoryview:
#: the shelf's reference, the variable's, and the argument's.
_UNUSED = 3


class Arena(mmap.mmap):
    """A buffer that payloads fill one after the other, *filled* bytes of it so far."""

    filled = 0

    def __new__(cls, size: int) -> Arena:
        """One of *size* bytes, at least one.  Errors: `MemoryError`."""
        try:
            arena = super().__new__(cls, -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"no {size} bytes for a buffer: {error}") from error
        if size >= HUGE_BYTES:
            with suppress(OSError):  # a kernel without huge pages
                arena.madvise(mmap.MADV_HUGEPAGE)
        return arena

    def claim(self, size: int) -> memoryview | None:
        """The next *size* bytes, None where there are not so many left."""
        start, end = self.filled, self.filled + size
        if end > len(self):
            return None
        self.filled = end
        return memoryview(self)[start:end]


#: Those that there are.
_shelves: weakref.WeakSet[Shelf] = weakref.WeakSet()


class Shelf:
    """Lends arenas.  They need not be returned: one is free when its last user forgets it."""

    def __init__(self) -> None:
        self._arenas: deque[Arena] = deque()
        self._size = 0
        _shelves.add(self)

    def take(self, size: int) -> Arena:
        """An arena of *size* bytes or some more, with anything in it.  Errors: `MemoryError`."""
        step = SMALL_STEP if size <= LARGE_STEP else LARGE_STEP
        size += -size % step
        for _ in range(min(LOOKS, len(self._arenas))):
            arena = self._arenas[0]
            self._arenas.rotate(-1)
            if len(arena) == size and sys.getrefcount(arena) == _UNUSED:
                arena.filled = 0
                return arena
        try:
            arena = Arena(size)
        except MemoryError:
            self.clear()
            arena = Arena(size)
        self._arenas.append(arena)
        self._size += size
        while self._size > KEPT_BYTES:
            self._size -= len(self._arenas.popleft())
        return arena

    def clear(self) -> None:
        """Forget all: the memory of those that nobody uses is free at once."""
        self._arenas.clear()
        self._size = 0


def clear_shelves() -> None:
    """`Shelf.clear` of all, because memory is short."""
    for shelf in list(_shelves):
        shelf.clear()


def joined(parts: Sequence[bytes | bytearray | memoryview]) -> memoryview | None:
    """The bytes of *parts* in one piece and without a copy, if they are all that came into one
    arena, in the order in which they came; else None."""
    arena = parts[0].obj if parts and isinstance(parts[0], memoryview) else None
    if not isinstance(arena, Arena) or arena.filled != sum(map(len, parts)):
        return None
    if any(not isinstance(part, memoryview) or part.obj is not arena for part in parts):
        return None
    return memoryview(arena)[: arena.filled]
