"""Chunks of versions that were replaced or removed, until it is time to free them (W6).

A version stays as long as a handle of this mount reads it, and *delay* seconds longer than its
name, so that readers on other hosts can finish.  What is still waiting when the mount ends is freed
then; what a crash leaves behind is found by `natsfs gc`.

Concurrency: `schedule`, `discard`, `hold` and `release` are atomic.  A version is taken off the
list before its purge is awaited, so it is purged once; `drain` waits for a purge that is under way.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable

import trio

from natsfs.errors import ConnectionLost, NatsfsError, PermissionsError, RequestTimeout
from natsfs.store.base import ObjectStore
from natsfs.store.model import ObjectInfo

log = logging.getLogger(__name__)

#: Purges under way at once.  One after the other takes 118 to 243 µs each on 2 cores, 16 together
#: 39 to 59, with half of the server's time, and 64 no less.
AT_ONCE = 16

#: Seconds until chunks are tried again whose server did not answer: they do not press.
RETRY = 30.0


class Purger:
    """Frees chunks, in time."""

    def __init__(self, store: ObjectStore, delay: float) -> None:
        self._store = store
        self._delay = delay
        self._due: list[tuple[float, str]] = []
        #: Due, but read by a handle.
        self._parked: set[str] = set()
        self._readers: Counter[str] = Counter()
        #: Whether a name has the version: a rename that was interrupted leaves two that share one,
        #: and neither of them may take the bytes from the other.
        self.wanted: Callable[[str], bool] = lambda nuid: False
        self._wake = trio.Event()
        self._lock = trio.Lock()
        #: How many versions were freed.
        self.freed = 0
        #: Taken off the list in vain, because the server is away.
        self._kept: list[str] = []

    def __len__(self) -> int:
        """How many versions wait to be freed."""
        return len(self._due) + len(self._parked)

    def hold(self, nuid: str) -> None:
        """A handle reads the version *nuid*."""
        self._readers[nuid] += 1

    def release(self, nuid: str) -> None:
        """A handle that was announced by `hold` is done with *nuid*."""
        self._readers[nuid] -= 1
        if not self._readers[nuid]:
            del self._readers[nuid]
            if nuid in self._parked:
                self._parked.remove(nuid)
                heapq.heappush(self._due, (trio.current_time(), nuid))
                self._wake.set()

    def schedule(self, info: ObjectInfo) -> None:
        """No name has the version *info* any more."""
        if info.nuid and info.chunks and info.link is None and not info.deleted:
            self.discard(info.nuid)

    def discard(self, nuid: str) -> None:
        """No name has the version *nuid*, of which there are chunks, any more or will ever."""
        heapq.heappush(self._due, (trio.current_time() + self._delay, nuid))
        self._wake.set()

    async def run(self) -> None:
        """Free what is due, until cancelled; what the server did not answer to, later."""
        while True:
            await self._free_until(trio.current_time())
            self._wake = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else float("inf")):
                await self._wake.wait()

    async def drain(self) -> int:
        """Free now whatever no handle reads, because space is short or the mount ends; return how
        many versions that were, those included that were just being freed."""
        freed = self.freed
        await self._free_until(float("inf"))
        return self.freed - freed

    async def _free_until(self, until: float) -> None:
        async with self._lock:
            while self._due and self._due[0][0] <= until and not self._kept:
                async with trio.open_nursery() as nursery:
                    for nuid in self._take(until, AT_ONCE):
                        nursery.start_soon(self._free, nuid)
            if self._kept:
                self._put_off()

    def _put_off(self) -> None:
        """Try again later, the rest of what is due included: it would fare no better now."""
        again = trio.current_time() + RETRY
        self._due = [(max(due, again), nuid) for due, nuid in self._due]
        self._due += [(again, nuid) for nuid in self._kept]
        self._kept = []
        heapq.heapify(self._due)

    def _take(self, until: float, most: int) -> list[str]:
        """Take versions that are due and that nobody reads off the list."""
        taken: list[str] = []
        while self._due and self._due[0][0] <= until and len(taken) < most:
            nuid = heapq.heappop(self._due)[1]
            if nuid in self._readers:
                self._parked.add(nuid)
            else:
                taken.append(nuid)
        return taken

    async def _free(self, nuid: str) -> None:
        if self.wanted(nuid):
            return
        try:
            await self._store.purge_chunks(nuid)
        except (NatsfsError, MemoryError) as error:
            if isinstance(error, ConnectionLost | RequestTimeout | MemoryError):
                self._kept.append(nuid)
            # A denial is known: the session has said once what to allow.
            level = logging.DEBUG if isinstance(error, PermissionsError) else logging.WARNING
            log.log(level, "chunks of version %s could not be freed: %r", nuid, error)
        else:
            self.freed += 1
