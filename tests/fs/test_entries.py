"""Listings and free space."""

from __future__ import annotations

from pathlib import Path

import trio

from natsfs.filesystem.entries import Entries
from natsfs.handles import DirectoryHandle
from natsfs.store.model import BucketConfig
from tests.fs.world import World, mounted


async def test_listing(world: World) -> None:
    """R6: a listing that goes on shows every entry once, whatever comes and goes."""
    names = [f"f{number}" for number in range(20)]
    for name in names:
        await world.write(name, b"")
    entries = world.fs.entries
    handle = DirectoryHandle(world.root)
    seen = entries.listing(handle, 0)[:10]
    await world.unlink("f0")
    await world.unlink("f15")
    await world.write("new", b"")
    await world.rename("f16", "f99")
    rest = entries.listing(handle, 10)[10:]
    still = [name for name in rest if entries.listed(handle, name) is not None]
    assert len(set(seen + still)) == len(seen) + len(still)
    gone = {b"f0", b"f15", b"f16"}
    stays = {name.encode() for name in names} - gone
    assert stays <= set(seen + still) <= stays | {b"f0", b".", b".."}
    fresh = entries.listing(handle, 0)
    assert sorted(fresh) == sorted(stays | {b".", b"..", b"new", b"f99"})


async def test_listing_makes_no_nodes(world: World, tmp_path: Path) -> None:
    """R6: what a listing costs at its beginning does not depend on what the entries are: nobody
    else is served meanwhile, and there may be a million."""
    for number in range(20):
        await world.write(f"f{number}", b"")
    async with mounted(tmp_path, store=world.store) as other:
        handle = DirectoryHandle(other.root)
        names = other.fs.entries.listing(handle, 0)
        assert len(names) == 22
        assert list(other.root.children.nodes()) == []
        node = other.fs.entries.listed(handle, names[5])
        assert list(other.root.children.nodes()) == [node]


async def test_space(tmp_path: Path) -> None:
    """M8: statfs comes from the stream's limit."""
    async with mounted(tmp_path, BucketConfig("bucket", max_bytes=1_000_000)) as world:
        await world.write("f", bytes(300_000))
        space = await world.fs.entries.statfs()
        assert 999_000 < space.total <= 1_000_000
        assert space.free == 1_000_000 - world.store.stream.size
        assert space.files == 1


async def test_space_of_a_server_that_hangs(world: World) -> None:
    """M8, A5: statfs does not wait for a server that has never told it anything: umount(8) calls
    it, too, and with `-o hard` the wait would have no end."""
    entries = Entries(world.fs.mounted)
    world.manager.delay = 3600
    with trio.fail_after(10):
        space = await entries.statfs()
    assert space.total >= space.free > 0
