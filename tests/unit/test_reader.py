"""The reader: every byte, few fetches, bounded memory, and who learns of which failure."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from natsfs.config import CacheConfig
from natsfs.data.cache import BlockCache, Kept
from natsfs.data.readahead import LARGEST_WINDOW, Readahead
from natsfs.data.reader import STREAMS, ObjectReader, VersionReader
from natsfs.data.stretches import Flight, Stretch
from natsfs.data.version import LARGEST_BLOCK, SMALLEST_BLOCK, block_size_of
from natsfs.errors import ConnectionLost, DigestMismatch, RequestTimeout, StaleVersion
from natsfs.store.memory import MemoryManager, MemoryStore
from natsfs.store.model import BucketConfig, ObjectInfo, ObjectMeta
from natsfs.store.primitives import Data

KIB = 1024
MIB = 1024 * KIB
CHUNK = 64 * KIB


class Observed(MemoryStore):
    """A store whose reads are recorded, and held back, broken or falsified on demand."""

    def __init__(self, manager: MemoryManager, store: MemoryStore) -> None:
        super().__init__(manager, store.stream)
        self.reads: list[tuple[int, int]] = []
        self.asked = trio.Event()
        self.gate = trio.Event()
        self.gate.set()
        self.fail: Callable[[int], Exception | None] = lambda start: None
        self.change: Callable[[int, bytes], bytes] = lambda start, data: data

    async def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        self.reads.append((start, stop))
        self.asked.set()
        await self.gate.wait()
        error = self.fail(start)
        if error is not None:
            raise error
        return self.change(start, await super().read(info, start, stop))

    @property
    def bytes_read(self) -> int:
        """How much was fetched in all."""
        return sum(stop - start for start, stop in self.reads)


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes without a period."""
    return random.Random(seed).randbytes(size)


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    """*data* as a source."""
    yield data


async def observed() -> Observed:
    """An empty bucket."""
    manager = MemoryManager()
    return Observed(manager, await manager.create(BucketConfig("b")))


async def stored(store: MemoryStore, data: bytes, chunk: int = CHUNK) -> ObjectInfo:
    """An object of *data* in chunks of *chunk* bytes."""
    return await store.upload("object", in_pieces(data), ObjectMeta(max_chunk_size=chunk))


@asynccontextmanager
async def reading(
    store: MemoryStore, directory: Path, memory: int = 64 * MIB
) -> AsyncIterator[ObjectReader]:
    """A reader as a mount has it; at the end all that it does in the background is done."""
    cache = BlockCache(CacheConfig(directory, 100 * MIB, 0.0))
    async with trio.open_nursery() as nursery:
        yield ObjectReader(store, cache, "bucket", nursery, memory)


async def read_through(reader: VersionReader, size: int, step: int = 128 * KIB) -> bytes:
    """The whole version as `cat` reads it."""
    return b"".join([await reader.read(start, step) for start in range(0, size, step)])


@pytest.mark.parametrize("chunk", [1000, 50_000, CHUNK, 100_000, 128 * KIB, 5 * MIB])
async def test_any_range(tmp_path: Path, chunk: int) -> None:
    """R5, R6: any range of objects of any chunk size is right, and short only at the end."""
    store, data = await observed(), pattern(700_001)
    info = await stored(store, data, chunk)
    random_places = random.Random(chunk)
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        for _ in range(60):
            start, size = random_places.randrange(710_000), random_places.randrange(300_000)
            assert await reader.read(start, size) == data[start : start + size]
        assert await reader.read(700_001, 10) == b""
        assert await reader.read(10**15, 10) == b""
        assert await reader.read(700_000, 10) == data[-1:]
        reader.close()


async def test_empty_object(tmp_path: Path) -> None:
    """R6: an empty object is empty, and costs nothing."""
    store = await observed()
    info = await stored(store, b"")
    async with reading(store, tmp_path) as shared:
        assert await shared.open(info).read(0, 4096) == b""
    assert store.reads == []


@pytest.mark.parametrize(
    ("chunk", "size"),
    [
        (0, 128 * KIB),
        (-7, 128 * KIB),
        (128 * KIB, 128 * KIB),
        (100_000, 100_000),
        (1000, 66_000),
        (1, SMALLEST_BLOCK),
        (64 * MIB, LARGEST_BLOCK),
    ],
)
def test_block_sizes(chunk: int, size: int) -> None:
    """R2: blocks are whole chunks where these are neither tiny nor huge."""
    assert block_size_of(ObjectInfo("n", "b", "s", max_chunk_size=chunk)) == size


