"""The bytes of versions: the only module that knows where a block comes from.

A version is cut into blocks, one for each chunk where its chunks are uniform (R2).  A block is in
memory, or on its way, or in the cache on disk, or in the bucket, and is looked for in this order.
Whoever needs a block that is on its way waits for it: one block is fetched once, however many
handles read it.  Since a version never changes, nothing here is ever out of date (R1).

Concurrency: blocks are fetched by tasks in the mount's nursery, never by a reader, so that a reader
that is cancelled leaves the others their block.  A fetch that fails, or is cancelled with the
nursery, tells all who wait.  Looking for blocks and starting their fetches happens without an await
and is therefore atomic; what a reader found is held by it, whatever leaves the memory meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

import trio

from natsfs.data.behind import WriteBehind
from natsfs.data.cache import BlockCache, Cached, Kept
from natsfs.data.readahead import LARGEST_WINDOW, Readahead
from natsfs.data.segment import runs
from natsfs.data.stretches import Flight, Held, Memory, Slot, Stretch
from natsfs.data.verify import Verifier
from natsfs.data.version import Version, block_size_of
from natsfs.errors import (
    ChunkMissing,
    ConnectionLost,
    DigestMismatch,
    MissingKnown,
    RequestTimeout,
)
from natsfs.metrics import Metrics
from natsfs.store.base import ObjectStore
from natsfs.store.model import ObjectInfo
from natsfs.store.primitives import Data

log = logging.getLogger(__name__)

#: Bytes asked of the store or the cache at once: a quarter of the largest window, so that the next
#: ones are under way while these are read.  For a MiB, a mount that streams spends 1.8 ms of
#: processor time with this, and 3.5 with pieces of 1 MiB whose blocks are copied, looked for and
#: stored on their own.
FETCH = 4 * 1024 * 1024

#: Streams that one handle may have: the windows of all of them are half of the memory.
STREAMS = 4

#: Bytes of blocks held in memory for a mount: four windows of the largest size.
MEMORY = 64 * 1024 * 1024

#: Seconds for which blocks are not asked for again that somebody has waited for longer than that in
#: vain: for one read(2) the kernel asks up to three times, and the program would wait as many
#: time-outs (A5).
RESPITE = 1.0

#: Seconds for which a mount that ends waits for the disk to take what was read: what it misses is
#: fetched again.  As long as a snapshot of the tree may take (`filesystem.recollection`).
SETTLING = 10.0


class ObjectReader:
    """What all handles of a mount share, for one bucket.

    *bucket_identity* tells the bucket from others, and from its namesakes before it was recreated.
    At most *memory* bytes of blocks are kept in memory.
    """

    def __init__(
        self,
        store: ObjectStore,
        cache: BlockCache,
        bucket_identity: str,
        nursery: trio.Nursery,
        memory: int = MEMORY,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._metrics = metrics or Metrics()
        self._cache = cache
        self._bucket_identity = bucket_identity
        self._nursery = nursery
        self._memory = Memory(memory)
        self._versions: WeakValueDictionary[Version, Held] = WeakValueDictionary()
        self._streams: set[Readahead] = set()
        self._behind = WriteBehind(cache, nursery)
        #: Versions with chunks missing, as far as somebody was told.
        self._incomplete: set[str] = set()

    def move_to(self, bucket_identity: str) -> None:
        """The bucket was re-created: versions that are opened from now on are another one's."""
        self._bucket_identity = bucket_identity

    def open(self, info: ObjectInfo) -> VersionReader:
        """A reader of the version *info*.  Costs nothing until it reads."""
        return VersionReader(self, self._held(info), self._nursery)

    def expect(self, infos: Sequence[ObjectInfo]) -> None:
        """Fetch all of several small versions together, because somebody may read them soon."""
        flights = []
        for info in infos:
            held = self._held(info)
            blocks = held.version.blocks(0, info.size)
            if held.at.keys().isdisjoint(blocks):
                flights.append(Flight(held, blocks, ahead=True))
                held.put(flights[-1])
        if flights:
            self._nursery.start_soon(self._fetch_together, flights)

    def _held(self, info: ObjectInfo) -> Held:
        version = Version(self._bucket_identity, info.nuid, info.size, block_size_of(info))
        held = self._versions.get(version)
        if held is None:
            held = self._versions[version] = Held(info, version)
        held.info = info  # it may have another name by now
        return held

    async def settled(self) -> None:
        """Wait until the cache has what was read, `SETTLING` seconds at most."""
        with trio.move_on_after(SETTLING) as scope:
            await self._behind.settled()
        if scope.cancelled_caught:
            log.info("the disk is slow: not all that was read is in the cache")

    def claim(self, held: Held, blocks: range, *, ahead: bool) -> list[Slot]:
        """What has or will have *blocks*, in order: each slot as its bytes or as a flight to
        `collect`.

        Starts to fetch what nobody is fetching yet.  With *ahead* nobody waits for these fetches.
        """
        slots: list[Slot] = []
        index = blocks.start
        while index < blocks.stop:
            slot = held.at.get(index)
            if slot is None:
                slot = self._depart(held, range(index, blocks.stop), ahead=ahead)
            elif isinstance(slot, Stretch):
                self._memory.use(slot)
            slots.append(slot)
            index = slot.blocks.stop
        return slots

    async def collect(self, slot: Slot, blocks: range) -> list[Stretch]:
        """What *slot* stands for, as far as it is about *blocks*.

        Errors: those of `ObjectStore.read`.
        """
        if isinstance(slot, Stretch):
            return [slot]
        outcome = await slot.landed()
        if isinstance(outcome, Stretch):
            return [outcome]
        if not slot.ahead:
            raise self._told_once(slot.held.info.nuid, outcome)
        # Nobody needed the blocks when that failed; now somebody does.
        first, stop = max(slot.blocks.start, blocks.start), min(slot.blocks.stop, blocks.stop)
        again = self.claim(slot.held, range(first, stop), ahead=False)
        return [stretch for one in again for stretch in await self.collect(one, blocks)]

    def passed(self, stretch: Stretch) -> None:
        """A sequential reader needs *stretch* no more."""
        self._memory.passed(stretch)

    def window_limit(self, stream: Readahead) -> int:
        """How far *stream* may read ahead, so that the windows of all streams fit in memory."""
        self._streams.add(stream)
        return min(LARGEST_WINDOW, self._memory.limit // (2 * len(self._streams)))

    def end_stream(self, stream: Readahead) -> None:
        """*stream* does not read ahead any more."""
        self._streams.discard(stream)

    async def reject(self, held: Held) -> None:
        """Forget every block of a version that is damaged, in memory and on disk (R3)."""
        self._memory.forget(held)
        await self._behind.discard(held.version.bucket_identity, held.version.nuid)

    def _told_once(self, nuid: str, error: Exception) -> Exception:
        """*error*, which is one line of the log however many blocks of a version are missing."""
        if not isinstance(error, ChunkMissing):
            return error
        if nuid in self._incomplete:
            return MissingKnown(str(error))
        self._incomplete.add(nuid)
        return error

    def _depart(self, held: Held, wanted: range, *, ahead: bool) -> Flight:
        """Begin to fetch the first of *wanted* and as many after it as are missing and fit."""
        most = min(len(wanted), max(1, FETCH // held.version.block_size))
        count = 1
        while count < most and wanted[count] not in held.at:
            count += 1
        flight = Flight(held, wanted[:count], ahead=ahead)
        held.put(flight)
        self._nursery.start_soon(self._fetch, flight)
        return flight

    async def _fetch(self, flight: Flight) -> None:
        held = flight.held
        outcome: Stretch | Exception = ConnectionLost("reading ended before the blocks arrived")
        try:
            outcome = Stretch(held, flight.blocks, await self._bring(held, flight.blocks))
            self._memory.use(outcome)
        except Exception as error:  # it belongs to the readers that wait, not to the nursery
            outcome = error
            log.debug("blocks %s of %r: %r", flight.blocks, held.info.name, error)
        finally:
            held.remove(flight)
            flight.land(outcome)

    async def _fetch_together(self, flights: Sequence[Flight]) -> None:
        """Land *flights*, each of a whole version; those that fail will be tried by whoever needs
        them."""
        try:
            cached = await self._cache.read_all([(one.held.version, one.blocks) for one in flights])
            missing = []
            for flight, found in zip(flights, cached, strict=True):
                if found is not None and len(found.found) == len(flight.blocks):
                    self._metrics.cached.inc(len(found.data))
                    self._arrived(flight, found.data)
                else:
                    missing.append(flight)
            await self._fetch_missing(missing)
        except Exception as error:  # it belongs to nobody
            log.debug("reading ahead: %r", error)
        finally:
            for flight in flights:
                flight.held.remove(flight)
                flight.land(ConnectionLost("what was read ahead did not arrive"))

    async def _fetch_missing(self, flights: Sequence[Flight]) -> None:
        infos = [flight.held.info for flight in flights]
        for flight, found in zip(flights, await self._store.read_small(infos), strict=True):
            if found is not None and len(found) == flight.held.version.size:
                self._metrics.fetched.inc(len(found))
                self._behind.put(Kept(flight.held.version, 0, self._arrived(flight, found).data))

    def _arrived(self, flight: Flight, data: Data) -> Stretch:
        stretch = Stretch(flight.held, flight.blocks, data)
        self._memory.use(stretch)
        flight.land(stretch)
        return stretch

    async def _bring(self, held: Held, blocks: range) -> Data:
        """The bytes of *blocks*, from the cache as far as it has them."""
        version = held.version
        cached = None
        if not self._cache.lacks(version, blocks):
            cached = await self._cache.read(version, blocks)
        if cached is None:
            return await self._bring_from_store(held, blocks)
        base = version.start(blocks.start)
        here = sum(version.start(index + 1) - version.start(index) for index in cached.found)
        self._metrics.cached.inc(here)
        for run in _missing(blocks, cached):
            part = await self._bring_from_store(held, run)
            cached.data[version.start(run.start) - base : version.start(run.stop) - base] = part
        return cached.data

    async def _bring_from_store(self, held: Held, blocks: range) -> memoryview:
        info, start, stop = held.info, *map(held.version.start, (blocks.start, blocks.stop))
        if not info.nuid:
            raise ChunkMissing(f"object {info.name!r} has {info.size} bytes and names no version")
        _check_respite(held, blocks)
        begin = trio.current_time()
        try:
            data = memoryview(await self._store.read(info, start, stop))
        except (ConnectionLost, RequestTimeout) as error:
            if trio.current_time() > begin + RESPITE:
                held.refused = blocks, error, trio.current_time()
            raise
        if len(data) != stop - start:
            text = f"{len(data)} bytes instead of {stop - start} at {start}"
            raise ChunkMissing(f"object {info.name!r} version {info.nuid}: {text}")
        self._metrics.fetched.inc(len(data))
        self._behind.put(Kept(held.version, blocks.start, data))
        return data


class VersionReader:
    """One handle's view of one version (R1).  `ObjectReader.open` makes it."""

    def __init__(self, shared: ObjectReader, held: Held, nursery: trio.Nursery) -> None:
        self._shared = shared
        self._held = held
        self._size = held.version.size
        self._streams: list[Readahead] = []  # the one used last first
        self._verifier = Verifier(held.info, nursery)

    async def read(self, offset: int, size: int) -> Data:
        """The *size* bytes at *offset*, fewer only at the end of the version (R6).  They are in a
        buffer that others may read, too.

        Any number of reads may be under way; each may be cancelled.

        Errors: those of `ObjectStore.read`; `DigestMismatch` on the read that completes a reading
        of the whole version, whose blocks then leave the cache (R3).
        """
        stop = min(offset + size, self._size)
        if offset >= stop:
            return b""
        claim = self._verifier.expect(offset, stop)
        try:
            data = await self._bytes(offset, stop)
        except BaseException:
            self._verifier.abandon(claim)
            raise
        try:
            await self._verifier.feed(claim, data)
        except DigestMismatch:
            await self._shared.reject(self._held)
            raise
        return data

    def close(self) -> None:
        """Stop reading ahead.  Closing again does nothing."""
        for stream in self._streams:
            self._shared.end_stream(stream)

    async def _bytes(self, offset: int, stop: int) -> Data:
        shared = self._shared
        blocks = self._held.version.blocks(offset, stop)
        slots = shared.claim(self._held, blocks, ahead=False)
        stream = self._stream_at(offset)
        self._read_ahead(stream, offset, stop)
        parts = []
        for slot in slots:
            for stretch in await shared.collect(slot, blocks):
                parts.append(stretch.cut(offset, stop))
                if stretch.stop <= stop and stream.streaming:
                    shared.passed(stretch)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _stream_at(self, offset: int) -> Readahead:
        """The stream that a read at *offset* belongs to."""
        for stream in self._streams:
            if stream.takes(offset):
                self._streams.remove(stream)
                break
        else:
            stream = Readahead(self._held.version.block_size)
        self._streams.insert(0, stream)
        for forgotten in self._streams[STREAMS:]:
            self._streams.remove(forgotten)
            self._shared.end_stream(forgotten)
        return stream

    def _read_ahead(self, stream: Readahead, offset: int, stop: int) -> None:
        limit = self._shared.window_limit(stream)
        window = stream.next_window(offset, stop - offset, limit)
        if not stream.streaming:
            self._shared.end_stream(stream)
        end = min(window.stop, self._size)
        if window.start < end:
            blocks = self._held.version.blocks(window.start, end)
            self._shared.claim(self._held, blocks, ahead=True)


def _check_respite(held: Held, blocks: range) -> None:
    """Errors: the one that some of *blocks* could not be brought for a moment ago."""
    if held.refused is None:
        return
    refused, error, moment = held.refused
    overlap = max(blocks.start, refused.start) < min(blocks.stop, refused.stop)
    if overlap and trio.current_time() < moment + RESPITE:
        raise error


def _missing(blocks: range, cached: Cached) -> Iterator[range]:
    """Those of *blocks* that are not *cached*, as runs."""
    return runs([index for index in blocks if index not in cached.found])
