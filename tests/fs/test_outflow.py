"""Files whose bytes leave while they are written: what they turn into, and what they wait for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from natsfs.config import ConflictPolicy
from natsfs.data.outflow import BACKLOG, GAP, Outflow
from natsfs.data.small import SMALL_BYTES, Small
from natsfs.data.spool import Spool
from natsfs.errors import ConflictError, NatsfsError, NoSpaceError, RequestTimeout
from natsfs.handles import FileHandle
from natsfs.store.model import BucketConfig
from tests.fs.world import World, mounted

CREATE = os.O_RDWR | os.O_CREAT | os.O_TRUNC

STEP = 128 * 1024

#: More than may wait in memory.
LARGE = BACKLOG + 5 * 1024 * 1024 + 77


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes without a period."""
    return random.Random(seed).randbytes(size)


async def write(world: World, handle: FileHandle, data: bytes, start: int = 0) -> None:
    """What a program does that writes one piece after the other."""
    for at in range(0, len(data), STEP):
        await world.fs.files.write(handle, start + at, data[at : at + STEP])


def chunks(world: World) -> int:
    """How many chunks the bucket has, of whatever version."""
    return world.store.stream.count() - len(world.store.stream.metas())


def held(world: World) -> int:
    """Bytes in memory."""
    return world.fs.mounted.outflows.memory.held


def fail_uploads(world: World, error: NatsfsError) -> None:
    world.manager.fail = lambda operation, name: error if operation == "upload" else None


def fail_nothing(world: World) -> None:
    world.manager.fail = lambda operation, name: None


# -- from kind to kind ----------------------------------------------------------------------------


async def test_a_small_file_stays_in_memory(world: World) -> None:
    """W3, W4: whatever is done to a small file is done in memory, and nothing is sent of it before
    its close; then memory is free."""
    async with world.opened("f", CREATE) as handle:
        await world.fs.files.write(handle, 10, b"first")
        await world.fs.files.write(handle, 0, b"0123456789")
        await world.truncate("f", 12)
        await world.truncate("f", 14)
        assert await world.read_from(handle) == b"0123456789fi\0\0"
        await world.fs.files.write(handle, SMALL_BYTES - 3, b"end")
        assert isinstance(handle.file.content, Small)
        assert (chunks(world), held(world)) == (0, SMALL_BYTES)
    assert await world.foreign.get("f") == b"0123456789fi".ljust(SMALL_BYTES - 3, b"\0") + b"end"
    assert held(world) == 0


async def test_a_large_file_leaves(world: World) -> None:
    """W4, W2: the bytes of a large file are in the bucket before its close, and nobody sees it."""
    data = pattern(LARGE)
    async with world.opened("f", CREATE) as handle:
        await write(world, handle, data)
        assert isinstance(handle.file.content, Outflow)
        assert held(world) <= BACKLOG + STEP
        assert chunks(world) * STEP >= LARGE - held(world) - STEP
        assert await world.foreign.names() == []
        assert world.stat("f").size == LARGE
        assert await world.read_from(handle) == data
    assert await world.foreign.get("f") == data
    assert held(world) == 0


@pytest.mark.parametrize("step", [1000, 70_000, STEP + 1, 1024 * 1024])
async def test_writes_of_any_size(world: World, step: int) -> None:
    """W4: however a program cuts what it writes."""
    data = pattern(3_000_000)
    async with world.opened("f", CREATE) as handle:
        for at in range(0, len(data), step):
            await world.fs.files.write(handle, at, data[at : at + step])
        assert isinstance(handle.file.content, Outflow)
    info = await world.foreign.store.get_info("f")
    assert (info.chunks, info.max_chunk_size) == (23, STEP)
    assert await world.foreign.get("f") == data


Act = Callable[[World, FileHandle, bytearray], object]


async def seek_back(world: World, handle: FileHandle, expected: bytearray) -> None:
    await world.fs.files.write(handle, 5, b"header")
    expected[5:11] = b"header"


