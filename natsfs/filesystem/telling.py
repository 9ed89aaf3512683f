"""How far the watch has come, and who waits for it.

Concurrency: what has no `async` in front of it is atomic.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger(__name__)

#: Seconds to wait for the watch to tell of what was read at the leader.  It takes a round trip on a
#: machine that is not overloaded; longer only when the meta was purged meanwhile.
CATCH_UP = 5.0


class Telling:
    """Up to which revision the watch has told.

    *taken* is up to which it was taken in, but for what was put off.
    """

    def __init__(self) -> None:
        self.taken = 0
        #: Up to which revision the watch has told of all other names, and when it goes on.
        self._told = 0
        self._going_on = trio.Event()
        #: How many handlers wait for that, and what the watch does not wait for while they do.
        self._awaited = 0
        self._waiting = trio.CancelScope()

    @property
    def awaited(self) -> bool:
        """Whether a handler waits for the watch."""
        return self._awaited > 0

    def begin_anew(self) -> None:
        """Nothing was told yet."""
        self._told = self.taken = 0

    def loaded(self, revision: int) -> None:
        """Everything up to *revision* was taken in before anybody could wait for it."""
        self.taken = self._told = max(self._told, revision)

    def tell(self, revision: int) -> None:
        """Everything up to *revision* was told."""
        self._told = max(self._told, revision)
        self._going_on.set()
        self._going_on = trio.Event()

    async def wait(self, done: Callable[[], Awaitable[None]], timeout: float = math.inf) -> None:
        """Wait for *done*, *timeout* seconds at most, and not once a handler waits for the
        watch."""
        with trio.move_on_after(timeout) as self._waiting:
            await done()

    async def reach(self, revision: int, is_alive: Callable[[], bool]) -> None:
        """Wait until the watch has told of everything up to *revision*, as long as it *is_alive*.

        A meta that was purged again before it was delivered never comes: `CATCH_UP` bounds that.
        """
        if self._told >= revision:
            return
        self._awaited += 1
        self._waiting.cancel()
        try:
            with trio.move_on_after(CATCH_UP) as scope:
                while is_alive() and self._told < revision:
                    await self._going_on.wait()
        finally:
            self._awaited -= 1
        if scope.cancelled_caught:
            log.info("the watch has told up to %d and not of revision %d", self._told, revision)
