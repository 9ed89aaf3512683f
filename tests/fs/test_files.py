"""Files: when bytes are sent, who sees which, and what becomes of those that could not be sent."""

from __future__ import annotations

import os
import random

import pytest
import trio
import trio.testing

from natsfs.errors import (
    BadHandle,
    IsADirectory,
    NatsfsError,
    NotFoundError,
    RequestTimeout,
)
from natsfs.filesystem import unsaved
from tests.fs.world import DEADLINE, World

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes without a period."""
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 131072, 700_001])
async def test_write_and_read(world: World, size: int) -> None:
    """W1: what was written is in the bucket when close returns, and is read back."""
    data = pattern(size)
    await world.write("d", data)
    assert await world.foreign.get("d") == data
    assert await world.read("d") == data
    assert world.stat("d").size == size


async def test_nothing_is_visible_before_the_commit(world: World) -> None:
    """W2: other clients see no new file, and the old version of an old one, until it is closed."""
    await world.write("old", b"old")
    new, old = world.open("new", CREATE), world.open("old", CREATE)
    await world.fs.files.write(new, 0, b"x")
    await world.fs.files.write(old, 0, b"y")
    assert await world.foreign.names() == ["old"]
    assert await world.foreign.get("old") == b"old"
    for handle in (new, old):
        await world.close(handle)
    assert await world.foreign.get("old") == b"y"
    assert await world.foreign.get("new") == b"x"


async def test_failed_chunks_leave_the_old_version(world: World) -> None:
    """W2: an upload that dies half-way changes nothing and leaves no chunks."""
    await world.write("f", b"old")
    handle = world.open("f", CREATE)
    await world.fs.files.write(handle, 0, pattern(300_000))
    subjects = len(world.store.stream._subjects)
    with trio.CancelScope() as scope:
        scope.cancel()
        await world.fs.files.flush(handle)
    assert scope.cancelled_caught
    assert await world.foreign.get("f") == b"old"
    assert len(world.store.stream._subjects) == subjects
    await world.close(handle)
    assert await world.foreign.get("f") == pattern(300_000)


async def test_fsync(world: World) -> None:
    """W1: fsync commits, by whichever handle, and the file goes on."""
    async with world.opened("f", CREATE) as writer, world.opened("f") as reader:
        await world.fs.files.write(writer, 0, b"one")
        await world.fs.files.fsync(reader)
        assert await world.foreign.get("f") == b"one"
        await world.fs.files.write(writer, 3, b" two")
        assert await world.foreign.get("f") == b"one"
    assert await world.foreign.get("f") == b"one two"


async def test_clean_files_are_not_sent(world: World) -> None:
    """W1: a file that was opened for writing and not written is not a new version."""
    await world.write("f", b"data")
    before = world.store.stream.last_sequence
    async with world.opened("f", os.O_RDWR) as handle:
        await world.fs.files.fsync(handle)
    assert world.store.stream.last_sequence == before


@pytest.mark.expects_log("'f' is not saved yet")
async def test_failed_flush(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """W1, W7: flush reports that nothing was acknowledged; the bytes are kept, counted, readable,
    and saved as soon as that works again."""
    monkeypatch.setattr(unsaved, "RETRY", 0.01)
    world.manager.fail = lambda operation, name: (
        RequestTimeout("no answer") if operation == "upload" else None
    )
    with pytest.raises(RequestTimeout):
        await world.write("f", b"precious")
    await world.settle()
    assert world.fs.pending_bytes() == 8
    assert await world.read("f") == b"precious"
    assert await world.foreign.names() == []
    world.manager.fail = lambda operation, name: None
    with trio.fail_after(DEADLINE):
        while world.fs.pending_bytes():
            await trio.lowlevel.checkpoint()
    assert await world.foreign.get("f") == b"precious"


async def test_unlinked_while_the_server_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W5, W7: a file that was not saved and has no name any more goes, whoever answers."""
    monkeypatch.setattr(unsaved, "RETRY", 0.01)
    world.manager.fail = lambda operation, name: (
        RequestTimeout("no answer") if operation in ("upload", "status") else None
    )
    with pytest.raises(RequestTimeout):
        await world.write("f", b"useless")
    await world.unlink("f")
    with trio.fail_after(DEADLINE):
        while world.fs.pending_bytes() or world.fs.unsaved._all_waiting():
            await trio.lowlevel.checkpoint()
    world.manager.fail = lambda operation, name: None
    await world.settle()
    assert await world.foreign.names() == []


