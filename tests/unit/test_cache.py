"""The block cache: what it keeps, what it throws out, and that a failing disk fails no read."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from natsfs.config import CacheConfig
from natsfs.data import segment
from natsfs.data.cache import FRESH, PAUSE, READ_DEADLINE, BlockCache, Kept
from natsfs.data.segments import Look, SegmentFiles
from natsfs.data.version import Version
from natsfs.store.buffers import Arena

BLOCK = 8192
#: What a version of one block takes up: its header needs a third unit of 4 KiB.
COST = 12288


def version(nuid: str = "nuid", bucket: str = "bucket", count: int = 1) -> Version:
    """A version of *count* blocks."""
    return Version(bucket, nuid, count * BLOCK, BLOCK)


def numbered(index: int) -> Version:
    """A version of one block, of which there are many."""
    return version(f"nuid{index}")


def block(index: int = 0) -> bytes:
    """Bytes that tell which block they are."""
    return index.to_bytes(4, "big") * (BLOCK // 4)


async def put(cache: BlockCache, which: Version, data: bytes, first: int = 0) -> None:
    """Keep the blocks of a version from *first* on."""
    await cache.put([Kept(which, first, memoryview(data))])


async def get(cache: BlockCache, which: Version, index: int = 0) -> bytes | None:
    """A block, None if it is not cached."""
    found = await cache.read(which, range(index, index + 1))
    return bytes(found.data) if found else None


async def get_all(cache: BlockCache, which: Version) -> list[bytes | None]:
    """Every block of a version."""
    found = await cache.read(which, range(which.count))
    size = which.block_size
    return [
        bytes(found.data[index * size : (index + 1) * size])
        if found and index in found.found
        else None
        for index in range(which.count)
    ]


def cache_in(directory: Path, max_bytes: int = 100 * COST, min_free: float = 0.0) -> BlockCache:
    """A cache in *directory*, whatever else is on that disk."""
    return BlockCache(CacheConfig(directory, max_bytes, min_free))


def files(directory: Path) -> list[Path]:
    """Every file below *directory*."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def in_time(main: Callable[[trio.testing.MockClock], Awaitable[None]]) -> None:
    """Run *main* with a clock that can be put forward."""
    clock = trio.testing.MockClock(rate=1.0)
    trio.run(main, clock, clock=clock)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that an operator would see."""
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]


async def test_block_comes_back(tmp_path: Path) -> None:
    """R4: a block is found in its version and in no other, also after a remount."""
    cache = cache_in(tmp_path)
    assert await get(cache, version(count=9)) is None
    await put(cache, version(count=9), block(7), first=1)
    for again in cache, cache_in(tmp_path):
        assert await get(again, version(count=9), 1) == block(7)
        assert await get(again, version(count=9), 2) is None
        assert await get(again, version("other", count=9), 1) is None
        assert await get(again, version(bucket="other", count=9), 1) is None
        assert await get(again, version(count=8), 1) is None
        assert await get(again, Version("bucket", "nuid", 9 * BLOCK, BLOCK * 2), 1) is None
    assert (await get_all(cache, version(count=9)))[:3] == [None, block(7), None]


async def test_short_blocks(tmp_path: Path) -> None:
    """R4: the last block of a version may be of any length."""
    cache = cache_in(tmp_path)
    short, long = Version("b", "short", 1, BLOCK), Version("b", "long", BLOCK + 1, BLOCK)
    await put(cache, short, b"x")
    await put(cache, long, b"y", first=1)
    assert await get(cache, short) == b"x"
    assert await get_all(cache, long) == [None, b"y"]


@pytest.mark.parametrize("fresh", [True, False])
async def test_large_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: bool) -> None:
    """R4: what is written or read together may lie in several files."""
    monkeypatch.setattr(segment, "SEGMENT_BYTES", 4 * BLOCK)
    cache, which = cache_in(tmp_path), version(count=11)
    await put(cache, which, b"".join(map(block, range(2, 9))), first=2)
    assert len(files(tmp_path)) == 3
    expected = [None, None, *map(block, range(2, 9)), None, None]
    assert await get_all(cache if fresh else cache_in(tmp_path), which) == expected


async def test_what_goes_on_is_written_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: pieces of a version that follow each other are one write of a file, to the last odd byte;
    others are not."""
    monkeypatch.setattr(segment, "SEGMENT_BYTES", 4 * BLOCK)
    writes: list[list[int]] = []

    def counted(self: SegmentFiles, *where: Any, **how: Any) -> int | None:
        writes.append([len(piece) for piece in where[2]])
        return plain(self, *where, **how)

    plain = SegmentFiles.write
    monkeypatch.setattr(SegmentFiles, "write", counted)
    cache, which, other = cache_in(tmp_path), Version("b", "n", 10 * BLOCK + 1, BLOCK), version()
    rest = b"".join(map(block, range(6, 10))) + b"x"
    pieces = [
        (which, 0, block(0) + block(1)),
        (which, 2, block(2)),
        (other, 0, block(7)),
        (which, 4, block(4)),
        (which, 6, rest),
    ]
    await cache.put([Kept(one, first, memoryview(data)) for one, first, data in pieces])
    assert writes == [[2 * BLOCK, BLOCK], [BLOCK], [BLOCK], [4 * BLOCK + 1]]
    expected = [*map(block, range(3)), None, block(4), None, *map(block, range(6, 10)), b"x"]
    for again in cache, cache_in(tmp_path):
        assert await get_all(again, which) == expected
        assert await get_all(again, other) == [block(7)]


