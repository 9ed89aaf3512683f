"""Work in threads, where the machine may refuse one.

A thread takes 8 MiB of address space, and a limit on that, or on the number of threads, is the one
thing that makes it fail.  What the interpreter raises then, and trio hands on, is a `RuntimeError`,
as for any bug.

A thread that has its stack and then no memory for its first steps is worse: it dies before it says
that it runs, and who started it waits for that for ever (`threading.Thread.start`, Python 3.11 to
3.13).  So under a limit nothing is given to a thread without memory for all that.
"""

from __future__ import annotations

import errno
import resource
import threading
from collections.abc import Callable
from typing import TypeVar

import trio

from natsfs.headroom import HEADROOM, may_map

T = TypeVar("T")

#: Bytes of a stack that has no limit, on x86-64 and arm64.
UNLIMITED_STACK = 2 * 1024 * 1024


class NoThread(OSError):
    """There is no thread to be had, and the work was not begun."""


def start_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """A thread that does *work* and that nobody waits for at the end of the process.

    Errors: `NoThread`.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    _demand_memory()
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise _refused(error) from error
    return thread


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

    _demand_memory()
    try:
        return await trio.to_thread.run_sync(beginning, abandon_on_cancel=abandon, limiter=limiter)
    except (RuntimeError, MemoryError) as error:
        if begun:
            raise
        raise _refused(error) from error


async def in_thread_or_here(work: Callable[[], T]) -> T:
    """What *work* gives, done in a thread, or by the caller where there is none: for what has to be
    done, and does not block for ever.  Errors: those of *work*."""
    try:
        return await in_thread(work)
    except NoThread:
        return work()


def _demand_memory() -> None:
    """Refuse what no thread could be started for.  One of trio's that is idle would do without, but
    its work would not.

    Errors: `NoThread`.
    """
    if not may_map(_stack_bytes() + HEADROOM):
        raise NoThread(
            errno.EAGAIN,
            "no thread can be started; allow the process more memory (ulimit -v, LimitAS=)",
        )


def _stack_bytes() -> int:
    """The address space of a new thread's stack (pthread_attr_setstacksize(3))."""
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return threading.stack_size() or (UNLIMITED_STACK if soft == resource.RLIM_INFINITY else soft)


def _refused(error: BaseException) -> NoThread:
    return NoThread(errno.EAGAIN, f"no thread can be started: {error!r}")
