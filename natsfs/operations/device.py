"""Reads of /dev/fuse that do not block.

pyfuse3 waits until the device is readable and reads it later, when trio has scheduled the task,
with the interpreter locked and a descriptor that blocks.  What made it readable may be gone by
then: the kernel takes the notice that a program was interrupted back when that program's request is
answered in between.  The read then blocks every thread of the daemon until the next request comes,
which is never if the program that would make it waits for this daemon.  One in 200 interrupted
requests did that here; shells, make and everything written in Go interrupt theirs all the time.

The device cannot be made non-blocking, because pyfuse3 ends the mount on EAGAIN.  So it is asked
once more, immediately before the read, with nothing scheduled between.

Concurrency: what is installed here runs on the trio thread, and after its last look it awaits
nothing.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyfuse3

#: Seconds between signals that end a read which blocks after all, because a program was killed in
#: the microseconds between the look and the read.
RESCUE = 1.0

#: Where pyfuse3 3.4 and 3.5 keep the function that waits for the device.
_WAIT = "_wait_fuse_readable"


@contextmanager
def reads_do_not_block() -> Iterator[None]:
    """Guard the reads of the session that `pyfuse3.init` has opened.  For the main thread."""
    device = _device()
    wait = getattr(pyfuse3, _WAIT, None)
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, RESCUE, RESCUE)
    try:
        if device is not None and wait is not None:
            setattr(pyfuse3, _WAIT, _guarded(wait, device))
        yield
    finally:
        # The interpreter restores the default at its end, which is to be killed.
        signal.setitimer(signal.ITIMER_REAL, 0)
        if wait is not None:
            setattr(pyfuse3, _WAIT, wait)


def _guarded(wait: Callable[[], Awaitable[bool]], device: int) -> Callable[[], Awaitable[bool]]:
    poll = select.poll()
    poll.register(device, select.POLLIN)

    async def wait_until_readable() -> bool:
        while await wait():
            if poll.poll(0):
                return True
        return False

    return wait_until_readable


def _device() -> int | None:
    """The descriptor of /dev/fuse, which pyfuse3 keeps to itself."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if os.readlink(entry) == "/dev/fuse":
                return int(entry.name)
    return None