async def cut(world: World, handle: FileHandle, expected: bytearray) -> None:
    await world.fs.files.truncate(handle.file.leaf, 1_234_567, handle)
    del expected[1_234_567:]


async def cut_off_the_last(world: World, handle: FileHandle, expected: bytearray) -> None:
    await world.fs.files.truncate(handle.file.leaf, len(expected) - 1, handle)
    del expected[-1]


async def cut_to_nothing(world: World, handle: FileHandle, expected: bytearray) -> None:
    await world.truncate("f", 0)
    expected.clear()


async def skip_a_little(world: World, handle: FileHandle, expected: bytearray) -> None:
    await world.fs.files.write(handle, len(expected) + GAP, b"x")
    expected += bytes(GAP) + b"x"


async def skip_much(world: World, handle: FileHandle, expected: bytearray) -> None:
    await world.fs.files.write(handle, len(expected) + 3 * GAP, b"x")
    expected += bytes(3 * GAP) + b"x"


async def extend(world: World, handle: FileHandle, expected: bytearray) -> None:
    await world.truncate("f", len(expected) + 100_000)
    expected += bytes(100_000)


async def sync(world: World, handle: FileHandle, expected: bytearray) -> None:
    await world.fs.files.fsync(handle)
    assert await world.foreign.get("f") == expected


async def rename(world: World, handle: FileHandle, expected: bytearray) -> None:
    await world.rename("f", "g")
    await world.rename("g", "f")


@pytest.mark.parametrize("size", [SMALL_BYTES - 1, SMALL_BYTES + 1, 2_000_000, LARGE])
@pytest.mark.parametrize(
    "act",
    [
        *(seek_back, cut, cut_off_the_last, cut_to_nothing),
        *(skip_a_little, skip_much, extend, sync, rename),
    ],
)
async def test_anything_in_between(world: World, act: Act, size: int) -> None:
    """W3: whatever a program does to a file on its way, it may go on as it likes."""
    data, more = bytearray(pattern(size)), pattern(3_000_000, 2)
    async with world.opened("f", CREATE) as handle:
        await write(world, handle, bytes(data))
        if act is not cut or size > 1_234_567:
            await act(world, handle, data)  # type: ignore[misc]
        assert await world.read_from(handle) == data
        await write(world, handle, more, len(data))
        assert await world.read_from(handle) == data + more
    assert await world.foreign.get("f") == data + more


async def test_unlinked(world: World) -> None:
    """W5: of a file that loses its name no more bytes leave, and those that have left go."""
    data, more = pattern(LARGE), pattern(SMALL_BYTES * 3, 2)
    async with world.opened("f", CREATE) as handle:
        await write(world, handle, data)
        await world.unlink("f")
        before = chunks(world)
        await write(world, handle, more, LARGE)
        assert isinstance(handle.file.content, Spool)
        assert chunks(world) == before
        assert await world.read_from(handle) == data + more
    await world.settle()
    assert chunks(world) == 0


async def test_given_up(world: World) -> None:
    """W6: the chunks of a file that is unlinked and closed go without any more writes."""
    async with world.opened("f", CREATE) as handle:
        await write(world, handle, pattern(LARGE))
        await world.unlink("f")
    await world.settle()
    assert (chunks(world), held(world)) == (0, 0)


@pytest.mark.expects_log("the journal cannot be written")
async def test_a_full_disk(world: World) -> None:
    """W3: when a spool is needed and cannot be made, the write fails and nothing is lost."""
    data = pattern(LARGE)
    async with world.opened("f", CREATE) as handle:
        await write(world, handle, data)
        world.break_disk()
        with pytest.raises(NatsfsError):
            await world.fs.files.write(handle, 0, b"x")
        assert await world.read_from(handle) == data
        await world.fs.files.write(handle, LARGE, b"more")
    assert await world.foreign.get("f") == data + b"more"


