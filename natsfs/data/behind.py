"""Changes of the block cache that no reader waits for.

Concurrency: one task at a time makes them, in the mount's nursery, and only while there is work.
"""

from __future__ import annotations

import logging
from collections import deque

import trio

from natsfs.data.cache import BlockCache, Kept

log = logging.getLogger(__name__)

#: Bytes of blocks that wait to be written to the cache.  A disk that is slower than the network
#: misses blocks then, and costs no more memory than this.
WRITE_BEHIND = 32 * 1024 * 1024

#: Bytes that wait beside those that are being written when the disk is too slow to be waited for:
#: the kernel then takes blocks into its memory, as far as it has some, and the cache misses fewer.
TOO_SLOW = WRITE_BEHIND // 4

#: Bytes that are worth the way to a thread at once.  While bytes stream, the thread gets the
#: interpreter's lock late, several times for each file: 4 MiB take it 3 to 15 ms, of which the disk
#: has 2.  What is read here and there comes in pieces of 128 KiB or less, each of which takes 0.1
#: to 0.4 ms, which the reads that come at the same time wait for.  So fewer bytes wait until none
#: have come for `GATHER` seconds, for `LONGEST` at most.
ENOUGH = 8 * 1024 * 1024
GATHER = 0.1
LONGEST = 1.0

#: Bytes that go to a thread at once at most: all that came while it was at work, so that it makes
#: up for having been late.
AT_ONCE = 16 * 1024 * 1024


class WriteBehind:
    """Puts blocks into *cache*, in *nursery*."""

    def __init__(self, cache: BlockCache, nursery: trio.Nursery) -> None:
        self._cache = cache
        self._nursery = nursery
        self._waiting: deque[Kept] = deque()
        self._size = 0  # bytes that wait
        self._writing = 0  # bytes that are being written
        self._discards: deque[tuple[str, str, trio.Event]] = deque()
        self._hurry = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    def put(self, kept: Kept) -> None:
        """Keep blocks soon, or never if too much is waiting: a cache may miss some."""
        if self._size + self._writing + len(kept.data) <= WRITE_BEHIND:
            self._size += len(kept.data)
            self._waiting.append(kept)
            if self._size >= ENOUGH:
                self._hurry.set()
            self._wake()

    async def discard(self, bucket_identity: str, nuid: str) -> None:
        """Remove every block of a version, after a write that has begun and before all others."""
        left = [kept for kept in self._waiting if _of(kept) != (bucket_identity, nuid)]
        self._size = sum(len(kept.data) for kept in left)
        self._waiting = deque(left)
        done = trio.Event()
        self._discards.append((bucket_identity, nuid, done))
        self._hurry.set()
        self._wake()
        await done.wait()

    async def settled(self) -> None:
        """Wait until nothing is waiting."""
        self._hurry.set()
        await self._idle.wait()

    def _wake(self) -> None:
        if self._idle.is_set():
            self._idle = trio.Event()
            self._nursery.start_soon(self._work)

    async def _work(self) -> None:
        try:
            while self._waiting or self._discards:
                await self._gather()
                left = len(self._waiting)
                while self._discards or (left > 0 and self._waiting):
                    left -= await self._step()
        finally:
            for _, _, done in self._discards:
                done.set()
            self._idle.set()

    async def _gather(self) -> None:
        """Wait until it is time to write what waits."""
        with trio.move_on_after(LONGEST):
            before = 0
            while self._size != before and not self._hurry.is_set():
                before = self._size
                with trio.move_on_after(GATHER):
                    await self._hurry.wait()
        self._hurry = trio.Event()

    async def _step(self) -> int:
        """Make one change; how many of those that wait are done with."""
        try:
            return await self._change()
        except Exception:  # the cache promises none; a bug in it must not end the mount
            log.exception("the block cache failed")
            return 0

    async def _change(self) -> int:
        if self._discards:
            bucket_identity, nuid, done = self._discards.popleft()
            try:
                await self._cache.discard(bucket_identity, nuid)
            finally:
                done.set()
            return 0
        kept: list[Kept] = []
        while self._waiting and self._writing < AT_ONCE:
            kept.append(self._waiting.popleft())
            self._writing += len(kept[-1].data)
        self._size -= self._writing
        try:
            await self._cache.put(kept, direct=self._size < TOO_SLOW)
        finally:
            self._writing = 0
        return len(kept)


def _of(kept: Kept) -> tuple[str, str]:
    return kept.version.bucket_identity, kept.version.nuid
