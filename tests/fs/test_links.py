"""Links: what symlink and link store, what foreign links are shown as."""

from __future__ import annotations

import stat

import pytest

from natsfs.errors import (
    InvalidArgument,
)
from natsfs.store.model import Link, MetaWrite, ObjectInfo
from tests.fs.world import World


@pytest.mark.parametrize(
    ("target", "native"),
    [
        ("f", "f"),
        ("../f", None),
        ("d/g", "d/g"),
        ("d/../f", "f"),
        ("/mnt/f", "f"),
        ("/mnt/./d//g", "d/g"),
        ("/mntx/f", None),
        ("/etc/passwd", None),
        ("d", None),
        ("none", None),
        ("l", None),
        ("fifo", None),
    ],
)
async def test_symlinks(world: World, target: str, native: str | None) -> None:
    """K4, K5, K6: a link to a plain object is native, any other is a text; both read back."""
    await world.write("f", b"f")
    await world.mkdir("d")
    await world.write("d/g", b"g")
    await world.symlink("f", "l")
    await world.fs.changes.mknod(world.root, b"fifo", stat.S_IFIFO | 0o600, 0, 1, 1)
    await world.symlink(target, "new")
    info = await world.foreign.store.get_info("new")
    assert info.link == (None if native is None else Link("bucket", native))
    assert world.readlink("new") == target.encode()
    found = world.stat("new")
    assert stat.S_ISLNK(found.mode)
    assert found.size == len(target)


async def test_link_to_the_bucket(world: World) -> None:
    """K4: a link to the mount's directory is a bucket link."""
    await world.symlink("/mnt", "all")
    assert (await world.foreign.store.get_info("all")).link == Link("bucket")
    assert world.readlink("all") == b"/mnt"


async def test_foreign_links(world: World) -> None:
    """K2, K3: links that others made are symlinks to what they lead to."""
    store = world.foreign.store
    target = await world.foreign.put("d/f", b"f")
    await store.add_link("e/link", target)
    await store.add_bucket_link("other", "elsewhere")
    await store.commit([MetaWrite(ObjectInfo("e/far", "bucket", "", link=Link("far", "a/b")))])
    await world.settle()
    assert world.readlink("e/link") == b"../d/f"
    assert world.readlink("other") == b"../elsewhere"
    assert world.readlink("e/far") == b"../../far/a/b"
    assert world.stat("e/link").size == len(b"../d/f")


async def test_link_to_an_object_that_a_directory_hides(world: World) -> None:
    """K2, N3: such a link leads to where the object is shown."""
    target = await world.foreign.put("a", b"f")
    await world.foreign.put("a/b", b"x")
    await world.foreign.store.add_link("l", target)
    await world.settle()
    assert world.readlink("l") == "a‛".encode()


async def test_readlink_of_a_file(world: World) -> None:
    """K6: what is no symbolic link has no text."""
    await world.write("f", b"f")
    await world.mkdir("d")
    for path in ("f", "d"):
        with pytest.raises(InvalidArgument):
            world.readlink(path)


async def test_hard_links(world: World) -> None:
    """K7: names of one file share everything, and the last one keeps it."""
    await world.write("f", b"data")
    await world.link("f", "d")
    assert world.leaf("d") is world.leaf("f")
    assert world.fs.entries.links(world.leaf("f")) == 2
    assert await world.foreign.get("d") == b"data"
    await world.write("d", b"new")
    assert await world.read("f") == b"new"
    await world.unlink("f")
    assert await world.read("d") == b"new"
    assert await world.foreign.names() == ["d"]
    assert world.fs.entries.links(world.leaf("d")) == 1
