"""Memory that is kept for the reading of requests.

libfuse takes a buffer for a request, and pyfuse3 the bytes of a write, before any handler is asked.
If they do not get them the request is lost: libfuse has taken it from the kernel already, nobody
answers it, what it leaves in a pipe is read as the next request, and pyfuse3 ends the mount.  So
memory is held for that, and let go of just before a request is read.  The handlers are the ones who
do without: a read or a write is not even begun while the reserve is not whole, so that what they
keep does not come out of it.

Without a limit (`headroom`) nothing is let go of: that would take 10 µs of each request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from natsfs.errors import OutOfMemory
from natsfs.headroom import free, limited, malloc, trim

log = logging.getLogger(__name__)

#: Bytes of a block: what libfuse takes for a buffer, or pyfuse3 for the bytes of a write, and some.
BLOCK_BYTES = 1024 * 1024 + 64 * 1024

#: Blocks without which no request can be read: the buffer of a new worker, the bytes of a write,
#: and what the interpreter takes at once for small objects.
LEAST_BLOCKS = 3

#: Blocks that are held: pyfuse3 has three idle workers at times.
BLOCKS = 6

#: Seconds from one attempt to free memory to the next: it may take 100 ms.
RELIEF = 2.0

#: Seconds from one warning to the next at the least: it comes and goes with each request.
SILENCE = 60.0


class Reserve:
    """The memory that is held, which may be less than is wanted.  *relieve* frees what can be
    spared.  For the trio thread, which reads the requests."""

    def __init__(self, relieve: Callable[[], None]) -> None:
        self._relieve = relieve
        self._blocks: list[int] = []
        self._relieve_at = 0.0
        self._complained = False
        self._silent_until = 0.0

    @property
    def enough(self) -> bool:
        """Whether as much is held as a request needs."""
        return len(self._blocks) >= LEAST_BLOCKS

    def take(self) -> bool:
        """Hold as much as there is, and say whether that is all."""
        if len(self._blocks) == BLOCKS:
            return True
        if self._filled() or (self._relieved() and self._filled()):
            self._report(short=False)
            return True
        self._report(short=True)
        return False

    def give(self) -> None:
        """Let go of it, if anybody could need it."""
        if limited():
            while self._blocks:
                free(self._blocks.pop())

    def demand(self) -> None:
        """Hold all, for a request that will keep memory.  Errors: `OutOfMemory`."""
        if not self.take():
            raise OutOfMemory("the process may have no more memory")

    def _filled(self) -> bool:
        while len(self._blocks) < BLOCKS:
            block = malloc(BLOCK_BYTES)
            if block is None:
                return False
            self._blocks.append(block)
        return True

    def _relieved(self) -> bool:
        """Whether something was done to have more."""
        now = time.monotonic()
        if now < self._relieve_at:
            return False
        self._relieve_at = now + RELIEF
        self._relieve()
        if trim is not None:
            trim(0)
        return True

    def _report(self, *, short: bool) -> None:
        now = time.monotonic()
        if short and not self._complained and now >= self._silent_until:
            log.warning("memory is short: reads and writes fail with ENOMEM until there is more")
            self._complained, self._silent_until = True, now + SILENCE
        elif self._complained and not short:
            log.info("there is memory again")
            self._complained = False
