"""Whether the local disk answers: what a network file system may not do for minutes.

Most uses of the journal are calls in the trio thread, since all they do is to copy into the page
cache: for a write of 128 KiB that takes 8 µs of processor time, and a thread to do it in 56 more.
If such a call hangs, everything does.  So whoever is about to use a disk that has rested asks it
first, in a thread; a disk that was used a moment ago is taken to answer.
"""

from __future__ import annotations

import math
from typing import Protocol

import trio

#: Seconds for which the disk is taken to answer because it was used.
REST = 1.0


class Disk(Protocol):
    """Knows whether the local disk answers."""

    @property
    def hangs(self) -> bool:
        """Whether it is known not to answer."""

    async def probe(self) -> None:
        """Find out, within seconds."""


class Reliable(Disk):
    """A disk that always answers."""

    hangs = False

    async def probe(self) -> None:
        """It does."""


class Watched:
    """*disk*, as those use it who must not hang."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        #: When somebody was about to use it last, on trio's clock.
        self._used = -math.inf
        self._probing = trio.Lock()

    def hangs(self) -> bool:
        """Whether it is to be left alone."""
        return self._disk.hangs

    async def ready(self) -> None:
        """Wait until it is known whether the disk can be used, for some seconds at most, if it has
        rested."""
        now = trio.current_time()
        rested, self._used = now - self._used > REST, now
        if rested or self._probing.locked():
            async with self._probing:
                if rested:
                    await self._disk.probe()

    async def look(self) -> None:
        """See whether it answers, as nobody else may do for a while."""
        await self._disk.probe()
