"""Versions: which one a handle reads, and which one wins when others write, too."""

from __future__ import annotations

import os
import random

import pytest

from natsfs.errors import (
    StaleVersion,
)
from natsfs.store.model import ObjectMeta
from natsfs.store.wire import chunk_subject
from tests.fs.world import World, in_pieces

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes without a period."""
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
@pytest.mark.parametrize("committed", [False, True])
async def test_foreign_put_between_open_and_close(
    world: World, flags: int, committed: bool
) -> None:
    """A4: of two writers of one name the last commit wins, whole, and the other's chunks go."""
    await world.write("f", b"one")
    async with world.opened("f", flags) as handle:
        if committed:
            await world.fs.files.write(handle, 0, b"uno")
            await world.fs.files.fsync(handle)
        await world.foreign.put("f", b"foreign and longer")
        await world.settle()
        await world.fs.files.write(handle, 0, b"two")
    assert await world.foreign.get("f") == b"two"
    assert await world.read("f") == b"two"
    assert len(await world.foreign.names()) == 1


async def test_foreign_put_between_two_writers(world: World) -> None:
    """A4: also when the other version was opened and written here meanwhile."""
    await world.write("f", b"one")
    first = world.open("f", os.O_RDWR)
    await world.foreign.put("f", b"foreign")
    await world.settle()
    second = world.open("f", os.O_RDWR)
    assert second.file is not first.file
    await world.fs.files.write(first, 0, b"first")
    await world.fs.files.write(second, 0, b"SECOND!")
    await world.close(first)
    assert await world.read("f") == b"first"
    await world.close(second)
    assert await world.read("f") == b"SECOND!"
    assert await world.foreign.get("f") == b"SECOND!"


async def test_foreign_put_that_nobody_heard_of(world: World) -> None:
    """A4: the last commit wins also over a version that the watch has not delivered yet."""
    await world.write("f", b"one")
    async with world.opened("f", CREATE) as handle:
        await world.fs.files.write(handle, 0, b"two")
        await world.foreign.put("f", b"foreign", ObjectMeta(description="theirs"))
    assert await world.foreign.get("f") == b"two"
    assert (await world.foreign.store.get_info("f")).description == "theirs"


@pytest.mark.parametrize("heard", [False, True])
async def test_foreign_delete_of_a_file_being_written(world: World, heard: bool) -> None:
    """W1, A4: a commit after a foreign delete brings the file back; its bytes are not lost."""
    await world.write("f", b"one")
    async with world.opened("f", os.O_RDWR) as handle:
        await world.fs.files.write(handle, 0, b"two")
        await world.foreign.delete("f")
        if heard:
            await world.settle()
        assert world.exists("f")
    assert await world.foreign.get("f") == b"two"


async def test_foreign_purge_of_a_file_being_written(world: World) -> None:
    """W1, A4: the same when its meta was purged and the watch had to start again."""
    async with world.opened("f", CREATE) as handle:
        await world.fs.files.write(handle, 0, b"one")
        await world.fs.files.fsync(handle)
        await world.fs.files.write(handle, 0, b"two")
        info = await world.foreign.store.get_info("f")
        world.store.stream.purge(info.subject)
        world.store.stream.purge(chunk_subject("bucket", info.nuid))
        world.store.stream.interrupt()
        await world.settle()
        assert world.exists("f")
    assert await world.foreign.get("f") == b"two"


async def test_foreign_replacement_of_an_open_file(world: World) -> None:
    """R1: a handle reads the version that it opened; a new lookup sees the new one."""
    data = pattern(500_000)
    await world.write("f", data)
    async with world.opened("f") as handle:
        old = world.leaf("f")
        await world.foreign.store.upload("f", in_pieces(b"new"))  # leaves the old chunks
        await world.settle()
        assert world.leaf("f") is not old
        assert await world.read("f") == b"new"
        assert await world.read_from(handle) == data
    assert old.info is not None
    world.store.stream.purge(chunk_subject("bucket", old.info.nuid))


async def test_purged_under_a_reader(world: World) -> None:
    """R1: a version whose chunks another client purged is stale for those who have it open."""
    await world.write("f", pattern(500_000))
    async with world.opened("f") as handle:
        await world.foreign.put("f", b"new")
        await world.settle()
        with pytest.raises(StaleVersion):
            await world.read_from(handle)
    assert await world.read("f") == b"new"
