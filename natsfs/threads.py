"""Work in threads, where the machine may refuse one.

A thread takes 8 MiB of address space, and a limit on that, or on the number of threads, is the one
thing that makes it fail.  What the interpreter raises then, and trio hands on, is a `RuntimeError`,
as for any bug.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


class NoThread(OSError):
    """There is no thread to be had, and the work was not begun."""


async def in_thread(
    work: Callable[[], T], *, abandon: bool = False, limiter: trio.CapacityLimiter | None = None
) -> T:
    """What *work* gives, done in a thread of trio's.  With *abandon* a cancelled caller does not
    wait for its end.

    Errors: those of *work*; `NoThread`.
    """
    begun = False

    def beginning() -> T:
        nonlocal begun
        begun = True
        return work()

    try:
        return await trio.to_thread.run_sync(beginning, abandon_on_cancel=abandon, limiter=limiter)
    except (RuntimeError, MemoryError) as error:
        if begun:
            raise
        raise NoThread(errno.EAGAIN, f"no thread can be started: {error!r}") from error


async def in_thread_or_here(work: Callable[[], T]) -> T:
    """What *work* gives, done in a thread, or by the caller where there is none: for what has to be
    done, and does not block for ever.  Errors: those of *work*."""
    try:
        return await in_thread(work)
    except NoThread:
        return work()