@pytest.mark.parametrize("buffer", ["arena", "odd"])
@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("direct", [True, False])
async def test_large_writes_and_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool, refused: bool, buffer: str
) -> None:
    """R4: large stretches go past the page cache where the disk and the buffer allow that, to the
    last odd byte, and are the same bytes where they do not."""
    monkeypatch.setattr(segment, "DIRECT_BYTES", 4 * BLOCK)
    calls: list[int] = []

    def counted(file: int, command: int, flags: int = 0) -> int:
        calls.append(command)
        if refused and command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return plain(file, command, flags)

    plain = fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", counted)
    which = Version("bucket", "nuid", 21 * BLOCK + 777, BLOCK)
    body = (b"".join(map(block, range(22))))[: which.size]
    arena = Arena(which.size + 1)
    data = memoryview(arena)[1:] if buffer == "odd" else memoryview(arena)[: which.size]
    data[:] = body
    cache = cache_in(tmp_path)
    await cache.put([Kept(which, 0, data)], direct=direct)
    assert bool(calls) == direct
    found = await cache_in(tmp_path).read(which, range(22))
    assert found is not None
    assert list(found.found) == list(range(22))
    assert bytes(found.data) == body
    assert fcntl.F_SETFL in calls


async def test_what_is_surely_missing_is_known(tmp_path: Path) -> None:
    """R4: whoever has looked into a version knows for a while which blocks it lacks, and asks no
    disk; what this process caches is found at once, what another one does after that while."""
    one, two, which = cache_in(tmp_path), cache_in(tmp_path), version(count=9)
    for cache in one, two:
        assert not cache.lacks(which, range(9))
        assert await get(cache, which) is None
        assert cache.lacks(which, range(9))
    await put(one, which, block(3), first=3)
    assert not one.lacks(which, range(2, 4))
    assert one.lacks(which, range(3))
    assert two.lacks(which, range(9))


def test_what_another_mount_caches_is_found(tmp_path: Path) -> None:
    """R4: mounts of one host share the cache while both of them run."""

    async def main(clock: trio.testing.MockClock) -> None:
        one, two = cache_in(tmp_path), cache_in(tmp_path)
        assert await get(two, version()) is None
        await put(one, version(), block(3))
        clock.jump(FRESH + 0.1)
        assert await get(two, version()) == block(3)

    in_time(main)


def cut(path: Path) -> None:
    """Leave out the last byte."""
    os.truncate(path, path.stat().st_size - 1)