@pytest.mark.expects_log("'f' is not saved yet")
async def test_unsaved_at_the_end(world: World) -> None:
    """W7: what could not be saved at close is saved when the mount ends."""
    world.manager.fail = lambda operation, name: (
        RequestTimeout("no answer") if operation == "upload" else None
    )
    with pytest.raises(RequestTimeout):
        await world.write("f", b"precious")
    assert await world.fs.finish() == 1
    world.manager.fail = lambda operation, name: None
    assert await world.fs.finish() == 0
    assert await world.foreign.get("f") == b"precious"


async def test_unsaved_and_unlinked(world: World) -> None:
    """W7: a file that was removed after its commit failed is nothing to save."""
    world.manager.fail = lambda operation, name: (
        RequestTimeout("no answer") if operation == "upload" else None
    )
    with pytest.raises(RequestTimeout):
        await world.write("f", b"unwanted")
    await world.unlink("f")
    assert world.fs.pending_bytes() == 0
    assert await world.fs.finish() == 0


async def test_several_handles(world: World) -> None:
    """W3: programs on one mount see each other's writes at once, whatever their handles."""
    await world.write("f", b"0123456789")
    async with (
        world.opened("f", os.O_RDWR) as one,
        world.opened("f", os.O_WRONLY) as two,
        world.opened("f") as three,
    ):
        await world.fs.files.write(two, 2, b"ab")
        assert await world.read_from(three) == b"01ab456789"
        await world.fs.files.write(one, 12, b"z")
        assert await world.read_from(three) == b"01ab456789\0\0z"
        assert world.stat("f").size == 13
        await world.truncate("f", 4)
        assert await world.read_from(one) == b"01ab"
    assert await world.foreign.get("f") == b"01ab"


async def test_append(world: World) -> None:
    """W3: a handle that appends writes at the end, wherever the kernel takes that to be."""
    await world.write("f", b"one")
    async with (
        world.opened("f", os.O_WRONLY | os.O_APPEND) as appends,
        world.opened("f", os.O_WRONLY) as writes,
    ):
        appends.file.leaf.told_size = 0
        await world.fs.files.write(appends, 0, b" two")
        await world.fs.files.write(writes, 7, b" three")
        appends.file.leaf.told_size = 1
        await world.fs.files.write(appends, 1, b" four")
    assert await world.foreign.get("f") == b"one two three four"


async def test_append_where_the_kernel_knows_the_end(world: World) -> None:
    """W3: the kernel's offset holds for a handle that appends, because fcntl may have changed that;
    unless the kernel's size of the file is not the true one."""
    await world.write("f", b"12345")
    async with world.opened("f", os.O_WRONLY | os.O_APPEND) as appends:
        assert world.stat("f").size == 5
        await world.fs.files.write(appends, 0, b"X")
        await world.fs.files.write(appends, 5, b"6")
        await world.fs.files.write(appends, 1, b"Y")
    assert await world.foreign.get("f") == b"XY3456"
    await world.foreign.put("f", b"a longer version")
    await world.settle()
    async with world.opened("f", os.O_WRONLY | os.O_APPEND) as appends:
        await world.fs.files.write(appends, 6, b", and more")
    assert await world.foreign.get("f") == b"a longer version, and more"


async def test_mapping_of_an_appending_handle(world: World) -> None:
    """W3: pages of a shared mapping are written where they are, also by a handle that appends."""
    await world.write("f", b"one")
    async with world.opened("f", os.O_RDWR | os.O_APPEND) as handle:
        handle.file.leaf.told_size = 3
        await world.fs.files.write(handle, 0, b"ONE")
    assert await world.foreign.get("f") == b"ONE"


async def test_holes(world: World) -> None:
    """W3: what was skipped reads as zeros."""
    async with world.opened("f", CREATE) as handle:
        await world.fs.files.write(handle, 1_000_000, b"end")
    assert await world.foreign.get("f") == bytes(1_000_000) + b"end"


@pytest.mark.parametrize("size", [0, 5, 10, 20])
async def test_truncate_by_path(world: World, size: int) -> None:
    """W3: a truncation by path is committed when it returns; growth brings zeros."""
    await world.write("f", b"0123456789")
    await world.truncate("f", size)
    wanted = b"0123456789"[:size].ljust(size, b"\0")
    assert await world.foreign.get("f") == wanted
    assert await world.read("f") == wanted
    assert world.stat("f").size == size


async def test_unwritten_bytes_of_a_large_file(world: World) -> None:
    """W3: a write into the middle keeps the rest, which may be more than one piece."""
    data = pattern(3_000_000)
    await world.write("f", data)
    async with world.opened("f", os.O_RDWR) as handle:
        await world.fs.files.write(handle, 1_500_000, b"new")
    assert await world.foreign.get("f") == data[:1_500_000] + b"new" + data[1_500_003:]