async def test_small_read_costs_one_chunk(tmp_path: Path) -> None:
    """R2: a read of 4 KiB fetches one chunk, at the start and anywhere else."""
    store = await observed()
    info = await stored(store, pattern(3 * MIB), 128 * KIB)
    async with reading(store, tmp_path) as shared:
        await shared.open(info).read(0, 4096)
        await shared.open(info).read(MIB + 5, 4096)
    assert store.reads == [(0, 128 * KIB), (MIB, MIB + 128 * KIB)]


async def test_sequential_reading_fetches_each_byte_once(tmp_path: Path) -> None:
    """R2: reading ahead costs no byte twice, and few requests."""
    store, data = await observed(), pattern(20 * MIB + 17)
    info = await stored(store, data)
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        assert await read_through(reader, info.size) == data
    assert store.bytes_read == info.size
    assert len(store.reads) < 40


async def test_reading_ahead_is_ahead(tmp_path: Path) -> None:
    """R2: a sequential reader finds what it needs next already on its way."""
    store = await observed()
    info = await stored(store, pattern(4 * MIB))
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        await reader.read(0, CHUNK)
        await reader.read(CHUNK, CHUNK)
        while any(isinstance(slot, Flight) for slot in reader._held.at.values()):
            await trio.testing.wait_all_tasks_blocked(0.001)
        store.gate = trio.Event()
        assert len(await reader.read(2 * CHUNK, CHUNK)) == CHUNK
        store.gate.set()


async def test_many_readers_cost_one_fetch(tmp_path: Path) -> None:
    """R2: what several handles want at the same time is fetched once."""
    store, data = await observed(), pattern(MIB)
    info = await stored(store, data)
    store.gate = trio.Event()
    async with reading(store, tmp_path) as shared, trio.open_nursery() as nursery:

        async def check(start: int) -> None:
            assert await shared.open(info).read(start, 1000) == data[start : start + 1000]

        for start in range(10):
            nursery.start_soon(check, start)
            nursery.start_soon(check, CHUNK - 500 + start)
        await store.asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        store.gate.set()
    assert store.bytes_read == 2 * CHUNK


async def test_cancelled_reader_strands_nobody(tmp_path: Path) -> None:
    """R1: when the reader that started a fetch goes away, the others still get their bytes."""
    store, data = await observed(), pattern(CHUNK)
    info = await stored(store, data)
    store.gate = trio.Event()
    got: list[Data] = []

    async with reading(store, tmp_path) as shared, trio.open_nursery() as nursery:

        async def read() -> None:
            got.append(await shared.open(info).read(0, 100))

        with trio.CancelScope() as first:
            async with trio.open_nursery() as inner:
                inner.start_soon(read)
                await store.asked.wait()
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                first.cancel()
        store.gate.set()
    assert got == [data[:100]]
    assert len(store.reads) == 1


async def test_failure_reaches_every_reader_and_is_not_kept(tmp_path: Path) -> None:
    """R1: all who wait for a block learn why it does not come, and the next one tries again."""
    store, data = await observed(), pattern(CHUNK)
    info = await stored(store, data)
    store.gate = trio.Event()
    store.fail = lambda start: RequestTimeout("too late")
    async with reading(store, tmp_path) as shared:

        async def fail() -> None:
            with pytest.raises(RequestTimeout):
                await shared.open(info).read(0, 100)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fail)
            await store.asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            store.gate.set()
        assert len(store.reads) == 1
        store.fail = lambda start: None
        assert await shared.open(info).read(0, 100) == data[:100]


async def small_objects(store: MemoryStore, count: int) -> tuple[list[ObjectInfo], list[bytes]]:
    """Objects of one chunk each, and what is in them."""
    data = [pattern(1000 + number, number) for number in range(count)]
    return [await stored(store, one) for one in data], data


