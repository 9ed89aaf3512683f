"""Reading the small files of a directory one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import trio.testing

from natsfs.data.stretches import Flight, Held
from natsfs.filesystem.walks import FIRST, MOST, SKIPS, SMALL
from tests.fs.world import World

COUNT = 60


async def filled(world: World, directory: str, size: int = 10) -> dict[str, bytes]:
    """Files that another client has put there, in no order of their names: what follows by name is
    far away in the listing."""
    found = {}
    for number in sorted(range(COUNT), key=lambda number: number * 37 % COUNT):
        path, data = f"{directory}/{number:03}", f"{directory} {number}".encode().ljust(size)
        await world.foreign.put(path, data)
        found[path] = data
    await world.settle()
    return found


class Reads:
    """Counts what is read from the bucket."""

    def __init__(self, world: World) -> None:
        self.names: list[str] = []
        self._world = world
        world.manager.fail = self._note

    def _note(self, operation: str, name: str) -> None:
        if operation == "read":
            self.names.append(name)

    async def of(self, files: dict[str, bytes], order: Iterable[str]) -> int:
        """Read the *files* in *order*; of how many of them nothing had been asked for when they
        were opened."""
        waited = 0
        for path in order:
            waited += not self._held(path).at
            assert await self._world.read(path) == files[path]
        for path in files:
            for slot in list(self._held(path).at.values()):
                if isinstance(slot, Flight):
                    await slot.landed()
        return waited

    def _held(self, path: str) -> Held:
        info = self._world.leaf(path).info
        assert info is not None
        return self._world.fs.mounted.reader.open(info)._held


@pytest.mark.parametrize("order", [list, sorted], ids=["listed", "sorted"])
async def test_in_order(world: World, order: Callable[[Iterable[str]], list[str]]) -> None:
    """R2: whoever reads the files of a directory in the order in which it is listed, or in that of
    their names, waits for two of them; and each is asked for once."""
    files = await filled(world, "d")
    reads = Reads(world)
    assert await reads.of(files, order(files)) == 2
    assert sorted(reads.names) == sorted(files)


async def test_leaving_some_out(world: World) -> None:
    """R2: a program that skips files costs those that it skips, and no more than it reads."""
    files = await filled(world, "d")
    reads = Reads(world)
    await reads.of(files, sorted(files)[::3])
    assert len(reads.names) == len(set(reads.names))


async def test_not_in_order(world: World) -> None:
    """R2: whoever reads single files costs these files."""
    files = await filled(world, "d")
    reads = Reads(world)
    chosen = sorted(files)[:: SKIPS + 2]
    listed = list(files)
    near = {
        listed[i + n]
        for i in map(listed.index, chosen)
        for n in range(1, SKIPS + 1)
        if i + n < COUNT
    }
    chosen = [path for path in chosen if path not in near]
    assert await reads.of(files, chosen) == len(chosen)
    assert sorted(reads.names) == chosen


async def test_giving_up(world: World) -> None:
    """R2: what is asked for in vain when a walk ends is bounded."""
    files = await filled(world, "d")
    reads = Reads(world)
    await reads.of(files, sorted(files)[:2])
    assert len(reads.names) == 2 + FIRST
    await reads.of(files, sorted(files)[2 : COUNT // 2])
    assert len(reads.names) <= COUNT // 2 + MOST


async def test_large_files(world: World) -> None:
    """R2: files larger than a chunk have a read-ahead of their own."""
    files = await filled(world, "d", SMALL + 1)
    reads = Reads(world)
    await reads.of(files, sorted(files)[:5])
    assert set(reads.names) == set(sorted(files)[:5])


async def test_two_directories_at_once(world: World) -> None:
    """R2: `diff -r` walks through two directories in turns."""
    files = await filled(world, "d") | await filled(world, "e")
    reads = Reads(world)
    order = [f"{directory}/{n:03}" for n in range(COUNT) for directory in "de"]
    assert await reads.of(files, order) == 4
    assert sorted(reads.names) == sorted(files)


async def test_a_version_that_is_not_there_any_more(world: World) -> None:
    """R1: what was fetched ahead is of its version; who opens the next one gets that."""
    files = await filled(world, "d")
    reads = Reads(world)
    first, second, third, *_ = sorted(files)
    await reads.of(files, [first, second])
    assert third in reads.names
    await world.foreign.put(third, b"new")
    await world.settle()
    assert await world.read(third) == b"new"


async def test_without_a_server(world: World) -> None:
    """A5: a failure ahead of a program is not told to it; its own read tries again."""
    files = await filled(world, "d")
    fails = [True]

    def fail(operation: str, name: str) -> Exception | None:
        return OSError("a fault") if operation == "read" and name == third and fails else None

    first, second, third, *_ = sorted(files)
    world.manager.fail = fail
    for path in (first, second):
        assert await world.read(path) == files[path]
    await trio.testing.wait_all_tasks_blocked()
    fails.clear()
    assert await world.read(third) == files[third]
