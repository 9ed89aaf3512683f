"""Random programs, servers that refuse, fall silent or lose their answers, and mounts that die in
the middle of a call: what close and fsync promised is what the next mount finds."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from natsfs.errors import ConnectionLost, NatsfsError, NotSent, RequestTimeout
from natsfs.filesystem import intake, telling, unsaved
from natsfs.handles import FileHandle
from natsfs.store.memory import MemoryManager, MemoryStore
from natsfs.store.memory_stream import MemoryStream
from natsfs.store.model import BucketConfig, MetaWrite, ObjectInfo
from tests.faults.promises import Promises, digest_of
from tests.fs.lives import drop, until
from tests.fs.world import World, mounted

NAMES = ("a", "b", "c", "d")

#: Bytes: nothing, one, of one chunk, more than stays in memory, of more than one window.
SIZES = (0, 1, 3_000, 200_000, 600_000, 1_500_000)

PIECE = 131_072

#: Operations that need the server.
ASKING = frozenset(
    {"upload", "chunk", "place", "commit", "publish", "read", "get_info", "get_info_at"}
    | {"purge_chunks", "purge_meta"}
)

#: Those by which something changes.
CHANGING = frozenset(("place", "commit", "publish"))


class Fate:
    """What becomes of requests, and when the mount dies: before or after some request of many."""

    def __init__(self, manager: MemoryManager, store: MemoryStore, chance: random.Random) -> None:
        self.manager = manager
        self.store = store
        self.chance = chance
        self.mode = "answers"
        self.dead = trio.Event()
        self._fuse = -1
        self._copy: Callable[[], None] = lambda: None
        self._watchers = store.stream._watchers
        manager.fail = self._failure

    def arm(self, copy: Callable[[], None], *, soon: bool) -> None:
        """Let the mount die at a random moment, when *copy* keeps what is on its disk then."""
        self.dead = trio.Event()
        self._copy = copy
        self._fuse = self.chance.randrange(1, 60) if soon else -1

    def disarm(self) -> None:
        """Nothing goes wrong any more for the next mount."""
        self._fuse = -1
        self.dead = trio.Event()
        self.mode = "answers"
        self.store.stream._watchers = set()

    def change(self, mode: str) -> None:
        """The server "answers", "refuses", is "away", or is "deaf": it does what it is told, and
        nobody hears of it."""
        if mode == "deaf" and self.mode != "deaf":
            self._watchers, self.store.stream._watchers = self.store.stream._watchers, set()
        if mode != "deaf" and self.mode == "deaf":
            self.store.stream._watchers = self._watchers
            self.store.stream.interrupt()
        self.mode = mode

    def kill(self) -> None:
        """The mount dies now."""
        if not self.dead.is_set():
            self._copy()
            self.dead.set()

    async def moment(self) -> None:
        """The mount may be dead here, or die."""
        if self._fuse > 0:
            self._fuse -= 1
            if self._fuse == 0:
                self.kill()
        if self.dead.is_set():
            await trio.sleep_forever()

    def _failure(self, operation: str, name: str) -> Exception | None:
        if operation not in ASKING:
            return None
        if self.mode == "refuses":
            return RequestTimeout("no answer")
        if self.mode == "away":
            return NotSent("away") if operation in CHANGING else ConnectionLost("away")
        return None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The store and its manager do as this says."""
        begin, store_metas = self.manager.begin, MemoryStore.store_metas
        purge = MemoryStream.purge

        async def begun(operation: str, name: str) -> None:
            await self.moment()
            await begin(operation, name)
            await self.moment()

        async def stored(store: MemoryStore, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
            infos = await store_metas(store, writes)
            await self.moment()
            if self.mode == "deaf":
                raise RequestTimeout("no answer")
            return infos

        def purged(stream: MemoryStream, subject: str, last: int | None = None) -> int:
            # A call that is cancelled frees what it has begun; one that is dead does not.
            return 0 if self.dead.is_set() else purge(stream, subject, last)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.manager, "begin", begun)
            patch.setattr(MemoryStream, "purge", purged)
            patch.setattr(MemoryStore, "store_metas", stored)
            yield


@dataclass(eq=False)
class Half:
    """A file that a program goes on writing: its name if it has one, and what it is."""

    handle: FileHandle
    name: str | None
    content: bytes