async def test_small_versions_are_expected_together(tmp_path: Path) -> None:
    """R2, R4: small versions that are expected come together, once, and from the disk if they are
    there; whoever reads one meanwhile waits for it."""
    store = await observed()
    infos, data = await small_objects(store, 6)
    store.gate = trio.Event()
    async with reading(store, tmp_path) as shared, trio.open_nursery() as nursery:

        async def read(number: int) -> None:
            assert await shared.open(infos[number]).read(0, 5000) == data[number]

        shared.expect(infos[:3])
        shared.expect(infos[1:5])
        for number in range(6):
            nursery.start_soon(read, number)
        await trio.testing.wait_all_tasks_blocked()
        store.gate.set()
    assert len(store.reads) == 6
    async with reading(store, tmp_path) as shared:
        shared.expect(infos)
        await trio.testing.wait_all_tasks_blocked()
        assert [await shared.open(info).read(0, 5000) for info in infos] == data
    assert len(store.reads) == 6


async def test_an_expected_version_that_fails_is_tried_again(tmp_path: Path) -> None:
    """R2, E: a version that did not come with the others is fetched by who needs it, who learns
    why it cannot be had."""
    store = await observed()
    infos, data = await small_objects(store, 3)
    await store.purge_chunks(infos[1].nuid)
    store.gate = trio.Event()
    async with reading(store, tmp_path) as shared:
        shared.expect(infos)
        store.gate.set()
        assert await shared.open(infos[0]).read(0, 5000) == data[0]
        with pytest.raises(StaleVersion):
            await shared.open(infos[1]).read(0, 5000)
        assert await shared.open(infos[2]).read(0, 5000) == data[2]


async def test_failed_read_ahead_is_nobodys_error(tmp_path: Path) -> None:
    """R2: an error of reading ahead is forgotten; who needs the block asks again."""
    store, data = await observed(), pattern(2 * MIB)
    info = await stored(store, data)
    demanded = iter([False])
    store.fail = lambda start: (
        RequestTimeout("ahead") if start == 2 * CHUNK and not next(demanded, True) else None
    )
    async with reading(store, tmp_path) as shared:
        assert await read_through(shared.open(info), info.size, CHUNK) == data
    assert [start for start, _ in store.reads].count(2 * CHUNK) == 2


