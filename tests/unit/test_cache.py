"""The block cache: what it keeps, what it throws out, and that a failing disk fails no read."""

from __future__ import annotations

import errno
import logging
import os
import resource
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from natsfs.config import CacheConfig
from natsfs.data.blockfiles import ABANDONED_AFTER, BlockFiles
from natsfs.data.cache import PAUSE, READ_DEADLINE, BlockCache, BlockKey

BLOCK = 8192
#: What a block of `BLOCK` bytes takes up: its header needs a third unit of 4 KiB.
COST = 12288


def key(index: int = 0, nuid: str = "nuid", bucket: str = "bucket") -> BlockKey:
    """A block of some version."""
    return BlockKey(bucket, nuid, BLOCK, index)


def block(index: int = 0) -> bytes:
    """Bytes that tell which block they are."""
    return index.to_bytes(4, "big") * (BLOCK // 4)


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
    """R4: a block is found under its key and under no other, also after a remount."""
    cache = cache_in(tmp_path)
    assert await cache.get(key()) is None
    await cache.put(key(), block(7))
    for again in cache, cache_in(tmp_path):
        assert await again.get(key()) == block(7)
        assert await again.get(key(1)) is None
        assert await again.get(key(nuid="other")) is None
        assert await again.get(key(bucket="other")) is None
        assert await again.get(BlockKey("bucket", "nuid", BLOCK * 2, 0)) is None
    assert await cache.get_run([key(3), key(), key(4)]) == [None, block(7), None]


async def test_short_and_empty_blocks(tmp_path: Path) -> None:
    """R4: the last block of a version may be of any length."""
    cache = cache_in(tmp_path)
    await cache.put(key(0), b"")
    await cache.put(key(1), b"x")
    assert await cache.get_run([key(0), key(1)]) == [b"", b"x"]


def cut(path: Path) -> None:
    """Leave out the last byte."""
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    """Leave a file of zero length, as a power cut does."""
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    """Append what does not belong there."""
    with path.open("ab") as stream:
        stream.write(b"more")


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
        *(cut, empty, lengthen, make_directory, make_fifo),
        *map(flip, (0, 20, 50, 61, 500, -1)),
    ],
)
@pytest.mark.expects_log("damaged")
async def test_damaged_block_is_a_miss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    """R4: a damaged block is not there, with one warning, and the next put brings it back."""
    cache = cache_in(tmp_path)
    await cache.put(key(), block())
    (path,) = files(tmp_path)
    damage(path)
    assert await cache.get(key()) is None
    assert len(warnings(caplog)) == 1
    assert "damaged" in warnings(caplog)[0]
    if not path.is_dir():
        await cache.put(key(), block())
        assert await cache.get(key()) == block()


@pytest.mark.expects_log("damaged")
async def test_swapped_blocks_are_misses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """R4: a whole block in the place of another one is not taken for it."""
    cache = cache_in(tmp_path)
    await cache.put(key(0), block(0))
    (path,) = files(tmp_path)
    content = path.read_bytes()
    await cache.put(key(1), block(1))
    (other,) = set(files(tmp_path)) - {path}
    other.write_bytes(content)
    assert await cache.get(key(1)) is None
    assert await cache.get(key(0)) == block(0)


@pytest.mark.parametrize(
    "nuid", ["", "../../../x", "/etc/passwd", "a/b", "\0", "..", "x" * 1_000_000, "\ud800"]
)
async def test_hostile_nuids_stay_inside(tmp_path: Path, nuid: str) -> None:
    """R4: no nuid or bucket leads out of the cache directory."""
    directory = tmp_path / "deep" / "cache"
    cache = cache_in(directory)
    await cache.put(key(nuid=nuid, bucket=nuid), block(1))
    assert await cache.get(key(nuid=nuid, bucket=nuid)) == block(1)
    assert len(files(tmp_path)) == 1
    assert len(files(directory / "blocks-1")) == 1


async def test_identities_do_not_run_together(tmp_path: Path) -> None:
    """R4: bucket and nuid are told apart wherever one ends and the other begins."""
    cache = cache_in(tmp_path)
    await cache.put(key(nuid="bc", bucket="a"), block(1))
    assert await cache.get(key(nuid="c", bucket="ab")) is None


