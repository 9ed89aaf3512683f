"""When a directory was modified, as the mount that follows the bucket tells it."""

from __future__ import annotations

from dataclasses import replace

from natsfs.filesystem.attributes import AttributeChanges
from natsfs.store.base import tombstone
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.tree.nodes import info_of
from tests.fs.world import World

#: Nanoseconds since the epoch: long before every test.
OLD = 10**18


async def _dated(world: World) -> None:
    """A directory `d` with two files, last modified at `OLD`."""
    await world.mkdir("d")
    await world.write("d/a", b"a")
    await world.write("d/b", b"b")
    await world.fs.changes.setattr(world.directory("d"), AttributeChanges(mtime_ns=OLD), None)
    await world.settle()
    assert world.stat("d").mtime_ns == OLD


def _info(world: World, path: str) -> ObjectInfo:
    info = info_of(world.entry(path))
    assert info is not None
    return info


async def test_foreign_put_over_what_is_read(world: World) -> None:
    """M1: a new version under a name that was there does not change the directory, though the file
    that is open here keeps the old one."""
    await _dated(world)
    async with world.opened("d/a"):
        await world.foreign.put("d/a", b"new")
        await world.settle()
    assert await world.read("d/a") == b"new"
    assert world.stat("d").mtime_ns == OLD


async def test_another_mount_renames_over_a_name(world: World) -> None:
    """M1: another file under a name that was there is a change of the directory."""
    await _dated(world)
    await world.write("c", b"c")
    moved, replaced = _info(world, "c"), _info(world, "d/a")
    arrived = replace(moved, name="d/a", subject=replaced.subject)
    writes = [MetaWrite(arrived, replaced.revision), MetaWrite(tombstone(moved), moved.revision)]
    await world.foreign.store.commit(writes)
    await world.foreign.store.purge_chunks(replaced.nuid)
    await world.settle()
    assert await world.read("d/a") == b"c"
    assert world.stat("d").mtime_ns != OLD


async def test_another_client_removes_a_directory(world: World) -> None:
    """M1: that changes the directory it was in."""
    await _dated(world)
    await world.mkdir("d/e")
    await world.fs.changes.setattr(world.directory("d"), AttributeChanges(mtime_ns=OLD), None)
    await world.settle()
    await world.foreign.delete("d/e/")
    await world.settle()
    assert not world.exists("d/e")
    assert world.stat("d").mtime_ns != OLD


async def test_storing_the_mtime(world: World) -> None:
    """M1: a directory's mtime is stored a while after it changed, which moves no time here."""
    await _dated(world)
    await world.write("d/c", b"c")
    before, stored = world.stat("d"), _info(world, "d").metadata["mtime"]
    assert before.mtime_ns != OLD
    await world.fs.times.store(world.directory("d"))
    await world.settle()
    assert world.stat("d") == before
    assert _info(world, "d").metadata["mtime"] != stored