async def test_error_while_joined_to_read_ahead_is_retried(tmp_path: Path) -> None:
    """R2: a reader that waits for a read-ahead which fails gets the bytes from its own fetch."""
    store, data = await observed(), pattern(2 * MIB)
    info = await stored(store, data)
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        await reader.read(0, CHUNK)
        await reader.read(CHUNK // 2, CHUNK // 2)
        store.gate = trio.Event()
        failures = [RequestTimeout("ahead")]
        store.fail = lambda start: failures.pop() if failures and start >= CHUNK else None

        async def check() -> None:
            assert await reader.read(CHUNK, 2 * CHUNK) == data[CHUNK : 3 * CHUNK]

        async with trio.open_nursery() as nursery:
            shared.claim(reader._held, range(1, 3), ahead=True)
            nursery.start_soon(check)
            await trio.testing.wait_all_tasks_blocked()
            store.gate.set()
    assert not failures


async def test_end_of_the_mount_strands_nobody(tmp_path: Path) -> None:
    """A5: readers that still wait when the mount ends get an error, not silence."""
    store = await observed()
    info = await stored(store, pattern(CHUNK))
    store.gate = trio.Event()
    cache = BlockCache(CacheConfig(tmp_path, MIB, 0.0))
    async with trio.open_nursery() as readers, trio.open_nursery() as nursery:
        shared = ObjectReader(store, cache, "bucket", nursery)

        async def read() -> None:
            with pytest.raises(ConnectionLost):
                await shared.open(info).read(0, 100)

        readers.start_soon(read)
        await store.asked.wait()
        nursery.cancel_scope.cancel()


async def test_second_mount_reads_from_disk(tmp_path: Path) -> None:
    """R4: what was read once is not fetched again after a remount."""
    store, data = await observed(), pattern(2 * MIB + 5)
    info = await stored(store, data)
    async with reading(store, tmp_path) as shared:
        await read_through(shared.open(info), info.size)
    store.reads.clear()
    async with reading(store, tmp_path) as shared:
        assert await read_through(shared.open(info), info.size) == data
    assert store.reads == []


async def test_everything_read_is_cached_when_settled(tmp_path: Path) -> None:
    """R4: what was read until the mount ends is on disk then, also what waited for more."""
    store, data = await observed(), pattern(9 * MIB)
    info = await stored(store, data)
    async with reading(store, tmp_path) as shared:
        assert await read_through(shared.open(info), info.size) == data
        await shared.settled()
        store.reads.clear()
        cache = BlockCache(CacheConfig(tmp_path, 100 * MIB, 0.0))
        async with trio.open_nursery() as nursery:
            again = ObjectReader(store, cache, "bucket", nursery)
            assert await read_through(again.open(info), info.size) == data
    assert store.reads == []


class Stuck(BlockCache):
    """A cache on a disk that takes nothing."""

    async def put(self, kept: Sequence[Kept], *, direct: bool = True) -> None:
        await trio.sleep_forever()


async def test_a_slow_disk_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: what a disk does not take in time is fetched again, and not waited for."""
    monkeypatch.setattr("natsfs.data.reader.SETTLING", 0.1)
    store, data = await observed(), pattern(CHUNK)
    info = await stored(store, data)
    cache = Stuck(CacheConfig(tmp_path, 100 * MIB, 0.0))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            shared = ObjectReader(store, cache, "bucket", nursery)
            assert await read_through(shared.open(info), info.size) == data
            await shared.settled()
            nursery.cancel_scope.cancel()


async def test_gaps_of_the_cache_are_filled(tmp_path: Path) -> None:
    """R4: of a range of which the cache has a part, the other parts are fetched."""
    store, data = await observed(), pattern(10 * CHUNK)
    info = await stored(store, data)
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        await reader.read(8 * CHUNK, 10)
        await reader.read(3 * CHUNK, 10)
    store.reads.clear()
    async with reading(store, tmp_path) as shared:
        assert await shared.open(info).read(CHUNK, 9 * CHUNK) == data[CHUNK:]
    assert sorted(store.reads) == [
        (CHUNK, 3 * CHUNK),
        (4 * CHUNK, 8 * CHUNK),
        (9 * CHUNK, 10 * CHUNK),
    ]


async def test_purged_version_is_stale(tmp_path: Path) -> None:
    """R1: blocks held already are served when the version is gone, then it is ESTALE."""
    store, data = await observed(), pattern(4 * CHUNK)
    info = await stored(store, data)
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        assert await reader.read(0, 100) == data[:100]
        await stored(store, pattern(4 * CHUNK, seed=2))
        await store.purge_chunks(info.nuid)
        assert await reader.read(50, 100) == data[50:150]
        with pytest.raises(StaleVersion):
            await reader.read(CHUNK - 50, 100)


async def test_memory_is_bounded(tmp_path: Path) -> None:
    """R2: many handles that read large files at once do not hold more than the mount's memory."""
    store, data = await observed(), pattern(8 * MIB)
    info = await stored(store, data)
    infos = [replace(info, nuid=info.nuid)] * 6
    async with reading(store, tmp_path, memory=2 * MIB) as shared:

        async def check(reader: VersionReader, step: int) -> None:
            for start in range(0, info.size, step):
                assert await reader.read(start, step) == data[start : start + step]
                assert shared._memory.size <= 2 * MIB
                stretches = {s for s in reader._held.at.values() if isinstance(s, Stretch)}
                assert sum(s.cost for s in stretches) == shared._memory.size
            reader.close()

        async with trio.open_nursery() as nursery:
            for number, one in enumerate(infos):
                nursery.start_soon(check, shared.open(one), 50_000 + 17_000 * number)
        assert not shared._streams


@pytest.mark.parametrize("again", [False, True])
async def test_a_small_read_keeps_no_large_buffer(tmp_path: Path, again: bool) -> None:
    """R2: what is held is not much more than the blocks, wherever they came from."""
    store = await observed()
    info = await stored(store, pattern(100), CHUNK)
    data: Data = b""
    for _ in range(1 + again):
        async with reading(store, tmp_path) as shared:
            reader = shared.open(info)
            data = await reader.read(0, 100)
    assert isinstance(data, memoryview)
    assert memoryview(data.obj).nbytes <= 200


async def test_streams_share_the_memory(tmp_path: Path) -> None:
    """R2: the more streams are read ahead, the shorter their windows; closed ones do not count."""
    store = await observed()
    info = await stored(store, pattern(MIB))
    async with reading(store, tmp_path) as shared:
        readers = [shared.open(info) for _ in range(10)]
        for reader in readers:
            await read_through(reader, MIB // 2)
        assert 10 * shared.window_limit(Readahead(CHUNK)) <= 32 * MIB
        for reader in readers:
            reader.close()
            reader.close()
        shared._streams.clear()  # the one that was made up above
        assert shared.window_limit(Readahead(CHUNK)) == LARGEST_WINDOW


async def test_several_streams_in_one_file(tmp_path: Path) -> None:
    """R2: a program that reads three parts of a file in turn is read ahead in each of them."""
    store, data = await observed(), pattern(12 * MIB)
    info = await stored(store, data)
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        for offset in range(0, 4 * MIB, CHUNK):
            for part in range(0, 12 * MIB, 4 * MIB):
                place = part + offset
                assert await reader.read(place, CHUNK) == data[place : place + CHUNK]
        reader.close()
        assert not shared._streams
    # Where one part ends, its window reaches into the next, which may have been read and forgotten.
    assert store.bytes_read < 1.5 * info.size
    assert len(store.reads) < 60


async def test_random_reads_end_no_stream(tmp_path: Path) -> None:
    """R2: reads here and there open no windows, and bounded numbers of streams are remembered."""
    store = await observed()
    info = await stored(store, pattern(8 * MIB))
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        for index in random.Random(2).sample(range(0, 128, 3), 40):
            await reader.read(index * CHUNK + 5, 100)
        assert not shared._streams
        assert len(reader._streams) == STREAMS
    assert store.bytes_read == 40 * CHUNK


def flip_at(place: int) -> Callable[[int, bytes], bytes]:
    """A change of the byte at *place* of the object."""

    def change(start: int, data: bytes) -> bytes:
        if not start <= place < start + len(data):
            return data
        wrong = bytearray(data)
        wrong[place - start] ^= 1
        return bytes(wrong)

    return change


@pytest.mark.parametrize("size", [5, CHUNK, 3 * CHUNK + 1, 3 * MIB])
@pytest.mark.parametrize("step", [4096, 100_000, 128 * KIB, 4 * MIB])
async def test_damage_is_found_on_the_last_read(tmp_path: Path, size: int, step: int) -> None:
    """R3: a version that belies its digest fails on the last read, and leaves the cache."""
    store, data = await observed(), pattern(size)
    info = await stored(store, data)
    store.change = flip_at(size // 2)
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        starts = range(0, size, step)
        for start in starts[:-1]:
            await reader.read(start, step)
        with pytest.raises(DigestMismatch):
            await reader.read(starts[-1], step)
        store.change = lambda start, data: data
        assert await read_through(reader, size, step) == data
    async with reading(store, tmp_path) as shared:
        assert await read_through(shared.open(info), size, step) == data


async def test_sound_version_passes_twice(tmp_path: Path) -> None:
    """R3: a sound version is read through any number of times, with repeats and jumps between."""
    store, data = await observed(), pattern(2 * MIB + 3)
    info = await stored(store, data)
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        for _ in range(2):
            for start in range(0, info.size, 100_000):
                assert await reader.read(start, 100_000) == data[start : start + 100_000]
                await reader.read(max(0, start - 70_000), 90_000)
                await reader.read(info.size - start - 1, 1000)


async def test_damage_is_found_in_spite_of_repeats(tmp_path: Path) -> None:
    """R3: repeated, overlapping and stray reads do not end the check."""
    store = await observed()
    info = await stored(store, pattern(10 * CHUNK))
    store.change = flip_at(5)
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        await reader.read(0, 512)
        for start in range(0, 9 * CHUNK, CHUNK):
            await reader.read(start, CHUNK + 100)
            await reader.read(start // 2, 3000)
        await reader.read(info.size - 10, 10)
        with pytest.raises(DigestMismatch):
            await reader.read(9 * CHUNK, CHUNK)


async def test_concurrent_requests_are_checked(tmp_path: Path) -> None:
    """R3: the check does not depend on the order in which simultaneous requests end."""
    store = await observed()
    info = await stored(store, pattern(8 * MIB))
    store.change = flip_at(MIB)
    failed: list[int] = []
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)

        async def read(start: int) -> None:
            try:
                await reader.read(start, 128 * KIB)
            except DigestMismatch:
                failed.append(start)

        for start in range(0, info.size, MIB):
            store.gate = trio.Event()
            async with trio.open_nursery() as nursery:
                for place in range(start, start + MIB, 128 * KIB):
                    # One after the other as the kernel sends them; they end as it happens.
                    nursery.start_soon(read, place)
                    await trio.testing.wait_all_tasks_blocked()
                store.gate.set()
    assert len(failed) == 1


async def test_version_without_digest_is_not_checked(tmp_path: Path) -> None:
    """R3: a meta without a digest promises nothing."""
    store = await observed()
    info = replace(await stored(store, pattern(CHUNK)), digest="")
    store.change = flip_at(9)
    async with reading(store, tmp_path) as shared:
        assert len(await read_through(shared.open(info), CHUNK)) == CHUNK


async def test_failed_read_breaks_the_check_off(tmp_path: Path) -> None:
    """R3: after an error nobody waits for a check that cannot end; reading from 0 checks again."""
    store, data = await observed(), pattern(4 * CHUNK)
    info = await stored(store, data)
    store.fail = lambda start: RequestTimeout("once") if start == CHUNK else None
    async with reading(store, tmp_path) as shared:
        reader = shared.open(info)
        await reader.read(0, CHUNK)
        with pytest.raises(RequestTimeout):
            await reader.read(CHUNK, CHUNK)
        store.fail = lambda start: None
        assert await reader.read(CHUNK, 3 * CHUNK) == data[CHUNK:]
        store.change = flip_at(0)
        await shared.reject(reader._held)
        with pytest.raises(DigestMismatch):
            await read_through(reader, info.size)


async def test_short_answer_is_an_error(tmp_path: Path) -> None:
    """E: a store that answers with fewer bytes than the meta promises is EIO, not a short read."""
    store = await observed()
    info = await stored(store, pattern(CHUNK))
    store.change = lambda start, data: data[:-1]
    async with reading(store, tmp_path) as shared:
        with pytest.raises(Exception, match="65535 bytes instead of 65536"):
            await shared.open(info).read(0, 100)


async def test_small_pieces_are_written_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: what is read here and there waits until it is worth the way to the disk, or the end."""
    store, data = await observed(), pattern(8 * CHUNK)
    info = await stored(store, data)
    written: list[int] = []

    async def put(_: BlockCache, kept: Sequence[Kept], *, direct: bool = True) -> None:
        written.append(len(kept))

    monkeypatch.setattr(BlockCache, "put", put)
    monkeypatch.setattr("natsfs.data.behind.ENOUGH", 3 * CHUNK)
    monkeypatch.setattr("natsfs.data.behind.GATHER", 60.0)
    monkeypatch.setattr("natsfs.data.behind.LONGEST", 60.0)
    async with reading(store, tmp_path) as shared:
        for number, block in enumerate((6, 1, 4, 2)):
            await shared.open(info).read(block * CHUNK, 10)
            await trio.testing.wait_all_tasks_blocked()
            assert written == ([3] if number >= 2 else [])
        await shared.settled()
        assert written == [3, 1]


async def test_slow_disk_delays_no_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: blocks are written behind the reader's back, into the kernel's memory if many wait, and
    dropped if too many do."""
    store, data = await observed(), pattern(4 * MIB)
    info = await stored(store, data)
    disk = trio.Event()
    kept: list[int] = []
    waited_for: list[bool] = []

    async def slow(_: BlockCache, some: list[Kept], *, direct: bool) -> None:
        waited_for.append(direct)
        await disk.wait()
        kept.extend(len(one.data) for one in some)

    monkeypatch.setattr(BlockCache, "put", slow)
    monkeypatch.setattr("natsfs.data.behind.WRITE_BEHIND", MIB)
    monkeypatch.setattr("natsfs.data.behind.ENOUGH", MIB // 4)
    monkeypatch.setattr("natsfs.data.behind.AT_ONCE", MIB // 4)
    monkeypatch.setattr("natsfs.data.behind.TOO_SLOW", 1)
    async with reading(store, tmp_path) as shared:
        assert await read_through(shared.open(info), info.size) == data
        disk.set()
    assert 0 < sum(kept) <= MIB
    assert waited_for[-1]
    assert not all(waited_for)