# -- memory ---------------------------------------------------------------------------------------


async def test_many_files_at_once(world: World) -> None:
    """W4: files that are being written share a bound; when it is reached all go on, with little."""
    memory = world.fs.mounted.outflows.memory
    memory.limit = 1024 * 1024
    contents = [pattern(2_500_000 + number, number) for number in range(12)]
    handles = [world.open(f"{number}", CREATE) for number in range(12)]
    most = 0
    for at in range(0, 2_600_000, STEP):
        for handle, data in zip(handles, contents, strict=True):
            if piece := data[at : at + STEP]:
                await world.fs.files.write(handle, at, piece)
            most = max(most, memory.held)
    assert most <= memory.limit + len(handles) * 3 * STEP
    for number, handle in enumerate(handles):
        await world.close(handle)
        assert await world.foreign.get(f"{number}") == contents[number]
    assert memory.held == 0


async def test_many_small_files_at_once(world: World) -> None:
    """W4: small files that nobody closes do not keep others from being written."""
    world.fs.mounted.outflows.memory.limit = 100_000
    handles = [world.open(f"{number}", CREATE) for number in range(20)]
    for handle in handles:
        for at in range(0, 20_000, 1000):
            await world.fs.files.write(handle, at, b"x" * 1000)
    await world.fs.files.write(handles[-1], 5, b"yy")
    for handle in handles:
        await world.close(handle)
    assert await world.foreign.get("0") == b"x" * 20_000
    assert await world.foreign.get("19") == b"x" * 5 + b"yy" + b"x" * 19_993
    assert held(world) == 0


# -- the server says no ---------------------------------------------------------------------------


async def fill(world: World, handle: FileHandle, data: bytes) -> None:
    """Write *data*, and sync it."""
    await write(world, handle, data)
    await world.fs.files.fsync(handle)


async def test_a_write_tells_of_those_before(world: World) -> None:
    """A5, W7: bytes that cannot be sent stop the writer when memory is full; what was taken stays,
    and leaves when the server is back."""
    data = pattern(3 * BACKLOG)
    async with world.opened("f", CREATE) as handle:
        fail_uploads(world, RequestTimeout("no answer"))
        with pytest.raises(RequestTimeout):
            await fill(world, handle, data)
        taken = handle.file.size
        assert SMALL_BYTES < taken <= BACKLOG + STEP
        assert await world.read_from(handle) == data[:taken]
        fail_nothing(world)
        await write(world, handle, data[taken:], taken)
        assert chunks(world) > 0
    assert await world.foreign.get("f") == data


