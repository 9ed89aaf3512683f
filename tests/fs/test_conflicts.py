"""Two hosts that write one file: who has the name in the end, and what becomes of the other one."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from natsfs.config import ConflictPolicy
from natsfs.errors import ConflictError, ConflictKnown, NatsfsError, RequestTimeout
from natsfs.filesystem.attributes import AttributeChanges
from natsfs.filesystem.conflicts import kept_name
from natsfs.handles import FileHandle
from natsfs.store.memory import MemoryManager
from natsfs.store.model import BucketConfig, MetaWrite
from tests.fs.world import World, mounted
from tests.in_trio import Resource

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
KEPT = re.compile(r"f\.txt\.conflict-this_host-\d{8}T\d{6}Z(-\d+)?")


def a_world(directory: Path, policy: ConflictPolicy, *, atomic: bool = True) -> Resource[World]:
    async def enter(stack: AsyncExitStack) -> World:
        manager = MemoryManager()
        manager.allow_atomic = atomic
        made = mounted(directory, BucketConfig("bucket"), manager=manager, conflict=policy)
        return await stack.enter_async_context(made)

    return Resource(enter)


@pytest.fixture(params=["atomic", "not atomic"])
def keeping(tmp_path: Path, request: pytest.FixtureRequest) -> Resource[World]:
    """A bucket mounted with `conflict=keep`."""
    return a_world(tmp_path, ConflictPolicy.KEEP, atomic=request.param == "atomic")


@pytest.fixture
def failing(tmp_path: Path) -> Resource[World]:
    """A bucket mounted with `conflict=fail`."""
    return a_world(tmp_path, ConflictPolicy.FAIL)


def before_commits(world: World, act: Callable[[], object], times: int = 1) -> None:
    """Let *act* happen between the upload and the commit of the next versions, *times* times."""
    left = times

    def fail(operation: str, name: str) -> NatsfsError | None:
        nonlocal left
        if operation == "place" and left:
            left -= 1
            act()
        return None

    world.manager.fail = fail


@asynccontextmanager
async def being_written(world: World, data: bytes, flags: int = CREATE) -> AsyncIterator[None]:
    """`f.txt` is written here with *data*, and closed after the block."""
    async with world.opened("f.txt", flags) as handle:
        await world.fs.files.write(handle, 0, data)
        yield


async def kept(world: World) -> list[bytes]:
    """What is kept of `f.txt`, in the order of names, as another client reads it."""
    names = [name for name in await world.foreign.names() if KEPT.fullmatch(name)]
    return [await world.foreign.get(name) for name in sorted(names)]


# -- keep -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True])
async def test_the_version_that_is_replaced_is_kept(keeping: World, known: bool) -> None:
    """A4: with `keep` the last commit has the name, and the version it replaced another one."""
    await keeping.write("f.txt", b"one")
    async with being_written(keeping, b"two"):
        await keeping.foreign.put("f.txt", b"theirs")
        if known:
            await keeping.settle()
    await keeping.settle()
    assert await keeping.foreign.get("f.txt") == b"two"
    assert await kept(keeping) == [b"theirs"]
    (path,) = [path for path in keeping.paths() if KEPT.fullmatch(path)]
    assert await keeping.read(path) == b"theirs"


async def test_a_version_that_was_seen_here_is_kept(keeping: World) -> None:
    """A4: the same for a file that was clean when the other version came."""
    await keeping.write("f.txt", b"one")
    async with keeping.opened("f.txt", os.O_RDWR) as handle:
        await keeping.foreign.put("f.txt", b"theirs")
        await keeping.settle()
        assert await keeping.read("f.txt") == b"theirs"
        await keeping.fs.files.write(handle, 0, b"two")
        await keeping.fs.files.fsync(handle)
    await keeping.settle()
    assert await keeping.read("f.txt") == b"two"
    assert await kept(keeping) == [b"theirs"]


async def test_every_version_that_is_replaced_is_kept(keeping: World) -> None:
    """A4: also when several come in, and in between the upload and its commit."""
    async with being_written(keeping, b"ours"):
        before_commits(keeping, lambda: keeping.foreign.put_now("f.txt", b"first"))
    async with being_written(keeping, b"ours again"):
        await keeping.foreign.put("f.txt", b"second")
    await keeping.settle()
    assert await keeping.foreign.get("f.txt") == b"ours again"
    assert sorted(await kept(keeping)) == [b"first", b"second"]


async def test_what_others_replaced_themselves_is_not_kept(keeping: World) -> None:
    """A4: what is kept is what the commit replaces, and not what was gone before."""
    versions = [b"3", b"2"]
    async with being_written(keeping, b"ours"):
        await keeping.foreign.put("f.txt", b"1")
        before_commits(keeping, lambda: keeping.foreign.put_now("f.txt", versions.pop()), times=2)
    await keeping.settle()
    assert await keeping.foreign.get("f.txt") == b"ours"
    assert await kept(keeping) == [b"3"]


async def test_a_version_with_everything_it_says(keeping: World) -> None:
    """A4, M6: what is kept is kept whole: its times, description and unknown fields."""
    await keeping.write("f.txt", b"one")
    info = await keeping.foreign.store.get_info("f.txt")
    async with being_written(keeping, b"two"):
        theirs = await keeping.foreign.put("f.txt", b"theirs")
        said = replace(theirs, description="said", metadata=info.metadata, extra={"x": 1})
        await keeping.foreign.store.commit([MetaWrite(said)])
    await keeping.settle()
    (name,) = [name for name in await keeping.foreign.names() if KEPT.fullmatch(name)]
    found = await keeping.foreign.store.get_info(name)
    assert (found.nuid, found.description, found.extra) == (theirs.nuid, "said", {"x": 1})
    assert found.metadata == info.metadata


@pytest.mark.parametrize("how", ["rewrite", "metadata", "delete", "rename over"])
async def test_what_is_no_conflict(keeping: World, how: str) -> None:
    """A4: a file that is written again, foreign metadata, a delete and a rename lose nothing."""
    await keeping.write("f.txt", b"one")
    if how == "rename over":
        handle = keeping.open("new", CREATE)
        await keeping.fs.files.write(handle, 0, b"two")
        await keeping.rename("new", "f.txt")
        await keeping.close(handle)
    else:
        async with being_written(keeping, b"two"):
            if how == "metadata":
                await keeping.foreign.store.update_meta("f.txt", description="said")
            elif how == "delete":
                await keeping.foreign.delete("f.txt")
    await keeping.settle()
    assert await keeping.foreign.names() == ["f.txt"]
    assert await keeping.foreign.get("f.txt") == b"two"


def test_names_of_what_is_kept() -> None:
    """A4: names fit in 255 bytes, keep the extension, are of whole characters, and are free."""
    at_ns = 1795630500 * 10**9
    ending = b".conflict-my_h_st-20261125T181500Z"

    def name(component: bytes, *taken: bytes) -> bytes:
        return kept_name(component, "my h/st", at_ns, lambda name: name in taken)

    assert name(b"f.txt") == b"f.txt" + ending
    assert name(b"f.txt", b"f.txt" + ending) == b"f.txt" + ending + b"-2"
    long = name("é".encode() * 125 + b".tgz")
    assert (len(long), long[-len(ending) - 4 :]) == (254, b".tgz" + ending)
    assert long.decode().startswith("é" * 100)
    assert len(name(b"x" * 255)) == len(name(b"." + b"x" * 254)) == 255
    assert len(kept_name(b"x" * 255, "h" * 300, at_ns, lambda name: False)) == 255


# -- fail -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["known", "unknown", "while it is uploaded"])
@pytest.mark.parametrize("first", ["close", "fsync"])
async def test_giving_way(failing: World, when: str, first: str) -> None:
    """A4: with `fail` the other version stays, and close and fsync are ESTALE, each time."""
    await failing.write("f.txt", b"one")
    handle = failing.open("f.txt", os.O_RDWR)
    await failing.fs.files.write(handle, 0, b"two")
    if when == "while it is uploaded":
        before_commits(failing, lambda: failing.foreign.put_now("f.txt", b"theirs"))
    else:
        await failing.foreign.put("f.txt", b"theirs")
    if when == "known":
        await failing.settle()
    with pytest.raises(ConflictError, match="3 bytes"):
        await (failing.fs.files.flush if first == "close" else failing.fs.files.fsync)(handle)
    assert await failing.read("f.txt") == b"theirs"
    assert failing.stat("f.txt").size == 6
    assert await failing.read_from(handle) == b"two"
    await failing.fs.files.write(handle, 3, b"more")
    assert await failing.read_from(handle) == b"twomore"
    with pytest.raises(ConflictKnown):
        await failing.close(handle)
    assert await failing.foreign.get("f.txt") == b"theirs"
    await failing.write("f.txt", b"three")
    assert await failing.foreign.get("f.txt") == b"three"


async def test_giving_way_to_who_was_read_here(failing: World) -> None:
    """A4: the same for a file that was clean when the other version came, and was seen here."""
    await failing.write("f.txt", b"one")
    handle = failing.open("f.txt", os.O_RDWR)
    await failing.foreign.put("f.txt", b"theirs")
    await failing.settle()
    async with failing.opened("f.txt") as reader:
        await failing.fs.files.write(handle, 0, b"two")
        with pytest.raises(ConflictError):
            await failing.close(handle)
        assert await failing.read_from(reader) == b"theirs"
        assert failing.leaf("f.txt") is reader.file.leaf


async def test_giving_way_of_a_truncation(failing: World) -> None:
    """A4: truncate(2) is a commit like any other."""
    await failing.write("f.txt", b"one")
    before_commits(failing, lambda: failing.foreign.put_now("f.txt", b"theirs"))
    with pytest.raises(ConflictError):
        await failing.truncate("f.txt", 1)
    assert await failing.read("f.txt") == b"theirs"


@pytest.mark.parametrize("known", [False, True])
async def test_metadata_is_merged(failing: World, known: bool) -> None:
    """M5, A4: a foreign change of metadata is no conflict, and the commit of bytes keeps it."""
    await failing.write("f.txt", b"one")
    async with being_written(failing, b"two", os.O_WRONLY):
        info = await failing.foreign.store.get_info("f.txt")
        theirs = {**info.metadata, "mode": "0100600", "uid": "7", "user.key": "value"}
        await failing.foreign.store.update_meta("f.txt", metadata=theirs)
        if known:
            await failing.settle()
            assert (failing.stat("f.txt").mode, failing.stat("f.txt").uid) == (0o100600, 7)
            assert failing.stat("f.txt").size == 3
        await failing.fs.changes.setattr(failing.leaf("f.txt"), AttributeChanges(gid=8), None)
    found = (await failing.foreign.store.get_info("f.txt")).metadata
    assert [found[key] for key in ("mode", "uid", "user.key")] == ["0100600", "7", "value"]
    assert failing.stat("f.txt").gid == 8
    assert failing.stat("f.txt").mode == 0o100600
    assert await failing.foreign.get("f.txt") == b"two"


# -- appending ------------------------------------------------------------------------------------

APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND


async def append(world: World, line: bytes, handle: FileHandle | None = None) -> None:
    """Add *line* to `f.txt`, by a handle that stays open or by one of its own."""
    if handle is not None:
        await world.fs.files.write(handle, handle.file.size, line)
        await world.fs.files.fsync(handle)
        return
    async with world.opened("f.txt", APPEND) as own:
        await world.fs.files.write(own, own.file.size, line)


@pytest.mark.parametrize("policy", list(ConflictPolicy))
@pytest.mark.parametrize("when", ["known", "unknown", "while it is uploaded"])
@pytest.mark.parametrize("base", [b"", b"base\n"])
async def test_appending_to_what_others_wrote(
    tmp_path: Path, policy: ConflictPolicy, when: str, base: bytes
) -> None:
    """A4: what is appended goes behind what came in between, whatever the option says."""
    async with mounted(tmp_path, conflict=policy) as world:
        if base:
            await world.write("f.txt", base)
        reader = world.open("f.txt", APPEND)
        async with world.opened("f.txt", APPEND) as handle:
            await world.fs.files.write(handle, len(base), b"ours\n")
            if when == "while it is uploaded":
                before_commits(world, lambda: world.foreign.put_now("f.txt", base + b"theirs\n"))
            else:
                await world.foreign.put("f.txt", base + b"theirs\n")
            if when == "known":
                await world.settle()
        merged = base + b"theirs\nours\n"
        assert await world.foreign.get("f.txt") == merged
        assert await world.read("f.txt") == await world.read_from(reader) == merged
        assert world.stat("f.txt").size == len(merged)
        await world.close(reader)
        await world.settle()
        assert await world.foreign.names() == ["f.txt"]


async def test_appending_by_a_handle_that_stays_open(world: World) -> None:
    """A4: each fsync merges again, with a version that is longer, shorter, or another file."""
    handle = world.open("f.txt", APPEND)
    await append(world, b"1", handle)
    for number, theirs in enumerate([b"1a", b"", b"rotated"]):
        await world.foreign.put("f.txt", theirs)
        if number % 2:
            await world.settle()
        await append(world, b"-", handle)
        await append(world, b"+", handle)
        assert await world.foreign.get("f.txt") == theirs + b"-+"
        assert await world.read_from(handle) == theirs + b"-+"
    await world.close(handle)


async def test_appending_much(world: World) -> None:
    """A4: more than fits in a piece goes along, with what programs append meanwhile."""
    async with world.opened("f.txt", APPEND) as handle:
        written = [os.urandom(700_000) for _ in range(4)]
        for data in written:
            await world.fs.files.write(handle, handle.file.size, data)

        async with trio.open_nursery() as nursery:

            def act() -> None:
                world.foreign.put_now("f.txt", b"theirs")
                written.append(b"late")
                write = world.fs.files.write
                nursery.start_soon(write, handle, handle.file.size, b"late")

            before_commits(world, act)
            await world.fs.files.fsync(handle)
        assert (await world.foreign.get("f.txt")).startswith(b"theirs" + written[0])
        assert await world.read_from(handle) == b"theirs" + b"".join(written)
    assert await world.foreign.get("f.txt") == b"theirs" + b"".join(written)


@pytest.mark.parametrize("other", ["write", "truncate"])
async def test_what_was_not_only_appended(keeping: World, other: str) -> None:
    """A4: appending and anything else is a conflict as any other; a commit ends that."""
    await keeping.write("f.txt", b"one")
    handle = keeping.open("f.txt", APPEND)
    second = keeping.open("f.txt", os.O_RDWR)
    await keeping.fs.files.write(handle, 3, b"+")
    if other == "write":
        await keeping.fs.files.write(second, 0, b"ONE")
    else:
        await keeping.fs.files.truncate(keeping.leaf("f.txt"), 0, second)
    await keeping.foreign.put("f.txt", b"theirs")
    await keeping.fs.files.fsync(handle)
    assert await kept(keeping) == [b"theirs"]
    assert await keeping.foreign.get("f.txt") == (b"ONE+" if other == "write" else b"")
    await keeping.foreign.put("f.txt", b"later")
    await append(keeping, b"!", handle)
    assert await keeping.foreign.get("f.txt") == b"later!"
    await keeping.close(handle)
    await keeping.close(second)
    await keeping.settle()


async def test_a_file_that_was_only_created(world: World) -> None:
    """A4: a touch does not empty the file that another client stored at the same moment."""
    async with world.opened("f.txt", os.O_WRONLY | os.O_CREAT):
        theirs = await world.foreign.put("f.txt", b"theirs")
    found = await world.foreign.store.get_info("f.txt")
    assert (found.nuid, found.size) == (theirs.nuid, 6)
    assert world.stat("f.txt").size == 6


async def test_appending_by_many_mounts(world: World, tmp_path: Path) -> None:
    """A4: lines appended by several mounts at once are all there, once each and whole."""
    mounts, rounds = 4, 12
    async with AsyncExitStack() as stack:
        others = [
            mounted(tmp_path / str(number), store=world.store, manager=world.manager)
            for number in range(1, mounts)
        ]
        worlds = [world, *[await stack.enter_async_context(other) for other in others]]

        async def work(number: int, own: World) -> None:
            handle = own.open("f.txt", APPEND) if number % 2 else None
            for line in range(rounds):
                await append(own, b"%d %d\n" % (number, line), handle)
            if handle is not None:
                await own.close(handle)

        async with trio.open_nursery() as nursery:
            for number, own in enumerate(worlds):
                nursery.start_soon(work, number, own)
        lines = (await world.foreign.get("f.txt")).splitlines()
        assert sorted(lines) == sorted(
            b"%d %d" % (number, line) for number in range(mounts) for line in range(rounds)
        )
        await world.settle()


# -- contention -----------------------------------------------------------------------------------


async def test_losing_for_long_with_patience(world: World) -> None:
    """A5: with `-o hard` the end of the time-out is no reason to give up what a lost answer, or
    another client, has delayed."""
    world.manager.timeout, world.manager.patient = 0.05, True
    begin = trio.current_time()
    async with being_written(world, b"one"):
        before_commits(world, lambda: world.foreign.put_now("f.txt", b"theirs"), times=20)
        await world.fs.files.fsync(world.leaf("f.txt").file.handles.copy().pop())
    assert trio.current_time() - begin > world.manager.timeout
    assert await world.foreign.get("f.txt") == b"one"


async def test_losing_for_ever(world: World) -> None:
    """A4, E: a commit that somebody is always faster than ends with the time-out of a request."""
    world.manager.timeout = 0.05
    async with being_written(world, b"one"):
        before_commits(world, lambda: world.foreign.put_now("f.txt", b"theirs"), times=10**6)
        with pytest.raises(RequestTimeout, match="changed by others"):
            await world.fs.files.fsync(world.leaf("f.txt").file.handles.copy().pop())
        before_commits(world, lambda: None)
    assert await world.foreign.get("f.txt") == b"one"
