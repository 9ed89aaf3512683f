"""The block cache: bounded, on local disk, and never in the way of a read.

A block belongs to an immutable version, so there is nothing to invalidate (R4).  `blockfiles` keeps
the blocks; this module knows when to use the disk, how long to wait for it and when to make room.
The directory may be shared: each process adds up what it writes, and looks through the directory
when that may have reached a limit.  Several may therefore exceed it by a sixteenth each.

The disk may fail in any way, also by not answering: no error leaves this module.  Reading, or
writing, then pauses for a while, with one warning.

Concurrency: file work is done in threads, as a disk that hangs must not stop the loop.  The hop
costs 0.1 ms; with it a block of 128 KiB is read in 0.16 ms instead of 0.05 and written in 0.44
instead of 0.31.  All state is touched by the trio thread only, and what is counted across an await
is counted by difference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from natsfs.config import CacheConfig
from natsfs.data.blockfiles import KEEP, BlockFiles, BlockKey, block_cost

__all__ = ["PAUSE", "READ_DEADLINE", "BlockCache", "BlockKey", "CacheUsage"]

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Seconds.  A disk slower than a server on another continent is no help; one that sleeps takes
#: some 10 s to spin up, and meanwhile the server is asked.  Writing delays nobody, so it may take
#: longer, and a look through millions of files on a rotating disk takes minutes.
READ_DEADLINE = 2.0
WRITE_DEADLINE = 30.0
TIDY_DEADLINE = 600.0

#: Seconds that reading or writing pauses after a failure: seldom enough to cost nothing, soon
#: enough to notice that somebody made room.
PAUSE = 60.0

#: How many threads: more do not make one disk faster, and a hanging disk then holds no more.
_THREADS = 4


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """*used* bytes of disk, as far as this process knows, of *limit*; *paused* says what failed."""

    used: int
    limit: int
    paused: str = ""


class BlockCache:
    """The cache that *config* describes.  The directory is created when the first block is kept."""

    def __init__(self, config: CacheConfig) -> None:
        self._config = config
        self._files = BlockFiles(config.directory)
        self._threads = trio.CapacityLimiter(_THREADS)
        self._reading = _Pause("reading from")
        self._writing = _Pause("writing to")
        self._used = 0
        self._since_tidy = 0  # bytes written since the directory was last looked through
        self._tidied = False
        self._tidying = False

    def usage(self) -> CacheUsage:
        """What the cache takes up and whether it works.  Does not touch the disk."""
        return CacheUsage(
            self._used, self._config.max_bytes, self._reading.reason or self._writing.reason
        )

    async def get(self, key: BlockKey) -> bytes | None:
        """The block, or None.  Takes at most `READ_DEADLINE`; may be cancelled."""
        return (await self.get_run([key]))[0]

    async def get_run(self, keys: Sequence[BlockKey]) -> Sequence[bytes | None]:
        """What `get` gives for each of *keys*, for the price of one thread."""
        missing = [None] * len(keys)
        if self._config.max_bytes <= 0 or self._reading.active():
            return missing
        work = partial(self._files.read_run, keys)
        found = await self._guarded(work, READ_DEADLINE, self._reading)
        if found is None:
            return missing
        self._reading.end(self._files.root)
        return found

    async def put(self, key: BlockKey, data: bytes) -> None:
        """Keep *data*, at most `key.block_size` bytes, if there is room and the disk works.

        May be cancelled: the block is then there or not.
        """
        cost = block_cost(len(data))
        if cost > self._config.max_bytes or self._writing.active():
            return
        work = partial(self._files.write, key, data, self._config.min_free)
        stored = await self._guarded(work, WRITE_DEADLINE, self._writing)
        if stored:
            self._writing.end(self._files.root)
            self._used += cost
            self._since_tidy += cost
        if stored is False or (stored and self._is_due()):
            await self.tidy()

    async def tidy(self) -> None:
        """Look through the directory, learn what is used and make room.

        The mount calls it once in the background; `put` does when a limit may have been reached.
        While one call is at work, others return at once.
        """
        if self._tidying:
            return
        self._tidying = True
        try:
            written = self._since_tidy
            work = partial(self._files.evict, self._config.max_bytes, self._config.min_free)
            left = await self._guarded(work, TIDY_DEADLINE, self._writing)
            if left is not None:
                self._since_tidy -= written
                self._used = left + self._since_tidy
                self._tidied = True
        finally:
            self._tidying = False

    async def discard(self, bucket_identity: str, nuid: str) -> None:
        """Remove every block of a version."""
        work = partial(self._files.discard, bucket_identity, nuid)
        await self._guarded(work, WRITE_DEADLINE, self._writing)

    def _is_due(self) -> bool:
        limit = self._config.max_bytes
        return not self._tidied or self._used > limit or self._since_tidy > limit * (1 - KEEP)

    async def _guarded(self, work: Callable[[], T], deadline: float, pause: _Pause) -> T | None:
        """Do *work* in a thread; None, and a pause, if the disk fails or does not answer."""
        try:
            with trio.fail_after(deadline):
                return await trio.to_thread.run_sync(
                    work, abandon_on_cancel=True, limiter=self._threads
                )
        except trio.TooSlowError:
            pause.begin(self._files.root, f"no answer within {deadline:g} s")
        except OSError as error:
            pause.begin(self._files.root, str(error))
        return None


class _Pause:
    """Whether one way of using the disk rests after a failure."""

    def __init__(self, activity: str) -> None:
        self._activity = activity
        self._until = 0.0
        self.reason = ""

    def active(self) -> bool:
        return bool(self.reason) and trio.current_time() < self._until

    def begin(self, root: Path, reason: str) -> None:
        level = logging.DEBUG if self.reason else logging.WARNING
        log.log(level, "%s the cache %s pauses: %s", self._activity, root, reason)
        self.reason = reason
        self._until = trio.current_time() + PAUSE

    def end(self, root: Path) -> None:
        if self.reason:
            log.info("%s the cache %s works again", self._activity, root)
            self.reason = ""
