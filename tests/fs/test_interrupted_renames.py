"""Renames without atomic batches: interrupted at any message, met by other clients, run again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from natsfs.errors import ConnectionLost, ExistsError, NatsfsError, NotEmptyError
from natsfs.filesystem import relocation
from natsfs.filesystem.moves import RENAME_NOREPLACE
from natsfs.store.base import tombstone
from natsfs.store.memory import MemoryManager
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.store.wire import EMPTY_DIGEST, chunk_subject, meta_subject
from tests.fs.world import World, mounted

FILES = {"d/a": b"a", "d/b": b"b", "d/s/c": b"c", "d/s/t/e": b"e"}
#: Metas that the rename of `tree` publishes: as many arrivals as tombstones.
METAS = len(FILES) + 3


@pytest.fixture(params=["no batches", "small batches"])
def manager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MemoryManager:
    """A server without batches, or one whose batches are too small for the rename."""
    manager = MemoryManager()
    if request.param == "no batches":
        manager.allow_atomic = False
    else:
        monkeypatch.setattr(relocation, "MAX_BATCH", 2)
    return manager


async def tree(world: World) -> None:
    """A directory with markers, files and one that only a foreign object implies."""
    for directory in ("d", "d/s", "d/s/t"):
        await world.mkdir(directory)
    for path, body in FILES.items():
        await world.write(path, body)


class Interruption:
    """Ends the connection, or something else, when the *nth* write of a rename is due."""

    def __init__(self, manager: MemoryManager, nth: int) -> None:
        self._left = nth
        self._manager = manager
        manager.fail = self

    def __call__(self, operation: str, name: str) -> Exception | None:
        if operation not in ("publish", "commit"):
            return None
        atomic = self._manager.allow_atomic
        if (operation == "commit") is not atomic:
            return None
        self._left -= 1
        return ConnectionLost("cut") if self._left < 0 else None


@asynccontextmanager
async def interrupted(directory: Path, manager: MemoryManager, nth: int) -> AsyncIterator[World]:
    """A mount made after the rename of d to e has been cut before its *nth* write."""
    async with mounted(directory / "first", manager=manager) as world:
        await tree(world)
        Interruption(manager, nth)
        with pytest.raises(NatsfsError):
            await world.rename("d", "e")
        manager.fail = lambda operation, name: None
        await world.settle()
    async with mounted(directory / "second", manager=manager, store=world.store) as other:
        yield other


async def contents(world: World, top: str) -> dict[str, bytes]:
    found = {}
    for path in world.paths():
        if path.startswith(f"{top}/") and not path.endswith("/"):
            found["d" + path[len(top) :]] = await world.read(path)
    return found


@pytest.mark.parametrize("nth", range(2 * METAS))
async def test_interruption_leaves_both(tmp_path: Path, manager: MemoryManager, nth: int) -> None:
    """A2: an interruption at any message leaves both names or all under one, never neither; to run
    the rename again finishes it."""
    if manager.allow_atomic and nth >= METAS:
        pytest.skip("so many batches it does not need")
    async with interrupted(tmp_path, manager, nth) as world:
        under_either = {**await contents(world, "d"), **await contents(world, "e")}
        assert under_either == FILES
        await world.rename("d", "e")
        await world.settle()
        assert await contents(world, "e") == FILES
        assert not world.exists("d")
        assert await world.foreign.names() == sorted(
            ["e/", "e/s/", "e/s/t/", *("e" + path[1:] for path in FILES)]
        )


@pytest.mark.parametrize("nth", [2, METAS + 2])
async def test_removing_one_of_both(tmp_path: Path, nth: int) -> None:
    """W6: after an interruption one of the two names can be removed without taking the bytes from
    the other."""
    manager = MemoryManager()
    manager.allow_atomic = False
    async with interrupted(tmp_path, manager, nth) as world:
        for path in FILES:
            if world.exists(path) and world.exists("e" + path[1:]):
                await world.unlink(path)
        await world.settle()
        assert {**await contents(world, "d"), **await contents(world, "e")} == FILES


async def test_rename_of_one_file_again(tmp_path: Path) -> None:
    """A2, W6: a file that has both names after an interruption has one after another rename, and
    its bytes."""
    manager = MemoryManager()
    manager.allow_atomic = False
    async with mounted(tmp_path, manager=manager) as world:
        await world.write("f", b"data")
        Interruption(manager, 1)
        with pytest.raises(ConnectionLost):
            await world.rename("f", "g")
        manager.fail = lambda operation, name: None
        await world.settle()
        assert world.paths() == ["f", "g"]
        await world.rename("f", "g")
        await world.settle()
        assert world.paths() == ["g"]
        assert await world.read("g") == b"data"
        assert await world.foreign.get("g") == b"data"


class Meddling:
    """Another client that changes *path* when the *nth* write of a rename is due."""

    def __init__(self, world: World, nth: int, change: str, path: str) -> None:
        self._world = world
        self._left = nth
        self._change = change
        self._path = path
        self.done = False
        world.manager.fail = self

    def __call__(self, operation: str, name: str) -> None:
        if operation == ("commit" if self._world.manager.allow_atomic else "publish"):
            self._left -= 1
            if self._left == -1:
                self._meddle()

    def _meddle(self) -> None:
        store = self._world.foreign.store
        old = store._info(meta_subject("bucket", self._path))
        if self._change == "new":
            new = _empty(f"{self._path}-new")
        elif old is None or old.deleted:
            return
        elif self._change == "put":
            new = _empty(self._path)
        elif self._change == "metadata":
            new = replace(old, metadata={**old.metadata, "mode": "0100600"})
        else:
            new = tombstone(old)
        self.done = True
        store._store_metas([MetaWrite(new)])
        if old is not None and self._change in ("put", "delete"):
            store.stream.purge(chunk_subject("bucket", old.nuid))


def _empty(name: str) -> ObjectInfo:
    return ObjectInfo(name, "bucket", meta_subject("bucket", name), digest=EMPTY_DIGEST)


@pytest.mark.parametrize("nth", range(0, 2 * METAS, 3))
@pytest.mark.parametrize("change", ["put", "metadata", "delete", "new"])
async def test_foreign_changes_meanwhile(
    tmp_path: Path, manager: MemoryManager, nth: int, change: str
) -> None:
    """A2, A4: what another client does to an entry while its directory is being renamed is there
    under the new name, what it adds stays under the old one, and the rename succeeds."""
    async with mounted(tmp_path, manager=manager) as world:
        await tree(world)
        await world.settle()
        meddling = Meddling(world, nth, change, "d/b")
        await world.rename("d", "e")
        manager.fail = lambda operation, name: None
        await world.settle()
        expected = dict(FILES)
        if meddling.done and change == "put":
            expected["d/b"] = b""
        if meddling.done and change == "delete":
            del expected["d/b"]
        assert await contents(world, "e") == expected
        if meddling.done and change == "metadata":
            assert world.stat("e/b").mode == 0o100600
        left = ["d/b-new"] if meddling.done and change == "new" else []
        assert [name for name in await world.foreign.names() if name.startswith("d/")] == left
        assert world.exists("d") is bool(left)


@pytest.mark.parametrize("nth", [3, METAS + 3])
async def test_change_between_two_renames(tmp_path: Path, nth: int) -> None:
    """A2, A4: of an entry that was changed after an interruption, the newer version is kept."""
    manager = MemoryManager()
    manager.allow_atomic = False
    async with interrupted(tmp_path, manager, nth) as world:
        path = "d/a" if world.exists("d/a") else "e/a"
        await world.write(path, b"newer")
        await world.settle()
        await world.rename("d", "e")
        await world.settle()
        assert await contents(world, "e") == {**FILES, "d/a": b"newer"}
        assert not world.exists("d")


@pytest.mark.parametrize("nth", [3, METAS + 3])
async def test_other_directories_are_not_taken_for_halves(tmp_path: Path, nth: int) -> None:
    """A2: a directory with something of its own is not empty, and stays as it is."""
    manager = MemoryManager()
    manager.allow_atomic = False
    async with interrupted(tmp_path, manager, nth) as world:
        await world.write("e/own", b"own")
        with pytest.raises(NotEmptyError):
            await world.rename("d", "e")
        assert await world.read("e/own") == b"own"


async def test_files_in_use_are_not_merged(tmp_path: Path) -> None:
    """W1: a file that is being written in one of two halves is stored before they become one."""
    manager = MemoryManager()
    manager.allow_atomic = False
    async with interrupted(tmp_path, manager, METAS + 2) as world:
        async with world.opened("e/a", os.O_WRONLY) as handle:
            await world.fs.files.write(handle, 0, b"written")
            with pytest.raises(NotEmptyError):
                await world.rename("d", "e")
        await world.rename("d", "e")
        await world.settle()
        assert await contents(world, "e") == {**FILES, "d/a": b"written"}


async def test_noreplace_without_batches(tmp_path: Path) -> None:
    """A3: RENAME_NOREPLACE gives way to who has the new name first, without batches too."""
    manager = MemoryManager()
    manager.allow_atomic = False
    async with mounted(tmp_path, manager=manager) as world:
        await world.write("f", b"mine")
        Meddling(world, 0, "new", "g")
        with pytest.raises(ExistsError):
            await world.rename("f", "g-new", RENAME_NOREPLACE)
        manager.fail = lambda operation, name: None
        await world.settle()
        assert await world.read("f") == b"mine"
        assert await world.read("g-new") == b""
