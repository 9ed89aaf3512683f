"""Reads of /dev/fuse that do not block, and have the memory that they need (`reserve`).

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
from types import ModuleType

import pyfuse3
import trio

from natsfs.operations.reserve import Reserve

#: Seconds between signals that end a read which blocks after all, because a program was killed in
#: the microseconds between the look and the read.
RESCUE = 1.0

#: Seconds between looks whether there is memory again, and for which requests wait for that.  Then
#: they are read without, which may end the mount; else its programs would hang for ever.
PAUSE = 0.02
PATIENCE = 10.0

#: Where pyfuse3 3.4 and 3.5 keep the function that waits for the device.
_WAIT = "_wait_fuse_readable"

#: Where they keep the module that they wait by.
_TRIO = "trio"


@contextmanager
def reads_do_not_block(reserve: Reserve) -> Iterator[None]:
    """Guard the reads of the session that `pyfuse3.init` has opened.  *reserve* is the memory for
    them.  For the main thread."""
    device = _device()
    wait = getattr(pyfuse3, _WAIT, None)
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, RESCUE, RESCUE)
    try:
        if device is not None and wait is not None:
            guard = _Guard(device, reserve)
            setattr(pyfuse3, _WAIT, guard.guarded(wait))
            turn = Turn()
            setattr(pyfuse3, _TRIO, _TrioWith(guard.wait_readable, turn))
            with turn.watched():
                yield
        else:
            yield
    finally:
        # The interpreter restores the default at its end, which is to be killed.
        signal.setitimer(signal.ITIMER_REAL, 0)
        if wait is not None:
            setattr(pyfuse3, _WAIT, wait)
        setattr(pyfuse3, _TRIO, trio)


class _TrioWith(ModuleType):
    """trio with another `wait_readable` and another lock, as pyfuse3 itself puts another module in
    trio's place for asyncio."""

    def __init__(self, wait_readable: Callable[[int], Awaitable[None]], turn: Turn) -> None:
        super().__init__(trio.__name__)
        self.__dict__.update(trio.__dict__, Lock=lambda: turn)
        self.lowlevel = ModuleType(trio.lowlevel.__name__)
        self.lowlevel.__dict__.update(trio.lowlevel.__dict__, wait_readable=wait_readable)


class Turn(trio.abc.Instrument):
    """Whose turn it is to wait for the device: a lock that is not handed on before it has to be.

    With trio's own the next worker is woken for each request, and waits for the device while the
    request is served.  But most are served without waiting for anything, and then who served one
    may as well wait for the next: an empty handler takes 19 µs of processor time instead of 26.  So
    the next worker is woken only when one that has read a request ends its step of the scheduler
    without having come back.
    """

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()
        self._taken = False
        #: Who has left in the present step, so that the next ones may have to be told.
        self._leaving: trio.lowlevel.Task | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this is open, it hears of the ends of steps.  For the trio thread."""
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    async def __aenter__(self) -> None:
        if self._taken:
            await self._lot.park()  # who wakes this up has taken it for us
        self._taken = True
        self._leaving = None

    async def __aexit__(self, *_: object) -> None:
        self._taken = False
        self._leaving = trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is not self._leaving:
            return
        if self._lot:
            try:
                self._lot.unpark()
            except MemoryError:
                return  # trio would take the instrument away: the end of the next step is as good
            self._taken = True
        self._leaving = None


class _Guard:
    """Lets a read happen when there is something to read, and memory for it.

    While there is not even memory for one request, the worker that waits for the device looks now
    and then whether there is.  It does so inside pyfuse3's own waiting, or it would be taken for
    busy, and another worker started, with another buffer.
    """

    def __init__(self, device: int, reserve: Reserve) -> None:
        self._poll = select.poll()
        self._poll.register(device, select.POLLIN)
        self._reserve = reserve
        #: When there was not enough any more for a request, None if there is.
        self._short_since: float | None = None

    def guarded(self, wait: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
        """What pyfuse3 is to call instead of *wait*."""

        async def wait_until_readable() -> bool:
            while await wait():
                if self._has_memory() and self._poll.poll(0):
                    self._reserve.give()
                    return True
            return False

        return wait_until_readable

    async def wait_readable(self, device: int) -> None:
        """As trio's; but while memory is short it returns soon in any case."""
        if self._short_since is not None:
            await trio.sleep(PAUSE)
        else:
            await trio.lowlevel.wait_readable(device)

    def _has_memory(self) -> bool:
        """Whether a request may be read: others give memory back when they end."""
        self._reserve.take()
        if self._reserve.enough:
            self._short_since = None
            return True
        if self._short_since is None:
            self._short_since = trio.current_time()
        return trio.current_time() > self._short_since + PATIENCE


def _device() -> int | None:
    """The descriptor of /dev/fuse, which pyfuse3 keeps to itself."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if os.readlink(entry) == "/dev/fuse":
                return int(entry.name)
    return None
