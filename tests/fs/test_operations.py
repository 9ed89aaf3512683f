"""The kernel's side without a kernel: errnos, time-outs, inode numbers, cookies."""

from __future__ import annotations

import errno
import logging
import os
from types import SimpleNamespace
from typing import Any, cast

import pyfuse3
import pytest
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, FUSEError, InodeT, ModeT, RequestContext

from natsfs.errors import ConnectionLost, ExistsError, NatsfsError, NoSpaceError, StaleVersion
from natsfs.metrics import Metrics
from natsfs.operations.boundary import answers
from natsfs.operations.encoding import KEPT
from natsfs.operations.handlers import Operations
from natsfs.operations.reserve import Reserve
from natsfs.tree.inodes import ROOT_INO
from natsfs.tree.nodes import Node
from tests.fs.world import World

ROOT = InodeT(ROOT_INO)
CONTEXT = cast(RequestContext, SimpleNamespace(uid=1000, gid=1000, pid=1, umask=0o022))


def operations(world: World) -> Operations:
    """The handlers of *world*."""
    return Operations(world.fs, Metrics(), Reserve(lambda: None), on_init=lambda: None)


def errno_of(error: pytest.ExceptionInfo[FUSEError]) -> int:
    """What the kernel is told."""
    return error.value.errno


# -- the boundary ---------------------------------------------------------------------------------


def subclasses(kind: type[NatsfsError]) -> list[type[NatsfsError]]:
    """Every class below *kind*."""
    direct = kind.__subclasses__()
    return [*direct, *(below for one in direct for below in subclasses(one))]


class Handlers:
    """What has handlers."""

    def __init__(self) -> None:
        self.metrics = Metrics()


@pytest.mark.parametrize("kind", subclasses(NatsfsError), ids=lambda kind: kind.__name__)
async def test_errors_become_their_errno(
    kind: type[NatsfsError], caplog: pytest.LogCaptureFixture
) -> None:
    """E: each error has its errno and its level in the log, on one line."""
    error = kind.__new__(kind)
    Exception.__init__(error, "the reason")

    handlers = Handlers()

    @answers
    async def handler(self: Handlers) -> None:
        raise error

    caplog.set_level(logging.DEBUG)
    # The guard on the log would take the messages that this test is about for surprises.
    caplog.handler.setLevel(logging.DEBUG)
    logger = logging.getLogger("natsfs.operations.boundary")
    logger.propagate, kept = False, logger.propagate
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(FUSEError) as caught:
            await handler(handlers)
    finally:
        logger.removeHandler(caplog.handler)
        logger.propagate = kept
    assert errno_of(caught) == kind.errno
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (kind.level, None)
    assert record.getMessage() == "handler: the reason"
    counted = handlers.metrics.operations()["handler"]
    assert (counted["counts"][-1], counted["failures"]) == (1, 1)
    assert handlers.metrics.troubles == (kind.level >= logging.WARNING)