@pytest.mark.expects_log("'f' is not saved yet")
async def test_a_close_that_fails(world: World) -> None:
    """W1, W7: a close that cannot store the rest says so; the bytes are kept, counted and saved
    later, and those that were stored are not sent again."""
    data = pattern(LARGE)
    handle = world.open("f", CREATE)
    await write(world, handle, data)
    fail_uploads(world, RequestTimeout("no answer"))
    stored = chunks(world)
    with pytest.raises(RequestTimeout):
        await world.close(handle)
    assert world.fs.pending_bytes() == LARGE
    assert await world.read("f") == data
    fail_nothing(world)
    assert await world.fs.finish() == 0
    assert await world.foreign.get("f") == data
    assert chunks(world) == -(-LARGE // STEP) >= stored


async def test_writing_after_a_commit_that_failed(world: World) -> None:
    """W7: after a failed fsync a program may go on as it likes."""
    data = pattern(LARGE)
    async with world.opened("f", CREATE) as handle:
        await write(world, handle, data)
        fail_uploads(world, RequestTimeout("no answer"))
        with pytest.raises(RequestTimeout):
            await world.fs.files.fsync(handle)
        fail_nothing(world)
        await world.fs.files.write(handle, LARGE, b"more")
        assert await world.read_from(handle) == data + b"more"
    assert await world.foreign.get("f") == data + b"more"


async def test_a_full_bucket(tmp_path: Path) -> None:
    """E, W6: a full bucket gives back what only waits for its purge; then writing fails, and goes
    on when there is room again."""
    config = BucketConfig("bucket", max_bytes=LARGE + 3_000_000)
    async with mounted(tmp_path, config, purge_delay=1000.0) as world:
        await world.write("old", pattern(2_000_000))
        await world.write("other", pattern(2_000_000))
        await world.unlink("old")
        data = pattern(LARGE + 2_000_000)
        async with world.opened("f", CREATE) as handle:
            with pytest.raises(NoSpaceError):
                await fill(world, handle, data)
            taken = handle.file.size
            await world.foreign.delete("other")
            await write(world, handle, data[taken:], taken)
        assert await world.foreign.get("f") == data
        await world.settle()


# -- commits --------------------------------------------------------------------------------------


async def test_a_write_waits_for_the_commit(world: World) -> None:
    """W1, W3: what is written while a large file is being committed comes after, and is seen."""
    data = pattern(LARGE)
    async with world.opened("f", CREATE) as handle:
        await write(world, handle, data)
        world.manager.delay = 0.01
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.fs.files.fsync, handle)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(world.fs.files.write, handle, LARGE, b"later")
            await trio.testing.wait_all_tasks_blocked()
            assert world.stat("f").size == LARGE
        world.manager.delay = 0.0
        assert await world.foreign.get("f") == data
        assert world.stat("f").size == LARGE + 5
    assert await world.foreign.get("f") == data + b"later"


@pytest.mark.parametrize("fails", [False, True])
async def test_cut_during_the_commit(world: World, *, fails: bool) -> None:
    """W2, W3: an open that cuts a file while it is being committed begins another version; the one
    on its way is stored whole, or not at all."""
    data = pattern(LARGE)
    async with world.opened("f", CREATE) as handle:
        await write(world, handle, data)
        world.manager.delay = 0.01
        if fails:
            fail_uploads(world, RequestTimeout("no answer"))
        async with trio.open_nursery() as nursery:

            async def commit() -> None:
                if fails:
                    with pytest.raises(RequestTimeout):
                        await world.fs.files.fsync(handle)
                else:
                    await world.fs.files.fsync(handle)

            nursery.start_soon(commit)
            await trio.testing.wait_all_tasks_blocked()
            other = world.open("f", os.O_WRONLY | os.O_TRUNC)
            await world.fs.files.write(other, 0, b"new")
            assert await world.read_from(handle) == b"new"
        world.manager.delay = 0.0
        fail_nothing(world)
        assert await world.foreign.names() == ([] if fails else ["f"])
        if not fails:
            assert await world.foreign.get("f") == data
        await world.close(other)
        assert await world.foreign.get("f") == b"new"


async def test_giving_way(tmp_path: Path) -> None:
    """A4: a large file that gives way stays what it is for those who have it open."""
    async with mounted(tmp_path, conflict=ConflictPolicy.FAIL) as world:
        await world.write("f", b"old")
        data = pattern(LARGE)
        handle = world.open("f", CREATE)
        await write(world, handle, data)
        await world.foreign.put("f", b"theirs")
        with pytest.raises(ConflictError):
            await world.fs.files.fsync(handle)
        assert await world.read_from(handle) == data
        await world.fs.files.write(handle, LARGE, b"more")
        assert await world.read_from(handle) == data + b"more"
        with pytest.raises(ConflictError):
            await world.close(handle)
        await world.settle()
        assert await world.read("f") == b"theirs"


async def test_two_writers(world: World) -> None:
    """A4: the last of two large commits wins, whole."""
    data = pattern(LARGE)
    async with world.opened("f", CREATE) as handle:
        await write(world, handle, data)
        await world.foreign.put("f", b"theirs")
    assert await world.foreign.get("f") == data