async def test_directory_is_private(tmp_path: Path) -> None:
    """R4: cached bytes are for the user who mounted, whatever the umask and whoever came first."""
    (tmp_path / "blocks-1").mkdir(mode=0o755)
    old = os.umask(0)
    try:
        await cache_in(tmp_path).put(key(), block())
    finally:
        os.umask(old)
    assert (tmp_path / "blocks-1").stat().st_mode & 0o777 == 0o700
    (path,) = files(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.expects_log("not a directory of this user")
async def test_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """R4: blocks that another user could have written are not read."""
    await cache_in(tmp_path).put(key(), block())
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert await cache_in(tmp_path).get(key()) is None
    assert "not a directory of this user" in warnings(caplog)[0]


async def age(cache: BlockCache, directory: Path, index: int, seconds: int) -> None:
    """Put block *index* and make it *seconds* old."""
    before = set(files(directory))
    await cache.put(key(index), block(index))
    (new,) = set(files(directory)) - before
    then = time.time() - seconds
    os.utime(new, (then, then))


async def test_oldest_blocks_go_first(tmp_path: Path) -> None:
    """R4: the cache keeps to its size, and what was not used for longest goes."""
    cache = cache_in(tmp_path, 16 * COST)
    for index in range(16):
        await age(cache, tmp_path, index, 1000 - index)
    assert await cache.get(key(0)) == block(0)  # used again, so it stays
    await cache.put(key(16), block(16))
    kept = [index for index in range(17) if await cache.get(key(index))]
    assert kept == [0, *range(3, 17)]
    assert cache.usage().used == 15 * COST


async def test_blocks_of_one_age_do_not_all_go(tmp_path: Path) -> None:
    """R4: of blocks that were last used in the same second only as many go as must."""
    cache = cache_in(tmp_path, 16 * COST)
    for index in range(16):
        await age(cache, tmp_path, index, 500)
    await cache.put(key(16), block(16))
    assert len(files(tmp_path)) == 15
    assert await cache.get(key(16)) == block(16)


async def test_many_blocks_stay_within_the_limit(tmp_path: Path) -> None:
    """R4: the size holds for two processes that write at once, but for a sixteenth each."""
    limit = 32 * COST
    one, two = cache_in(tmp_path, limit), cache_in(tmp_path, limit)
    for index in range(100):
        await one.put(key(index), block(index))
        await two.put(key(index, "other"), block(index))
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
    await cache.put(key(9), block(9))
    monkeypatch.undo()
    assert await cache.get(key(9)) == block(9)
    assert cache.usage().paused == ""


async def test_full_disk_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: when others fill the disk the cache gives way."""
    cache = cache_in(tmp_path, 100 * COST, min_free=0.5)
    disk = FakeDisk(monkeypatch, free=60)
    await cache.put(key(0), block(0))
    disk.free = 50 - 1 / 4096
    await cache.put(key(1), block(1))
    assert await cache.get(key(0)) is None
    disk.free = 60
    await cache.put(key(1), block(1))
    assert await cache.get(key(1)) == block(1)


@pytest.mark.expects_log("pauses: .*less than 50% of the disk is free")
def test_hopelessly_full_disk_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """E: a full disk fails no read; the cache warns once, and works again when there is room."""

    async def main(clock: trio.testing.MockClock) -> None:
        cache = cache_in(tmp_path, min_free=0.5)
        disk = FakeDisk(monkeypatch, free=1)
        for _ in range(3):
            await cache.put(key(), block())
            assert await cache.get(key()) is None
            clock.jump(PAUSE + 1)
        assert len(warnings(caplog)) == 1
        assert "50%" in cache.usage().paused
        disk.free = 60
        await cache.put(key(), block())
        assert await cache.get(key()) == block()
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
        await cache.put(key(0), block(0))
        with monkeypatch.context() as patch:
            patch.setattr(BlockFiles, "_create", refuse)
            for _ in range(5):
                await cache.put(key(1), block(1))
            assert len(calls) == 1
            assert await cache.get(key(0)) == block(0)
            clock.jump(PAUSE + 1)
            await cache.put(key(1), block(1))
            assert len(calls) == 2
        assert len(files(tmp_path)) == 1
        assert len(warnings(caplog)) == 1
        clock.jump(PAUSE + 1)
        await cache.put(key(1), block(1))
        assert await cache.get(key(1)) == block(1)

    in_time(main)


@pytest.mark.expects_log("pauses: .*File too large")
async def test_half_written_block_leaves_nothing(tmp_path: Path) -> None:
    """R4: a disk that fills up in the middle of a block leaves neither a part nor a temporary."""
    cache = cache_in(tmp_path)
    await cache.put(key(0), block(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK // 2, hard))
    try:
        await cache.put(key(1), block(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await cache.get_run([key(0), key(1)]) == [block(0), None]
    assert len(files(tmp_path)) == 1


@pytest.mark.expects_log("pauses")
async def test_failing_read_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """E: a disk that cannot be read costs the cache, not the read; the bad block goes."""
    cache = cache_in(tmp_path)
    await cache.put(key(), block())

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", broken)
    assert await cache.get_run([key(), key(1)]) == [None, None]
    monkeypatch.undo()
    assert files(tmp_path) == []
    assert len(warnings(caplog)) == 1


@pytest.mark.expects_log("pauses: no answer")
def test_hanging_disk_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """E: a disk that does not answer delays one read for a moment and the following not at all."""
    answer = threading.Event()

    def hang(_: BlockFiles, keys: list[BlockKey]) -> list[bytes | None]:
        answer.wait(30)
        return [None] * len(keys)

    async def main(clock: trio.testing.MockClock) -> None:
        cache = cache_in(tmp_path)
        await cache.put(key(), block())
        with monkeypatch.context() as patch:
            patch.setattr(BlockFiles, "read_run", hang)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cache.get, key())
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(READ_DEADLINE + 0.1)
            with trio.fail_after(READ_DEADLINE):
                assert await cache.get(key()) is None
        answer.set()
        clock.jump(PAUSE + 1)
        assert await cache.get(key()) == block()
        assert len(warnings(caplog)) == 1

    in_time(main)


async def test_vanished_directory_is_made_again(tmp_path: Path) -> None:
    """E: somebody who empties the cache directory under a mount does no harm."""
    cache = cache_in(tmp_path / "cache")
    await cache.put(key(), block())
    for path in files(tmp_path):
        path.unlink()
        path.parent.rmdir()
    (tmp_path / "cache" / "blocks-1").rmdir()
    assert await cache.get(key()) is None
    await cache.put(key(), block())
    assert await cache.get(key()) == block()


@pytest.mark.expects_log("pauses")
async def test_file_in_place_of_the_directory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """E: a cache directory that cannot be made is one warning for each way, and no cache."""
    (tmp_path / "file").write_bytes(b"")
    cache = cache_in(tmp_path / "file")
    for _ in range(3):
        await cache.put(key(), block())
        assert await cache.get(key()) is None
    assert len(warnings(caplog)) == 2


async def test_discard_removes_a_version(tmp_path: Path) -> None:
    """R3: all blocks of a version leave the cache, those of others stay."""
    cache = cache_in(tmp_path)
    await cache.discard("bucket", "nuid")
    for index in range(3):
        await cache.put(key(index), block(index))
        await cache.put(key(index, "other"), block(index))
    await cache.discard("bucket", "nuid")
    assert await cache.get_run([key(index) for index in range(3)]) == [None] * 3
    assert None not in await cache.get_run([key(index, "other") for index in range(3)])


async def test_remains_of_a_kill_are_removed(tmp_path: Path) -> None:
    """R4: temporary files of killed processes go after a while, those of living ones stay, and
    what is not the cache's is left alone."""
    cache = cache_in(tmp_path)
    await cache.put(key(), block())
    (path,) = files(tmp_path)
    old, new, foreign = (path.parent / name for name in ("tmp-1-a", "tmp-2-b", "README"))
    for remains in old, new, foreign:
        remains.write_bytes(b"x")
    then = time.time() - ABANDONED_AFTER - 10
    for remains in old, foreign:
        os.utime(remains, (then, then))
    await cache.tidy()
    assert files(path.parent) == sorted([path, new, foreign])


async def test_usage_is_known_after_tidying(tmp_path: Path) -> None:
    """R4: a mount learns what others have left in the directory, and counts what it adds."""
    await cache_in(tmp_path).put(key(), block())
    cache = cache_in(tmp_path)
    assert cache.usage().used == 0
    await cache.tidy()
    assert cache.usage().used == COST
    await cache.put(key(1), block())
    assert cache.usage().used == 2 * COST


async def test_cache_of_no_size_keeps_nothing(tmp_path: Path) -> None:
    """R4: a limit of zero switches the cache off and touches no disk."""
    cache = cache_in(tmp_path / "cache", 0)
    await cache.put(key(), block())
    assert await cache.get(key()) is None
    assert not (tmp_path / "cache").exists()


async def test_many_at_once(tmp_path: Path) -> None:
    """R4: any number of readers and writers of the same few blocks see whole blocks."""
    caches = [cache_in(tmp_path, 3 * COST) for _ in range(2)]

    async def work(cache: BlockCache, start: int) -> None:
        for turn in range(20):
            index = (start + turn) % 5
            await cache.put(key(index), block(index))
            assert await cache.get(key(index)) in (None, block(index))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(work, caches[number % 2], number)
    assert all(cache.usage().paused == "" for cache in caches)
