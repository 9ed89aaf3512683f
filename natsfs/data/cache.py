"""The block cache: bounded, on local disk, and never in the way of a read.

A block belongs to an immutable version, so there is nothing to invalidate (R4).  `segments` keeps
the blocks; this module knows when to use the disk, how long to wait for it and when to make room.
The directory may be shared: each process adds up what it writes, and looks through the directory
when that may have reached a limit.  Several may therefore exceed it by a sixteenth each.

The disk may fail in any way, also by not answering: no error leaves this module.  Reading, or
writing, then pauses for a while, with one warning.

Concurrency: file work is done in threads, as a disk that hangs must not stop the loop.  The way
there and back takes 0.1 ms, half as long as the server for a chunk, so what is surely not cached is
known without (`lacks`).  All state is touched by the trio thread only, and what is counted across
an await is counted by difference.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from natsfs.config import CacheConfig
from natsfs.data.segment import segments_of
from natsfs.data.segments import KEEP, Look, SegmentFiles
from natsfs.data.version import Version
from natsfs.store.buffers import Shelf
from natsfs.threads import in_thread

__all__ = ["FRESH", "PAUSE", "READ_DEADLINE", "BlockCache", "CacheUsage", "Cached", "Kept"]

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

#: Seconds for which a segment is believed to lack what it lacked: what another mount of this host
#: has cached meanwhile is found after that.
FRESH = 5.0

#: Segments about which something is known: 100 bytes each, 16 GiB of large versions.
_KNOWN = 4096


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """*used* bytes of disk, as far as this process knows, of *limit*; *paused* says what failed."""

    used: int
    limit: int
    paused: str = ""


@dataclass(frozen=True, slots=True)
class Cached:
    """What is cached of some blocks: *data* has room for all, and the bytes of those *found*."""

    data: memoryview
    found: Sequence[int]


@dataclass(frozen=True, slots=True)
class Kept:
    """Blocks to be kept: those of *version* from *first* on, as many as *data* has."""

    version: Version
    first: int
    data: memoryview


class BlockCache:
    """The cache that *config* describes.  The directory is created when the first block is kept."""

    def __init__(self, config: CacheConfig) -> None:
        self._config = config
        self._files = SegmentFiles(config.directory)
        self._shelf = Shelf()
        self._threads = trio.CapacityLimiter(_THREADS)
        self._reading = _Pause("reading from")
        self._writing = _Pause("writing to")
        self._known = _Known()
        self._used = 0
        self._since_tidy = 0  # bytes written since the directory was last looked through
        self._tidied = False
        self._tidying = False
        #: Calls that nobody waits for any more, because the disk does not answer.
        self._hanging: set[object] = set()

    @property
    def hangs(self) -> bool:
        """Whether the disk owes an answer that it should have given."""
        return bool(self._hanging)

    async def probe(self) -> None:
        """See whether the disk `hangs`.  Takes at most `READ_DEADLINE`, and no time if it does."""
        if not self._hanging:
            await self._guarded(self._files.ask, READ_DEADLINE, self._writing)

    def usage(self) -> CacheUsage:
        """What the cache takes up and whether it works.  Does not touch the disk."""
        return CacheUsage(
            self._used, self._config.max_bytes, self._reading.reason or self._writing.reason
        )

    def lacks(self, version: Version, blocks: range) -> bool:
        """Whether `read` would find none of *blocks*, as far as is known."""
        useless = self._config.max_bytes <= 0 or self._reading.active()
        return useless or self._known.lacks(version, blocks)

    async def read(self, version: Version, blocks: range) -> Cached | None:
        """What is cached of *blocks*, None for nothing.  Takes at most `READ_DEADLINE`; may be
        cancelled."""
        if self.lacks(version, blocks):
            return None
        size = version.start(blocks.stop) - version.start(blocks.start)
        data = memoryview(self._shelf.take(size))[:size]
        work = partial(self._files.read, version, blocks, data)
        look = await self._guarded(work, READ_DEADLINE, self._reading)
        if look is None:
            return None
        self._reading.end(self._files.root)
        self._known.learn(version, look)
        return Cached(data, look.found) if look.found else None

    async def read_all(self, wanted: Sequence[tuple[Version, range]]) -> list[Cached | None]:
        """As `read` for some blocks of each of several versions, for the price of one thread."""
        places = [n for n, one in enumerate(wanted) if not self.lacks(*one)]
        found: list[Cached | None] = [None] * len(wanted)
        if places:
            work = partial(self._read_all, [wanted[place] for place in places])
            looks = await self._guarded(work, READ_DEADLINE, self._reading)
            for place, (data, look) in zip(places, looks or (), strict=False):
                self._reading.end(self._files.root)
                self._known.learn(wanted[place][0], look)
                found[place] = Cached(data, look.found) if look.found else None
        return found

    def _read_all(self, wanted: Sequence[tuple[Version, range]]) -> list[tuple[memoryview, Look]]:
        found = []
        for version, blocks in wanted:
            data = memoryview(bytearray(version.start(blocks.stop) - version.start(blocks.start)))
            found.append((data, self._files.read(version, blocks, data)))
        return found

    async def put(self, kept: Sequence[Kept], *, direct: bool = True) -> None:
        """Keep some blocks if there is room and the disk works, for the price of one thread.  If
        *direct*, large ones are on the disk when this returns, and not in the kernel's memory.

        May be cancelled: each block is then there or not.
        """
        kept = [one for one in kept if len(one.data) <= self._config.max_bytes]
        if not kept or self._writing.active():
            return
        runs = _runs(kept)
        work = partial(self._write, runs, direct=direct)
        more = await self._guarded(work, WRITE_DEADLINE, self._writing)
        if more is None:
            return
        if more:
            self._writing.end(self._files.root)
        self._used += sum(more)
        self._since_tidy += sum(more)
        for one in itertools.chain(*runs[: len(more)]):
            self._known.add(one)
        if len(more) < len(runs) or self._is_due():
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

    def _write(self, runs: Sequence[Sequence[Kept]], *, direct: bool) -> list[int]:
        """What each of *runs* takes up; fewer if the disk has too little free space."""
        more: list[int] = []
        for run in runs:
            where = run[0].version, run[0].first, [one.data for one in run]
            cost = self._files.write(*where, self._config.min_free, direct=direct)
            if cost is None:
                break
            more.append(cost)
        return more

    def _is_due(self) -> bool:
        limit = self._config.max_bytes
        return not self._tidied or self._used > limit or self._since_tidy > limit * (1 - KEEP)

    async def _guarded(self, work: Callable[[], T], deadline: float, pause: _Pause) -> T | None:
        """Do *work* in a thread; None, and a pause, if the disk fails or does not answer."""
        call, begun, answered = object(), False, False

        def answering() -> T:
            nonlocal begun, answered
            begun = True
            try:
                return work()
            finally:
                answered = True
                self._hanging.discard(call)

        try:
            with trio.fail_after(deadline):
                return await in_thread(answering, abandon=True, limiter=self._threads)
        except trio.TooSlowError:
            if begun:  # and did not wait for a thread all the time
                self._hanging.add(call)
            if answered:  # just now
                self._hanging.discard(call)
            pause.begin(self._files.root, f"no answer within {deadline:g} s")
        except OSError as error:
            pause.begin(self._files.root, str(error))
        except MemoryError as error:
            pause.begin(self._files.root, repr(error))
        return None


class _Known:
    """Which blocks segments had when they were last looked at.  What they have is looked up, since
    it may have been evicted; what they lack is believed for a while."""

    def __init__(self) -> None:
        self._segments: OrderedDict[tuple[Version, int], tuple[int, float]] = OrderedDict()

    def lacks(self, version: Version, blocks: range) -> bool:
        oldest = trio.current_time() - FRESH
        for segment, part in segments_of(version, blocks):
            there, since = self._segments.get((version, segment.number), (0, -math.inf))
            if since < oldest or there & _mask(part, segment.blocks.start):
                return False
        return True

    def learn(self, version: Version, look: Look) -> None:
        now = trio.current_time()
        for number, there in look.there.items():
            self._segments[version, number] = there, now
            self._segments.move_to_end((version, number))
        while len(self._segments) > _KNOWN:
            self._segments.popitem(last=False)

    def add(self, kept: Kept) -> None:
        version, start = kept.version, kept.version.start(kept.first)
        blocks = version.blocks(start, start + len(kept.data))
        for segment, part in segments_of(version, blocks):
            known = self._segments.get((version, segment.number))
            if known is not None:
                there, since = known
                there |= _mask(part, segment.blocks.start)
                self._segments[version, segment.number] = there, since


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


def _runs(kept: Sequence[Kept]) -> list[list[Kept]]:
    """*kept*, those together that go on where the last one ends: what streams is written in few
    large pieces."""
    runs: list[list[Kept]] = []
    end: tuple[Version, int] | None = None
    for one in kept:
        start = one.version.start(one.first)
        if end != (one.version, start):
            runs.append([])
        runs[-1].append(one)
        end = one.version, start + len(one.data)
    return runs


def _mask(blocks: range, first: int) -> int:
    """A bit for each of *blocks*, in a segment whose first block is *first*."""
    return ((1 << len(blocks)) - 1) << (blocks.start - first)
