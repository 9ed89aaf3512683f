"""What a change costs: which requests the filesystem makes of its store, and no more.

What each of those costs on the wire is shown in tests/contract/test_round_trips.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from natsfs.filesystem.attributes import AttributeChanges
from natsfs.handles import FileHandle
from tests.fs.world import World


class Costs:
    """Counts requests.  What is freed later, and a directory's mtime, are no part of a change."""

    def __init__(self, world: World) -> None:
        self._asked: list[str] = []
        world.manager.fail = self._note

    def _note(self, operation: str, name: str) -> None:
        self._asked.append(operation)

    @contextmanager
    def are(self, *operations: str) -> Iterator[None]:
        """What is done within makes exactly these requests."""
        self._asked.clear()
        yield
        assert [asked for asked in self._asked if asked != "purge_chunks"] == list(operations)


async def counting(world: World) -> Costs:
    """Counts from now on, when what a mount asks at its start has been answered."""
    await world.settle()
    return Costs(world)


async def exclusive(world: World, path: str) -> FileHandle:
    """open(2) with O_CREAT and O_EXCL."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    handle, _ = await world.fs.creation.create(*world.place(path), 0o600, flags, 1000, 1000)
    world.number(handle)
    return handle


async def test_files(world: World) -> None:
    """W1, A3: a file costs one upload, and one claim if nobody else may create it."""
    costs = await counting(world)
    with costs.are("upload", "place"):
        await world.write("f", b"new")
    with costs.are("upload", "place"):
        await world.write("f", b"other")
    with costs.are("commit", "upload", "place"):
        handle = await exclusive(world, "g")
        await world.fs.files.write(handle, 0, b"bytes")
        await world.close(handle)


async def test_attributes(world: World) -> None:
    """M5: a change of attributes is one commit; with bytes that wait for theirs it costs none."""
    costs = await counting(world)
    await world.write("f", b"one")
    await world.mkdir("d")
    with costs.are("commit"):
        await world.chmod("f", 0o600)
    with costs.are("commit"):
        await world.chmod("d", 0o700)
    with costs.are("upload", "place"):
        async with world.opened("f", os.O_WRONLY) as handle:
            await world.fs.files.write(handle, 0, b"two")
            await world.fs.changes.setattr(handle.file.leaf, AttributeChanges(mtime_ns=1), handle)
            await world.chmod("f", 0o644)


async def test_names(world: World) -> None:
    """A2: an entry is made, moved or removed by one commit."""
    costs = await counting(world)
    with costs.are("commit"):
        await world.mkdir("d")
    with costs.are("commit"):
        await world.symlink("nowhere", "l")
    await world.write("f", b"one")
    await world.write("g", b"two")
    with costs.are("commit"):
        await world.link("f", "h")
    with costs.are("commit"):
        await world.rename("f", "d/f")
    with costs.are("commit"):
        await world.rename("g", "d/f")
    with costs.are("commit"):
        await world.rename("d", "e")
    with costs.are("commit"):
        await world.unlink("e/f")
    with costs.are("commit"):
        await world.rmdir("e")


async def test_a_file_as_rsync_makes_it(world: World) -> None:
    """A3, A2: a file that is made under a name of its own, given its attributes and moved over
    another costs a commit for each of these; its claim needs no withdrawal."""
    costs = await counting(world)
    await world.write("f", b"old")
    with costs.are("commit", "upload", "place", "commit", "commit", "commit"):
        handle = await exclusive(world, ".f.x")
        await world.fs.files.write(handle, 0, b"new")
        await world.close(handle)
        times = AttributeChanges(mtime_ns=1, atime_ns=2)
        await world.fs.changes.setattr(world.leaf(".f.x"), times, None)
        await world.chmod(".f.x", 0o644)
        await world.rename(".f.x", "f")
    with costs.are("commit", "commit"):
        handle = await exclusive(world, "never stored")
        await world.rename("never stored", "g")
    await world.close(handle)