def flip(place: int) -> Callable[[Path], None]:
    """Change one bit."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)

    change.__name__ = f"flip{place}"
    return change


def make_directory(path: Path) -> None:
    """Put a directory there."""
    path.unlink()
    path.mkdir()


def make_fifo(path: Path) -> None:
    """Put something there that would be waited for."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        *(cut, make_directory, make_fifo),
        *map(flip, (0, 20, 50, 61, 65, 500, -1)),
    ],
)
@pytest.mark.expects_log("damaged")
async def test_damaged_block_is_a_miss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    """R4: a damaged block is not there, with one warning, and the next put brings it back."""
    cache = cache_in(tmp_path)
    await put(cache, version(), block())
    (path,) = files(tmp_path)
    damage(path)
    assert await get(cache, version()) is None
    assert len(warnings(caplog)) == 1
    assert "damaged" in warnings(caplog)[0]
    if not path.is_dir():
        await put(cache, version(), block())
        assert await get(cache, version()) == block()


@pytest.mark.parametrize("damage", [cut, *map(flip, (0, 64, 71, 4096, -1))])
@pytest.mark.expects_log("damaged")
async def test_damage_in_a_large_file(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """R4: no damaged block of many is taken for a sound one, whatever else is lost with it."""
    cache, which = cache_in(tmp_path), version(count=9)
    await put(cache, which, b"".join(map(block, range(9))))
    (path,) = files(tmp_path)
    damage(path)
    assert await get_all(cache, which) == [None] * 9
    await put(cache, which, block(4), first=4)
    assert await get_all(cache, which) == [None] * 4 + [block(4)] + [None] * 4


async def test_kill_between_bytes_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: a block whose writing was cut short is not there, and is nobody's damage."""
    cache, which = cache_in(tmp_path), version(count=9)
    await put(cache, which, block(0))
    (path,) = files(tmp_path)
    with path.open("r+b") as stream:
        stream.seek(4096 + 3 * BLOCK)
        stream.write(block(3)[:5000])
    assert await get_all(cache, which) == [block(0), *[None] * 8]


@pytest.mark.expects_log("damaged")
async def test_swapped_blocks_are_misses(tmp_path: Path) -> None:
    """R4: neither a whole file nor a whole block in the place of another one is taken for it."""
    cache = cache_in(tmp_path)
    await put(cache, numbered(0), block(0))
    (path,) = files(tmp_path)
    content = path.read_bytes()
    await put(cache, numbered(1), block(1))
    (other,) = set(files(tmp_path)) - {path}
    other.write_bytes(content)
    assert await get(cache, numbered(1)) is None
    assert await get(cache, numbered(0)) == block(0)
    which = version(count=2)
    await put(cache, which, block(0) + block(1))
    (both,) = set(files(tmp_path)) - {path}
    head, data = both.read_bytes()[:4096], both.read_bytes()[4096:]
    swapped = head[:64] + head[72:80] + head[64:72] + head[80:]
    both.write_bytes(swapped + data[BLOCK:] + data[:BLOCK])
    assert await get_all(cache, which) == [None, None]


async def test_empty_file_is_an_empty_segment(tmp_path: Path) -> None:
    """R4: a file of zero length, as a power cut leaves it, is in nobody's way."""
    cache = cache_in(tmp_path)
    await put(cache, version(), block())
    (path,) = files(tmp_path)
    os.truncate(path, 0)
    await put(cache, version(), block(1))
    assert await get(cache, version()) == block(1)


@pytest.mark.parametrize(
    "nuid", ["", "../../../x", "/etc/passwd", "a/b", "\0", "..", "x" * 1_000_000, "\ud800"]
)
async def test_hostile_nuids_stay_inside(tmp_path: Path, nuid: str) -> None:
    """R4: no nuid or bucket leads out of the cache directory."""
    directory = tmp_path / "deep" / "cache"
    cache = cache_in(directory)
    await put(cache, version(nuid, nuid), block(1))
    assert await get(cache, version(nuid, nuid)) == block(1)
    assert len(files(tmp_path)) == 1
    assert len(files(directory / "blocks-2")) == 1


async def test_identities_do_not_run_together(tmp_path: Path) -> None:
    """R4: bucket and nuid are told apart wherever one ends and the other begins."""
    cache = cache_in(tmp_path)
    await put(cache, version("bc", "a"), block(1))
    assert await get(cache, version("c", "ab")) is None


async def test_directory_is_private(tmp_path: Path) -> None:
    """R4: cached bytes are for the user who mounted, whatever the umask and whoever came first."""
    (tmp_path / "blocks-2").mkdir(mode=0o755)
    old = os.umask(0)
    try:
        await put(cache_in(tmp_path), version(), block())
    finally:
        os.umask(old)
    assert (tmp_path / "blocks-2").stat().st_mode & 0o777 == 0o700
    (path,) = files(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.expects_log("not a directory of this user")
async def test_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """R4: blocks that another user could have written are not read."""
    await put(cache_in(tmp_path), version(), block())
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert await get(cache_in(tmp_path), version()) is None
    assert "not a directory of this user" in warnings(caplog)[0]


async def age(cache: BlockCache, directory: Path, index: int, seconds: int) -> None:
    """Put a block of its own and make it *seconds* old."""
    before = set(files(directory))
    await put(cache, numbered(index), block(index))
    (new,) = set(files(directory)) - before
    then = time.time() - seconds
    os.utime(new, (then, then))


async def test_oldest_blocks_go_first(tmp_path: Path) -> None:
    """R4: the cache keeps to its size, and what was not used for longest goes."""
    cache = cache_in(tmp_path, 16 * COST)
    for index in range(16):
        await age(cache, tmp_path, index, 1000 - index)
    assert await get(cache, numbered(0)) == block(0)  # used again, so it stays
    await put(cache, numbered(16), block(16))
    kept = [index for index in range(17) if await get(cache, numbered(index))]
    assert kept == [0, *range(3, 17)]
    assert cache.usage().used == 15 * COST


async def test_blocks_of_one_age_do_not_all_go(tmp_path: Path) -> None:
    """R4: of blocks that were last used in the same second only as many go as must."""
    cache = cache_in(tmp_path, 16 * COST)
    for index in range(16):
        await age(cache, tmp_path, index, 500)
    await put(cache, numbered(16), block(16))
    assert len(files(tmp_path)) == 15
    assert await get(cache, numbered(16)) == block(16)


async def test_many_blocks_stay_within_the_limit(tmp_path: Path) -> None:
    """R4: the size holds for two processes that write at once, but for a sixteenth each."""
    limit = 32 * COST
    one, two = cache_in(tmp_path, limit), cache_in(tmp_path, limit)
    for index in range(100):
        await put(one, numbered(index), block(index))
        await put(two, version(f"other{index}"), block(index))
        assert sum(COST for _ in files(tmp_path)) <= limit + 2 * (limit // 16 + COST)


async def test_blocks_removed_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: another process may evict the same blocks at the same time."""
    cache = cache_in(tmp_path, 4 * COST)
    for index in range(4):
        await age(cache, tmp_path, index, 1000 - index)
    real = os.unlink

    def race(path: str | Path) -> None:
        real(path)
        real(path)  # the second one finds nothing, as the loser of a race does

    monkeypatch.setattr(os, "unlink", race)
    await put(cache, numbered(9), block(9))
    monkeypatch.undo()
    assert await get(cache, numbered(9)) == block(9)
    assert cache.usage().paused == ""


async def test_full_disk_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: when others fill the disk the cache gives way."""
    cache = cache_in(tmp_path, 100 * COST, min_free=0.5)
    disk = FakeDisk(monkeypatch, free=60)
    await put(cache, numbered(0), block(0))
    disk.free = 50 - 1 / 4096
    await put(cache, numbered(1), block(1))
    assert await get(cache, numbered(0)) is None
    disk.free = 60
    await put(cache, numbered(1), block(1))
    assert await get(cache, numbered(1)) == block(1)


@pytest.mark.expects_log("pauses: .*less than 50% of the disk is free")
def test_hopelessly_full_disk_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """E: a full disk fails no read; the cache warns once, and works again when there is room."""

    async def main(clock: trio.testing.MockClock) -> None:
        cache = cache_in(tmp_path, min_free=0.5)
        disk = FakeDisk(monkeypatch, free=1)
        for _ in range(3):
            await put(cache, version(), block())
            assert await get(cache, version()) is None
            clock.jump(PAUSE + 1)
        assert len(warnings(caplog)) == 1
        assert "50%" in cache.usage().paused
        disk.free = 60
        await put(cache, version(), block())
        assert await get(cache, version()) == block()
        assert cache.usage().paused == ""

    in_time(main)


class FakeDisk:
    """A disk of 100 MiB of which *free* per cent are free."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: float) -> None:
        self.free = free
        monkeypatch.setattr(os, "statvfs", self.statvfs)

    def statvfs(self, _: object) -> os.statvfs_result:
        blocks = 100 * 256
        free = int(blocks * self.free / 100)
        return os.statvfs_result((4096, 4096, blocks, free, free, 0, 0, 0, 0, 255))


@pytest.mark.expects_log("pauses")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_failing_write_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """E: a disk that refuses writes is warned of once, is left alone, and is read all the same."""
    calls = []

    def refuse(*_: object) -> int:
        calls.append(number)
        raise OSError(number, os.strerror(number))

    async def main(clock: trio.testing.MockClock) -> None:
        cache = cache_in(tmp_path)
        await put(cache, numbered(0), block(0))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", refuse)
            for _ in range(5):
                await put(cache, numbered(1), block(1))
            assert len(calls) == 1
            assert await get(cache, numbered(0)) == block(0)
            clock.jump(PAUSE + 1)
            await put(cache, numbered(1), block(1))
            assert len(calls) == 2
        assert len(files(tmp_path)) == 1
        assert len(warnings(caplog)) == 1
        clock.jump(PAUSE + 1)
        await put(cache, numbered(1), block(1))
        assert await get(cache, numbered(1)) == block(1)

    in_time(main)


@pytest.mark.expects_log("pauses: .*File too large")
async def test_half_written_block_leaves_nothing(tmp_path: Path) -> None:
    """R4: a disk that fills up in the middle of a block leaves neither a part nor a temporary."""
    cache = cache_in(tmp_path)
    await put(cache, numbered(0), block(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK // 2, hard))
    try:
        await put(cache, numbered(1), block(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await get(cache, numbered(0)) == block(0)
    assert await get(cache, numbered(1)) is None
    assert len(files(tmp_path)) == 1


@pytest.mark.expects_log("pauses")
async def test_failing_read_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """E: a disk that cannot be read costs the cache, not the read; the bad block goes."""
    cache = cache_in(tmp_path)
    await put(cache, version(), block())

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)
    assert await get(cache, version()) is None
    monkeypatch.undo()
    assert files(tmp_path) == []
    assert len(warnings(caplog)) == 1


@pytest.mark.expects_log("pauses: no answer")
def test_hanging_disk_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """E: a disk that does not answer delays one read for a moment and the following not at all."""
    answer = threading.Event()

    def hang(*_: object) -> Look:
        answer.wait(30)
        return Look()

    async def main(clock: trio.testing.MockClock) -> None:
        cache = cache_in(tmp_path)
        await put(cache, version(), block())
        with monkeypatch.context() as patch:
            patch.setattr(SegmentFiles, "read", hang)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get, cache, version())
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(READ_DEADLINE + 0.1)
            with trio.fail_after(READ_DEADLINE):
                assert await get(cache, version()) is None
        answer.set()
        clock.jump(PAUSE + 1)
        assert await get(cache, version()) == block()
        assert len(warnings(caplog)) == 1

    in_time(main)


@pytest.mark.expects_log("pauses: no answer")
def test_a_disk_that_answers_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E: a disk that has given all its answers does not hang any more, also if more was wanted of
    it than there are threads."""
    answer = threading.Event()

    def hang(*_: object) -> Look:
        answer.wait(30)
        return Look()

    async def main(clock: trio.testing.MockClock) -> None:
        cache = cache_in(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(SegmentFiles, "read", hang)
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(get, cache, version(f"{number}"))
                await trio.testing.wait_all_tasks_blocked(0.01)
                clock.jump(READ_DEADLINE + 0.1)
        assert cache.hangs
        answer.set()
        with trio.fail_after(5):
            while cache.hangs:  # noqa: ASYNC110  (nothing tells)
                await trio.sleep(0.01)

    in_time(main)


async def test_vanished_directory_is_made_again(tmp_path: Path) -> None:
    """E: somebody who empties the cache directory under a mount does no harm."""
    cache = cache_in(tmp_path / "cache")
    await put(cache, version(), block())
    for path in files(tmp_path):
        path.unlink()
        path.parent.rmdir()
    (tmp_path / "cache" / "blocks-2").rmdir()
    assert await get(cache, version()) is None
    await put(cache, version(), block())
    assert await get(cache, version()) == block()


@pytest.mark.expects_log("pauses")
async def test_file_in_place_of_the_directory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """E: a cache directory that cannot be made is one warning for each way, and no cache."""
    (tmp_path / "file").write_bytes(b"")
    cache = cache_in(tmp_path / "file")
    for _ in range(3):
        await put(cache, version(), block())
        assert await get(cache, version()) is None
    assert len(warnings(caplog)) == 2


async def test_discard_removes_a_version(tmp_path: Path) -> None:
    """R3: all blocks of a version leave the cache, those of others stay."""
    cache = cache_in(tmp_path)
    await cache.discard("bucket", "nuid")
    for which in version(count=3), version(count=2), version("other", count=3):
        await put(cache, which, block() * which.count)
    await cache.discard("bucket", "nuid")
    assert await get_all(cache, version(count=3)) == [None] * 3
    assert await get_all(cache, version(count=2)) == [None] * 2
    assert await get_all(cache, version("other", count=3)) == [block()] * 3


async def test_other_formats(tmp_path: Path) -> None:
    """R4: what an earlier natsfs cached is thrown away, what a later one does is left alone, like
    all that is not the cache's."""
    kept = [tmp_path / name for name in ("blocks-3/a", "blocks-x/a", "spool/a", "blocks")]
    gone = tmp_path / "blocks-1" / "00" / "a"
    for path in *kept, gone:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    await cache_in(tmp_path).tidy()
    assert files(tmp_path) == sorted(kept)
    assert not (tmp_path / "blocks-1").exists()


async def test_usage_is_known_after_tidying(tmp_path: Path) -> None:
    """R4: a mount learns what others have left in the directory, and counts what it adds."""
    await put(cache_in(tmp_path), version(), block())
    cache = cache_in(tmp_path)
    assert cache.usage().used == 0
    await cache.tidy()
    assert cache.usage().used == COST
    await put(cache, numbered(1), block())
    assert cache.usage().used == 2 * COST


async def test_cache_of_no_size_keeps_nothing(tmp_path: Path) -> None:
    """R4: a limit of zero switches the cache off and touches no disk."""
    cache = cache_in(tmp_path / "cache", 0)
    await put(cache, version(), block())
    assert await get(cache, version()) is None
    assert not (tmp_path / "cache").exists()


async def test_many_at_once(tmp_path: Path) -> None:
    """R4: any number of readers and writers of the same few blocks see whole blocks."""
    caches = [cache_in(tmp_path, 3 * COST) for _ in range(2)]

    async def work(cache: BlockCache, start: int) -> None:
        for turn in range(20):
            index = (start + turn) % 5
            await put(cache, numbered(index), block(index))
            assert await get(cache, numbered(index)) in (None, block(index))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(work, caches[number % 2], number)
    assert all(cache.usage().paused == "" for cache in caches)