async def test_modes_of_handles(world: World) -> None:
    """W3: a handle does what its flags say, and nothing else."""
    await world.write("f", b"x")
    async with world.opened("f") as reader, world.opened("f", os.O_WRONLY) as writer:
        with pytest.raises(BadHandle):
            await world.fs.files.write(reader, 0, b"y")
        with pytest.raises(BadHandle):
            await world.fs.files.read(writer, 0, 1)
    await world.mkdir("d")
    with pytest.raises(IsADirectory):
        world.fs.files.open(world.directory("d"), os.O_RDONLY)


async def test_unlink_of_an_open_file(world: World) -> None:
    """W5: who has a removed file open reads and writes it; it is in nobody's way."""
    await world.write("f", b"old")
    async with world.opened("f", os.O_RDWR) as handle:
        await world.unlink("f")
        assert not world.exists("f")
        await world.write("f", b"another")
        assert await world.read_from(handle) == b"old"
        await world.fs.files.write(handle, 3, b"er")
        await world.fs.files.fsync(handle)
        assert await world.read_from(handle) == b"older"
        assert await world.read("f") == b"another"
        assert world.fs.entries.links(handle.file.leaf) == 0
    assert await world.foreign.get("f") == b"another"


async def test_rename_over_an_open_file(world: World) -> None:
    """W5: a file that lost its name to a rename stays with those who have it open."""
    await world.write("f", b"old")
    await world.write("g", b"new")
    async with world.opened("f", os.O_RDWR) as handle:
        await world.rename("g", "f")
        assert await world.read_from(handle) == b"old"
        await world.fs.files.write(handle, 0, b"OLD")
        await world.fs.files.fsync(handle)
        assert await world.read("f") == b"new"
    assert await world.foreign.get("f") == b"new"
    assert await world.foreign.names() == ["f"]


async def test_rename_of_an_open_file(world: World) -> None:
    """W5: a file that is renamed while it is written is committed under its new name."""
    async with world.opened("tmp", CREATE) as handle:
        await world.fs.files.write(handle, 0, b"data")
        await world.rename("tmp", "final")
        assert await world.foreign.names() == []
    assert await world.foreign.names() == ["final"]
    assert await world.foreign.get("final") == b"data"


async def test_reader_during_a_commit(world: World) -> None:
    """W3: a handle that reads while another one commits gets the bytes that programs see."""
    data = pattern(1_000_000)
    await world.write("f", data)
    async with world.opened("f", os.O_RDWR) as writer, world.opened("f") as reader:
        await world.fs.files.write(writer, 0, b"new")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.fs.files.fsync, writer)
            for _ in range(5):
                assert await world.read_from(reader) == b"new" + data[3:]


async def test_write_during_a_commit(world: World) -> None:
    """W1: what is written while a commit is under way is part of the next one."""
    world.manager.delay = 0.01
    async with world.opened("f", CREATE) as handle:
        await world.fs.files.write(handle, 0, b"one")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.fs.files.fsync, handle)
            await trio.testing.wait_all_tasks_blocked()
            await world.fs.files.write(handle, 0, b"two")
        world.manager.delay = 0.0
        assert handle.file.dirty
    assert await world.foreign.get("f") == b"two"


async def test_create_in_a_directory_that_is_gone(world: World) -> None:
    """N1: a program in a directory that another client removed cannot create files in it, and
    above all not somewhere else."""
    await world.foreign.put("d/", b"")
    await world.settle()
    directory = world.directory("d")
    await world.foreign.delete("d/")
    await world.settle()
    with pytest.raises(NotFoundError):
        world.fs.naming.check_name(directory, b"f")
    with pytest.raises(NotFoundError):
        await world.fs.changes.mkdir(directory, b"f", 0o755, 0, 0)
    with pytest.raises(NotFoundError):
        await world.fs.changes.mknod(directory, b"f", 0o10644, 0, 0, 0)
    with pytest.raises(NotFoundError):
        await world.fs.changes.symlink(directory, b"f", b"t", 0, 0)
    assert await world.foreign.names() == []


@pytest.mark.expects_log("the journal cannot be written")
async def test_spool_cannot_be_made(world: World) -> None:
    """W3: a write that the local disk has no place for fails, and leaves the file as it was."""
    await world.write("f", b"data")
    world.break_disk()
    async with world.opened("f", os.O_RDWR) as handle:
        with pytest.raises(NatsfsError):
            await world.fs.files.write(handle, 1, b"x")
        assert await world.read_from(handle) == b"data"
        world.mend_disk()
        await world.fs.files.write(handle, 1, b"x")
    assert await world.foreign.get("f") == b"dxta"