class Program:
    """Changes files, and keeps account of what it was promised."""

    def __init__(self, world: World, fate: Fate, promises: Promises) -> None:
        self.world = world
        self.fate = fate
        self.chance = fate.chance
        self.promises = promises
        self.halves: list[Half] = []
        #: Names of a rename of which nobody knows whether it happened.
        self.clouded: set[str] = set()

    async def run(self, steps: int) -> None:
        """Do that many things."""
        actions: list[Callable[[], Awaitable[None]]] = [
            *(self.rewrite, self.rewrite, self.append, self.append, self.change, self.rename),
            *(self.rename, self.unlink, self.begin, self.go_on, self.go_on, self.sync, self.end),
        ]
        for _ in range(steps):
            if self.chance.random() < 0.2:
                self.fate.change(self.chance.choice(["answers", "refuses", "away", "deaf"]))
            with suppress(NatsfsError):
                await self.chance.choice(actions)()
            if self.chance.random() < 0.3:
                await self.world.settle()

    def body(self) -> bytes:
        return self.chance.randbytes(self.chance.choice(SIZES))

    def name(self) -> str | None:
        """One that no half has."""
        taken = {half.name for half in self.halves}
        free = [name for name in NAMES if name not in taken]
        return self.chance.choice(free) if free else None

    async def read_from(self, handle: FileHandle) -> bytes:
        """What it has, which nothing is written to yet: closing it changes nothing."""
        try:
            return await self.world.read_from(handle)
        except BaseException:
            await self.world.release(handle)
            raise

    async def close(self, handle: FileHandle, name: str | None, content: bytes) -> None:
        promise = self.promise(handle, name, content)
        try:
            await self.world.fs.files.flush(handle)
            promise()
        finally:
            await self.world.release(handle)

    def promise(self, handle: FileHandle, name: str | None, content: bytes) -> Callable[[], None]:
        """The file may be *content* from now on, and must when the result is called, unless nothing
        had to be done for that or nobody knows what is there."""
        if name is None or handle.file.leaf.heir.parent is None:
            return lambda: None
        self.promises.say("may", {name: content})
        if not handle.file.dirty or name in self.clouded:
            return lambda: None
        return lambda: self.promises.say("must", {name: content})

    # -- whole files ------------------------------------------------------------------------------

    async def rewrite(self) -> None:
        name, body = self.name(), self.body()
        if name is not None:
            await self._fill(self.world.open(name, FLAGS), name, b"", body)

    async def append(self) -> None:
        name, body = self.name(), self.body()
        if name is not None:
            handle = self.world.open(name, os.O_CREAT | os.O_RDWR | os.O_APPEND)
            await self._fill(handle, name, await self.read_from(handle), body)

    async def _fill(self, handle: FileHandle, name: str, before: bytes, body: bytes) -> None:
        content = before
        try:
            for at in range(0, len(body), PIECE):
                await self.world.fs.files.write(handle, len(content), body[at : at + PIECE])
                content += body[at : at + PIECE]
        finally:
            await self.close(handle, name, content)

    async def change(self) -> None:
        name = self.name()
        if name is None or not self.world.exists(name):
            return
        handle = self.world.open(name, os.O_RDWR)
        body = content = await self.read_from(handle)
        at, piece = self.chance.randint(0, len(body)), self.chance.randbytes(5_000)
        try:
            await self.world.fs.files.write(handle, at, piece)
            content = body[:at] + piece + body[at + len(piece) :]
        finally:
            await self.close(handle, name, content)

    # -- names ------------------------------------------------------------------------------------

    async def rename(self) -> None:
        old, new = self.chance.sample(NAMES, 2)
        if not self.world.exists(old):
            return
        moving = self.promises.may_move(old, new)
        clear = self.clouded.isdisjoint((old, new))
        if not clear:
            self.clouded |= {old, new}
        try:
            await self.world.rename(old, new)
        except NatsfsError as error:
            if not isinstance(error, NotSent):
                self.clouded |= {old, new}
            raise
        if clear:
            self.promises.must_move(old, new, moving)
        for half in self.halves:
            if half.name in (old, new):
                half.name = new if half.name == old else None

    async def unlink(self) -> None:
        name = self.chance.choice(NAMES)
        if not self.world.exists(name):
            return
        self.promises.say("may", {name: None})
        await self.world.unlink(name)
        if name not in self.clouded:
            self.promises.say("must", {name: None})
        for half in self.halves:
            if half.name == name:
                half.name = None

    # -- half files -------------------------------------------------------------------------------

    async def begin(self) -> None:
        name = self.name()
        if name is None or len(self.halves) > 1:
            return
        handle = self.world.open(name, os.O_CREAT | os.O_RDWR)
        content = await self.read_from(handle)
        if self.chance.random() < 0.5:
            await self.world.fs.files.truncate(handle.file.leaf, 0, handle)
            content = b""
        self.halves.append(Half(handle, name, content))

    async def go_on(self) -> None:
        if self.halves:
            half, body = self.chance.choice(self.halves), self.body()
            start = self.chance.choice([0, len(half.content)])
            for at in range(0, len(body), PIECE):
                piece = body[at : at + PIECE]
                await self.world.fs.files.write(half.handle, start + at, piece)
                end = start + at + len(piece)
                half.content = half.content[: start + at] + piece + half.content[end:]

    async def sync(self) -> None:
        if self.halves:
            half = self.chance.choice(self.halves)
            promise = self.promise(half.handle, half.name, half.content)
            await self.world.fs.files.fsync(half.handle)
            promise()

    async def end(self) -> None:
        if self.halves:
            half = self.halves.pop(self.chance.randrange(len(self.halves)))
            await self.close(half.handle, half.name, half.content)


