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
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from natsfs.data.cache import BlockCache, BlockKey
from natsfs.data.readahead import LARGEST_WINDOW, Readahead
from natsfs.data.verify import Verifier
from natsfs.errors import ChunkMissing, ConnectionLost, DigestMismatch
from natsfs.store.base import ObjectStore
from natsfs.store.model import DEFAULT_CHUNK_SIZE, ObjectInfo

log = logging.getLogger(__name__)

#: Bytes of a block.  Smaller chunks are taken several at a time, since each block costs a file in
#: the cache; of larger ones a block is a part, since a read waits for whole blocks.
SMALLEST_BLOCK = 64 * 1024
LARGEST_BLOCK = 4 * 1024 * 1024

#: Bytes asked of the store at once: 1 MiB came nearer to the server's own speed than 128 KiB
#: (0.57-0.69 against 0.50, design.md), and a reader does not wait for much that it does not need.
FETCH = 1024 * 1024

#: Bytes of blocks held in memory for a mount: eight windows of the largest size.
MEMORY = 64 * 1024 * 1024

#: Bytes of blocks that wait to be written to the cache.  A disk that is slower than the network
#: misses blocks then, and costs no more memory than this.
WRITE_BEHIND = 32 * 1024 * 1024


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
    ) -> None:
        self._store = store
        self._cache = cache
        self._bucket_identity = bucket_identity
        self._nursery = nursery
        self._memory = _Memory(memory)
        self._flights: dict[BlockKey, _Flight] = {}
        self._streams: set[VersionReader] = set()
        self._behind = _Background(nursery)

    def move_to(self, bucket_identity: str) -> None:
        """The bucket was re-created: versions that are opened from now on are another one's."""
        self._bucket_identity = bucket_identity

    def open(self, info: ObjectInfo) -> VersionReader:
        """A reader of the version *info*.  Costs nothing until it reads."""
        version = _Version(info, self._bucket_identity, block_size_of(info))
        return VersionReader(self, version, self._nursery)

    def claim(self, version: _Version, indices: Iterable[int], *, ahead: bool) -> list[Slot]:
        """The blocks *indices* of *version*, each as its bytes or as a flight to `collect`.

        Starts to fetch what nobody is fetching yet.  With *ahead* nobody waits for these fetches.
        """
        slots: list[Slot] = []
        missing = []
        for index in indices:
            key = version.key(index)
            slot = self._memory.get(key) or self._flights.get(key)
            if slot is None:
                slot = self._flights[key] = _Flight(ahead)
                missing.append(index)
            slots.append(slot)
        for run in _runs(missing, max(1, FETCH // version.block_size)):
            self._nursery.start_soon(self._fetch, version, run)
        return slots

    async def collect(self, version: _Version, index: int, slot: Slot) -> bytes:
        """The block that *slot* stands for.  Errors: those of `ObjectStore.read`."""
        while isinstance(slot, _Flight):
            outcome = await slot.landed()
            if isinstance(outcome, bytes):
                return outcome
            if not slot.ahead:
                raise outcome
            # Nobody needed the block when that failed; now somebody does.
            (slot,) = self.claim(version, [index], ahead=False)
        return slot

    def window_limit(self, stream: VersionReader) -> int:
        """How far *stream* may read ahead, so that the windows of all streams fit in memory."""
        self._streams.add(stream)
        return min(LARGEST_WINDOW, self._memory.limit // (2 * len(self._streams)))

    def end_stream(self, stream: VersionReader) -> None:
        """*stream* does not read ahead any more."""
        self._streams.discard(stream)

    async def reject(self, version: _Version) -> None:
        """Forget every block of a version that is damaged, in memory and on disk (R3)."""
        nuid = version.info.nuid
        self._memory.drop(nuid)
        await self._behind.discard(nuid, partial(self._cache.discard, self._bucket_identity, nuid))

    async def _fetch(self, version: _Version, run: range) -> None:
        """Bring the blocks of *run*, all of which have a flight."""
        outcome: Exception = ConnectionLost("reading ended before the block arrived")
        try:
            keys = [version.key(index) for index in run]
            missing = []
            for index, data in zip(run, await self._cache.get_run(keys), strict=True):
                if data is not None and len(data) == version.length(index):
                    self._deliver(version.key(index), data)
                else:
                    missing.append(index)
            for part in _runs(missing, len(run)):
                await self._fetch_from_store(version, part)
        except Exception as error:  # it belongs to the readers that wait, not to the nursery
            outcome = error
            log.debug("blocks %s of %r: %r", run, version.info.name, error)
        finally:
            for index in run:
                flight = self._flights.pop(version.key(index), None)
                if flight is not None:
                    flight.land(outcome)

    async def _fetch_from_store(self, version: _Version, run: range) -> None:
        start, stop = version.start(run[0]), version.start(run[-1]) + version.length(run[-1])
        data = memoryview(await self._store.read(version.info, start, stop))
        if len(data) != stop - start:
            text = f"{len(data)} bytes instead of {stop - start} at {start}"
            raise ChunkMissing(f"object {version.info.name!r} version {version.info.nuid}: {text}")
        for index in run:
            at = version.start(index) - start
            block = bytes(data[at : at + version.length(index)])
            key = version.key(index)
            self._deliver(key, block)
            self._behind.write(key.nuid, partial(self._cache.put, key, block), len(block))

    def _deliver(self, key: BlockKey, data: bytes) -> None:
        self._memory.put(key, data)
        self._flights.pop(key).land(data)


class VersionReader:
    """One handle's view of one version (R1).  `ObjectReader.open` makes it."""

    def __init__(self, shared: ObjectReader, version: _Version, nursery: trio.Nursery) -> None:
        self._shared = shared
        self._version = version
        self._readahead = Readahead(version.block_size)
        self._verifier = Verifier(version.info, nursery)

    async def read(self, offset: int, size: int) -> bytes:
        """The *size* bytes at *offset*, fewer only at the end of the version (R6).

        Any number of reads may be under way; each may be cancelled.

        Errors: those of `ObjectStore.read`; `DigestMismatch` on the read that completes a reading
        of the whole version, whose blocks then leave the cache (R3).
        """
        stop = min(offset + size, self._version.info.size)
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
            await self._shared.reject(self._version)
            raise
        return data

    def close(self) -> None:
        """Stop reading ahead.  Closing again does nothing."""
        self._shared.end_stream(self)

    async def _bytes(self, offset: int, stop: int) -> bytes:
        version = self._version
        indices = version.blocks(offset, stop)
        slots = self._shared.claim(version, indices, ahead=False)
        self._read_ahead(offset, stop)
        parts = []
        for index, slot in zip(indices, slots, strict=True):
            block = await self._shared.collect(version, index, slot)
            at = version.start(index)
            parts.append(block[max(offset - at, 0) : stop - at])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_ahead(self, offset: int, stop: int) -> None:
        limit = self._shared.window_limit(self)
        window = self._readahead.next_window(offset, stop - offset, limit)
        if not self._readahead.streaming:
            self._shared.end_stream(self)
        end = min(window.stop, self._version.info.size)
        if window.start < end:
            blocks = self._version.blocks(window.start, end)
            self._shared.claim(self._version, blocks, ahead=True)


@dataclass(frozen=True, slots=True)
class _Version:
    """A version and how it is cut into blocks."""

    info: ObjectInfo
    bucket_identity: str
    block_size: int

    def key(self, index: int) -> BlockKey:
        return BlockKey(self.bucket_identity, self.info.nuid, self.block_size, index)

    def start(self, index: int) -> int:
        return index * self.block_size

    def length(self, index: int) -> int:
        return min(self.block_size, self.info.size - self.start(index))

    def blocks(self, start: int, stop: int) -> range:
        """The blocks that [*start*, *stop*) touches."""
        return range(start // self.block_size, -(-stop // self.block_size))


class _Flight:
    """A block on its way; *ahead* if nobody needed it when it was started."""

    def __init__(self, ahead: bool) -> None:
        self.ahead = ahead
        self._landed = trio.Event()
        self._outcome: bytes | Exception = b""

    def land(self, outcome: bytes | Exception) -> None:
        self._outcome = outcome
        self._landed.set()

    async def landed(self) -> bytes | Exception:
        await self._landed.wait()
        return self._outcome


Slot = bytes | _Flight


class _Memory:
    """The blocks used last, *limit* bytes of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._size = 0
        self._blocks: OrderedDict[BlockKey, bytes] = OrderedDict()

    def get(self, key: BlockKey) -> bytes | None:
        data = self._blocks.get(key)
        if data is not None:
            self._blocks.move_to_end(key)
        return data

    def put(self, key: BlockKey, data: bytes) -> None:
        self._size += len(data) - len(self._blocks.pop(key, b""))
        self._blocks[key] = data
        while self._size > self.limit:
            self._size -= len(self._blocks.popitem(last=False)[1])

    def drop(self, nuid: str) -> None:
        for key in [key for key in self._blocks if key.nuid == nuid]:
            self._size -= len(self._blocks.pop(key))


@dataclass(frozen=True, slots=True)
class _Job:
    """Work on the cache for version *nuid*, which keeps *size* bytes in memory until it is done."""

    nuid: str
    size: int
    work: Callable[[], Awaitable[None]]


class _Background:
    """Changes of the cache, one after the other in *nursery*, so that no reader waits for the disk.

    There is a task only while there is work.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._jobs: deque[_Job] = deque()
        self._size = 0
        self._busy = False

    def write(self, nuid: str, work: Callable[[], Awaitable[None]], size: int) -> None:
        """Do *work* later, or never if too much is waiting: a cache may miss a block."""
        if self._size + size <= WRITE_BEHIND:
            self._size += size
            self._jobs.append(_Job(nuid, size, work))
            self._wake()

    async def discard(self, nuid: str, work: Callable[[], Awaitable[None]]) -> None:
        """Forget what is to be written of *nuid*, then do *work* and wait for it: after a write
        that has begun, before all others."""
        done = trio.Event()

        async def discard() -> None:
            try:
                await work()
            finally:
                done.set()

        self._size -= sum(job.size for job in self._jobs if job.nuid == nuid)
        self._jobs = deque(job for job in self._jobs if job.nuid != nuid)
        self._jobs.appendleft(_Job(nuid, 0, discard))
        self._wake()
        await done.wait()

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            self._nursery.start_soon(self._work)

    async def _work(self) -> None:
        try:
            while self._jobs:
                job = self._jobs.popleft()
                try:
                    await job.work()
                except Exception:  # the cache promises none; a bug in it must not end the mount
                    log.exception("the block cache failed")
                self._size -= job.size
        finally:
            self._busy = False


def block_size_of(info: ObjectInfo) -> int:
    """How many bytes of the version *info* make a block: whole chunks unless these are huge."""
    chunk = info.max_chunk_size if info.max_chunk_size > 0 else DEFAULT_CHUNK_SIZE
    return min(-(-SMALLEST_BLOCK // chunk) * chunk, LARGEST_BLOCK)


def _runs(indices: Sequence[int], longest: int) -> Iterator[range]:
    """Ascending *indices* as runs without gaps, of at most *longest* each."""
    first = 0
    for place, index in enumerate(indices):
        follows = place + 1 < len(indices) and indices[place + 1] == index + 1
        if not follows or place + 1 - first == longest:
            yield range(indices[first], index + 1)
            first = place + 1
