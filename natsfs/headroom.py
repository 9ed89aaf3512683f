"""Whether this process may have more memory, asked before it has none.

Only a limit makes an allocation fail on Linux, which otherwise has memory without end and kills who
uses it.  At the limit anything may fail, also in the loop that everything runs in; so whoever keeps
what he takes asks first.  Without a limit that takes 0.7 µs.
"""

from __future__ import annotations

import ctypes
import mmap
import resource
from pathlib import Path

import trio

#: Bytes that have to be there for who keeps a little: the rest of the process lives from them.
HEADROOM = 3 * 1024 * 1024

#: Seconds that `room_for_more` waits, and from one look to the next: requests that take memory give
#: it back when they end.
PATIENCE = 5.0
LOOK = 0.05

#: Bytes that `keep_what_is_freed` keeps: what one file that is written has waiting (8 MiB), twice.
#: Larger pieces than a request of the kernel (1 MiB) with all around it are not kept.
FREED = 16 * 1024 * 1024
LARGEST_FREED = 4 * 1024 * 1024

#: Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")

#: What is in there when the kernel promises no more memory than it has.
_NEVER = "2"

# The memory is not touched, so it takes no pages; that of Python's own objects would be.
_libc = ctypes.CDLL(None)
malloc = _libc.malloc
malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
free = _libc.free
free.argtypes, free.restype = [ctypes.c_void_p], None
#: Gives back what is free, which the allocator may keep; None where there is no such thing.
trim = getattr(_libc, "malloc_trim", None)
_mallopt = getattr(_libc, "mallopt", None)


def _promises_are_kept() -> bool:
    try:
        return _OVERCOMMIT.read_text().strip() == _NEVER
    except OSError:
        return False


_KEPT = _promises_are_kept()


def limited() -> bool:
    """Whether an allocation may fail."""
    return (
        _KEPT
        or resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        or resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY
    )


def keep_what_is_freed() -> None:
    """Have the allocator keep `FREED` bytes for the next ones that ask, where memory has no limit.

    By itself it gives the kernel back what goes beyond twice its largest piece, and what a program
    writes comes in pieces of 1 MiB that live for milliseconds: getting the pages again and again
    took 0.1 ms of the 1.7 that a mount spends on a MiB that is written.
    """
    if _mallopt is not None and not limited():
        _mallopt(_TRIM_THRESHOLD, FREED)
        _mallopt(_MMAP_THRESHOLD, LARGEST_FREED)


def may_map(size: int) -> bool:
    """Whether this process may have *size* bytes of address space in one piece.  Without a limit
    that is not tried, under one it takes 6 µs."""
    if not limited():
        return True
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE).close()
    except (OSError, MemoryError):
        return False
    return True


async def room_for_more() -> None:
    """Wait until there is memory for something small that is kept, `PATIENCE` at most.

    Errors: `MemoryError`.
    """
    if _has_room():
        return
    with trio.move_on_after(PATIENCE):
        while not _has_room():  # noqa: ASYNC110  (nobody says when there is)
            await trio.sleep(LOOK)
        return
    raise MemoryError


def _has_room() -> bool:
    if not limited():
        return True
    block = malloc(HEADROOM)
    if block is None:
        return False
    free(block)
    return True