@pytest.mark.expects_log("handler failed in a way that natsfs does not know")
@pytest.mark.parametrize(
    "error", [KeyError("x"), AssertionError(), ExceptionGroup("g", [OSError()])]
)
async def test_unforeseen_errors(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """E: anything unforeseen is EIO with a traceback, and the mount lives on."""

    handlers = Handlers()

    @answers
    async def handler(self: Handlers) -> None:
        raise error

    with pytest.raises(FUSEError) as caught:
        await handler(handlers)
    assert errno_of(caught) == errno.EIO
    assert caplog.records[0].exc_info is not None
    assert handlers.metrics.troubles == 1


async def test_fuse_errors_and_cancellation_pass() -> None:
    """E: an errno that a handler chose stays, and cancellation means that the mount ends."""

    @answers
    async def refuses(self: Handlers) -> None:
        raise FUSEError(errno.EPERM)

    @answers
    async def waits(self: Handlers) -> None:
        await trio.sleep_forever()

    with pytest.raises(FUSEError) as caught:
        await refuses(Handlers())
    assert errno_of(caught) == errno.EPERM
    with trio.move_on_after(0) as scope:
        await waits(Handlers())
    assert scope.cancelled_caught


# -- what the kernel may keep ---------------------------------------------------------------------


async def test_timeouts(world: World) -> None:
    """A1, A5: answers are kept for as long as the watch is live, negative ones included; a ctime
    that is not the server's is not."""
    ops = operations(world)
    await world.write("f", b"data")
    found = await ops.lookup(ROOT, FileNameT(b"f"), CONTEXT)
    assert (found.entry_timeout, found.attr_timeout) == (KEPT, 0)
    await world.settle()
    found = await ops.lookup(ROOT, FileNameT(b"f"), CONTEXT)
    assert (found.entry_timeout, found.attr_timeout) == (KEPT, KEPT)
    absent = await ops.lookup(ROOT, FileNameT(b"none"), CONTEXT)
    assert (absent.st_ino, absent.entry_timeout) == (0, KEPT)
    world.fs.mounted.live = False
    found = await ops.lookup(ROOT, FileNameT(b"f"), CONTEXT)
    assert (found.entry_timeout, found.attr_timeout) == (0, 0)
    absent = await ops.lookup(ROOT, FileNameT(b"none"), CONTEXT)
    assert (absent.st_ino, absent.entry_timeout) == (0, 0)
    await ops.forget([(found.st_ino, 3)])
    assert len(world.fs.mounted.inodes) == 1


@pytest.mark.expects_log("inode 2 is not known")
async def test_attributes(world: World) -> None:
    """M7: blocks, block size, links and type are what stat(1) is to show."""
    ops = operations(world)
    await world.write("f", bytes(1025))
    await world.mkdir("d")
    await world.mkdir("d/e")
    found = await ops.lookup(ROOT, FileNameT(b"f"), CONTEXT)
    assert (found.st_mode, found.st_nlink, found.st_size) == (0o100644, 1, 1025)
    assert (found.st_blocks, found.st_blksize) == (3, 131072)
    again = await ops.getattr(found.st_ino, CONTEXT)
    assert (again.st_ino, again.st_mtime_ns) == (found.st_ino, found.st_mtime_ns)
    above = await ops.lookup(ROOT, FileNameT(b"d"), CONTEXT)
    assert above.st_nlink == 3
    dot = await ops.lookup(above.st_ino, FileNameT(b".."), CONTEXT)
    assert dot.st_ino == ROOT
    await ops.forget([(found.st_ino, 1), (above.st_ino, 1), (ROOT, 1)])
    assert len(world.fs.mounted.inodes) == 1
    with pytest.raises(FUSEError) as caught:
        await ops.getattr(found.st_ino, CONTEXT)
    assert errno_of(caught) == errno.ESTALE


async def test_inode_survives_rename_and_unlink(world: World) -> None:
    """M7: a number stays with its file for as long as the kernel knows it."""
    ops = operations(world)
    await world.write("f", b"data")
    ino = (await ops.lookup(ROOT, FileNameT(b"f"), CONTEXT)).st_ino
    await ops.rename(ROOT, FileNameT(b"f"), ROOT, FileNameT(b"g"), FlagT(0), CONTEXT)
    assert (await ops.lookup(ROOT, FileNameT(b"g"), CONTEXT)).st_ino == ino
    await ops.unlink(ROOT, FileNameT(b"g"), CONTEXT)
    gone = await ops.getattr(ino, CONTEXT)
    assert (gone.st_nlink, gone.st_size) == (0, 4)
    await world.write("g", b"other")
    other = (await ops.lookup(ROOT, FileNameT(b"g"), CONTEXT)).st_ino
    assert other != ino
    await ops.forget([(ino, 2), (other, 1)])


async def test_keep_cache(world: World) -> None:
    """A1: the kernel keeps pages exactly when the version is the one last opened."""
    ops = operations(world)
    await world.write("f", b"data")
    ino = (await ops.lookup(ROOT, FileNameT(b"f"), CONTEXT)).st_ino

    async def opened() -> bool:
        info = await ops.open(ino, FlagT(os.O_RDONLY), CONTEXT)
        await ops.flush(info.fh)
        await ops.release(info.fh)
        return bool(info.keep_cache)

    await opened()
    assert await opened()
    await world.foreign.put("f", b"other")
    await world.settle()
    assert not await opened()
    assert await opened()
    await ops.forget([(ino, 1)])


async def test_create(world: World) -> None:
    """A3, W2: create makes a file, honours O_EXCL, and opens what somebody else just made."""
    ops = operations(world)
    flags = FlagT(os.O_CREAT | os.O_EXCL | os.O_RDWR)
    name = FileNameT(b"f")
    info, entry = await ops.create(ROOT, name, ModeT(0o100640), flags, CONTEXT)
    assert entry.st_mode == 0o100640
    assert await ops.write(info.fh, 0, b"data") == 4
    assert await ops.read(info.fh, 1, 10) == b"ata"
    with pytest.raises(FUSEError) as caught:
        await ops.create(ROOT, name, ModeT(0o100640), flags, CONTEXT)
    assert errno_of(caught) == errno.EEXIST
    second, same = await ops.create(ROOT, name, ModeT(0o100640), FlagT(os.O_RDWR), CONTEXT)
    assert same.st_ino == entry.st_ino
    for fh in (info.fh, second.fh):
        await ops.flush(fh)
        await ops.release(fh)
    assert await world.foreign.get("f") == b"data"
    await ops.forget([(entry.st_ino, 2)])


async def test_failed_flush(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """W1: close returns the errno when nothing was acknowledged."""
    ops = operations(world)
    name, mode = FileNameT(b"f"), ModeT(0o100640)
    info, entry = await ops.create(ROOT, name, mode, FlagT(os.O_RDWR), CONTEXT)
    world.manager.fail = lambda operation, name: (
        ExistsError("stands for any error at DEBUG") if operation == "upload" else None
    )
    with pytest.raises(FUSEError) as caught:
        await ops.flush(info.fh)
    assert errno_of(caught) == errno.EEXIST
    world.manager.fail = lambda operation, name: None
    await ops.release(info.fh)
    with pytest.raises(FUSEError) as caught:
        await ops.read(info.fh, 0, 1)
    assert errno_of(caught) == errno.EBADF
    await world.settle()
    assert await world.foreign.names() == ["f"]
    await ops.forget([(entry.st_ino, 1)])


# -- directories ----------------------------------------------------------------------------------


class Listing:
    """A kernel that reads a directory in buffers of a few entries."""

    def __init__(self, ops: Operations, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self._ops = ops
        self._room = room
        self._buffer: list[tuple[bytes, int, int]] = []
        monkeypatch.setattr(pyfuse3, "readdir_reply", self._reply)

    def _reply(self, token: Any, name: bytes, entry: Any, cookie: int) -> bool:
        if len(self._buffer) == self._room:
            return False
        self._buffer.append((name, entry.st_ino, cookie))
        return True

    async def read(self, fh: FileHandleT, start: int) -> list[tuple[bytes, int, int]]:
        """One buffer: names, inode numbers, cookies."""
        self._buffer = []
        await self._ops.readdir(fh, start, cast(Any, None))
        return self._buffer

    async def rest(self, fh: FileHandleT, start: int) -> list[tuple[bytes, int, int]]:
        """All buffers from *start* on."""
        found: list[tuple[bytes, int, int]] = []
        while part := await self.read(fh, start):
            found += part
            start = part[-1][2]
        return found


@pytest.mark.parametrize("room", [1, 3, 7])
async def test_cookies(world: World, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """R6: a directory that is read in pieces shows each entry that stays exactly once, while
    others come and go; each that is told is a reference of the kernel."""
    for number in range(10):
        await world.write(f"f{number}", b"")
    ops = operations(world)
    listing = Listing(ops, monkeypatch, room)
    fh = await ops.opendir(ROOT, CONTEXT)
    seen = await listing.read(fh, 0)
    await world.unlink("f9")
    await world.write("new", b"")
    await world.rename("f8", "f88")
    seen += await listing.rest(fh, seen[-1][2])
    names = [name for name, _, _ in seen]
    assert len(set(names)) == len(names)
    assert {b".", b"..", *(b"f%d" % number for number in range(8))} <= set(names)
    assert b"f9" not in names
    again = [name for name, _, _ in await listing.rest(fh, 0)]
    assert {b"new", b"f88"} <= set(again)
    lookups = {name: lookups_of(world, name) for name in again if name not in (b".", b"..")}
    assert lookups[b"f0"] == 2
    assert lookups[b"new"] == 1
    await ops.releasedir(fh)
    forget_all(world)


async def test_entry_that_found_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """M7: an entry that did not fit into the buffer is no reference."""
    await world.write("f", b"")
    ops = operations(world)
    listing = Listing(ops, monkeypatch, 2)
    fh = await ops.opendir(ROOT, CONTEXT)
    assert [name for name, _, _ in await listing.read(fh, 0)] == [b".", b".."]
    assert lookups_of(world, b"f") == 0
    await ops.releasedir(fh)


async def test_directory_handles(world: World) -> None:
    """R6: opendir of a file is ENOTDIR, a file's handle is no directory's."""
    ops = operations(world)
    await world.write("f", b"")
    ino = (await ops.lookup(ROOT, FileNameT(b"f"), CONTEXT)).st_ino
    with pytest.raises(FUSEError) as caught:
        await ops.opendir(ino, CONTEXT)
    assert errno_of(caught) == errno.ENOTDIR
    fh = await ops.opendir(ROOT, CONTEXT)
    with pytest.raises(FUSEError) as caught:
        await ops.read(fh, 0, 1)
    assert errno_of(caught) == errno.EBADF
    await ops.releasedir(fh)
    await ops.forget([(ino, 1)])


async def test_statfs(world: World) -> None:
    """M8: numbers of blocks, files and name lengths."""
    await world.write("f", b"")
    data = await operations(world).statfs(CONTEXT)
    assert data.f_namemax == 255
    assert data.f_files - data.f_ffree == 1
    assert data.f_bfree <= data.f_blocks


def lookups_of(world: World, name: bytes) -> int:
    """How many references the kernel has."""
    return world.root.children[name].lookups


def forget_all(world: World) -> None:
    """The kernel drops everything."""
    inodes = world.fs.mounted.inodes
    for ino, node in list(inodes._nodes.items()):
        assert isinstance(node, Node)
        inodes.forget(ino, node.lookups)


def test_errnos_of_the_table() -> None:
    """E: the table of semantics.md."""
    assert StaleVersion.errno == errno.ESTALE
    assert NoSpaceError.errno == errno.ENOSPC
    assert ConnectionLost.errno == errno.EIO