FLAGS = os.O_CREAT | os.O_TRUNC | os.O_WRONLY


@pytest.mark.expects_log(".*")
@pytest.mark.parametrize("writeback", [False, True])
@pytest.mark.parametrize(
    "rounds", [60, pytest.param(5_000, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])]
)
async def test_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, *, writeback: bool
) -> None:
    """W1, W2, W3, W7, W8: after a mount that died at any moment the bucket has what was promised,
    under the names that it had, and nothing else."""
    for module, patience in ((unsaved, "RETRY"), (telling, "CATCH_UP"), (intake, "ECHO")):
        monkeypatch.setattr(module, patience, 0.01)
    monkeypatch.setattr(intake, "WATCH_RETRY", 0.01)
    # Lives are shorter than a closed file is left alone: in every other one it is stored at once.
    linger = unsaved.LINGER
    for _ in range(rounds):
        seed = random.randrange(2**32)
        monkeypatch.setattr(unsaved, "LINGER", random.choice((0.0, linger)))
        try:
            await several_lives(tmp_path, seed, writeback=writeback)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        shutil.rmtree(tmp_path)


async def several_lives(top: Path, seed: int, *, writeback: bool, number: int = 4) -> None:
    """Mounts of one bucket that die, one after the other."""
    chance = random.Random(seed)
    manager = MemoryManager()
    store = await manager.create(BucketConfig("bucket"))
    fate, promises = Fate(manager, store, chance), Promises()
    clouded: set[str] = set()
    for life in range(number + 1):
        here, there = top / str(life), top / str(life + 1)
        fate.disarm()
        with fate.at_work():
            async with mounted(
                here, manager=manager, store=store, writeback=writeback, dies=True
            ) as world:
                found = await recovered(world)
                wrong = promises.broken(found, partial(kept_aside, promises, clouded))
                assert not wrong, "\n".join([f"life {life}", *wrong])
                promises.settle(found)
                if life < number:
                    soon = chance.random() < 0.8
                    fate.arm(partial(keep, here, there, promises), soon=soon)
                    program = Program(world, fate, promises)
                    await until_dead(program, fate)
                    clouded = program.clouded


def keep(here: Path, there: Path, promises: Promises) -> None:
    """The mount dies: what is on disk now is what the next one finds, and what it said counts."""
    promises.end()
    if here.exists():
        shutil.copytree(here, there)


def kept_aside(promises: Promises, clouded: set[str], name: str, digest: str | None) -> bool:
    """Whether *name* need not be what was promised, because a rename came to nobody knows what: it
    is a name of that rename, or what a file has given way to, which then is not lost."""
    origin, conflict, _ = name.partition(".conflict-")
    if not conflict:
        return name in clouded
    return any(digest is not None and digest in line for line in promises.said if origin in line)


async def until_dead(program: Program, fate: Fate) -> None:
    """Let *program* run until the mount dies, in the middle of it or after it."""
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            await program.run(12)
            fate.kill()

        nursery.start_soon(work)
        await fate.dead.wait()
        nursery.cancel_scope.cancel()


async def recovered(world: World) -> dict[str, str]:
    """The digests of what the bucket has when everything is saved."""
    await until(lambda: not world.fs.unsaved.all(world.fs.handles.files()))
    await world.fs.recovery.settle(world.fs.mounted.journal.parent, drop)
    await world.settle()
    found = {name: digest_of(await world.foreign.get(name)) for name in await world.foreign.names()}
    assert world.paths() == sorted(found)
    return {name: digest for name, digest in found.items() if digest is not None}
