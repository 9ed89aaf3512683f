"""A mount of all buckets without a kernel: when buckets wake, and what fails in one of them."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing
from pyfuse3 import FileNameT, FlagT, FUSEError, InodeT, ModeT, RequestContext

import natsfs.buckets.bucket
from natsfs.buckets import AllBuckets
from natsfs.config import CacheConfig, MountConfig, ServerConfig, TreeConfig
from natsfs.data.cache import BlockCache
from natsfs.errors import ConnectionLost, NatsfsError, PermissionsError
from natsfs.filesystem.times import Times
from natsfs.metrics import Metrics
from natsfs.mount.build import build
from natsfs.mount.ending import Ending
from natsfs.operations.encoding import KEPT
from natsfs.operations.handlers import Operations
from natsfs.operations.reserve import Reserve
from natsfs.store.memory import MemoryManager, MemoryStore
from natsfs.store.memory_stream import Publish
from natsfs.store.model import BucketConfig, Link, ObjectMeta
from natsfs.store.session import Session
from natsfs.tree.inodes import ROOT_INO, slot_of
from tests.fs.world import DEADLINE, in_pieces

ROOT = InodeT(ROOT_INO)
CONTEXT = cast(RequestContext, SimpleNamespace(uid=1000, gid=1000, pid=1, umask=0o022))

#: What a store is asked for: the name of the primitive, and of the bucket or object.
Asked = list[tuple[str, str]]


@dataclass
class All:
    """A mount of all buckets and what happens behind it.  *asked* is what the store was asked."""

    manager: MemoryManager
    served: AllBuckets
    operations: Operations
    asked: Asked

    async def inode(self, path: str) -> InodeT:
        """The number of what has this path, as the kernel would walk to it."""
        inode = ROOT
        for part in filter(None, path.split("/")):
            entry = await self.operations.lookup(inode, FileNameT(part.encode()), CONTEXT)
            if not entry.st_ino:
                raise FUSEError(errno.ENOENT)
            inode = entry.st_ino
        return inode

    async def enter(self, path: str) -> None:
        """Open a directory and close it again."""
        handle = await self.operations.opendir(await self.inode(path), CONTEXT)
        await self.operations.releasedir(handle)

    async def gone(self, path: str) -> None:
        """Wait until there is nothing of this path."""
        with trio.fail_after(DEADLINE):
            while await self.error(self.inode, path) != errno.ENOENT:
                await trio.lowlevel.checkpoint()

    async def there(self, path: str) -> None:
        """Wait until there is something of this path."""
        with trio.fail_after(DEADLINE):
            while await self.error(self.inode, path):
                await trio.lowlevel.checkpoint()

    async def error(self, call: Callable[..., object], *arguments: object) -> int:
        """The errno that a handler answers; 0 for none."""
        try:
            await call(*arguments)  # type: ignore[misc]
        except FUSEError as error:
            return int(error.errno)
        return 0

    def refuse(self, bucket: str, error: Callable[[], Exception]) -> None:
        """Let every question about *bucket* fail; nothing else does."""

        def fail(operation: str, name: str) -> Exception | None:
            self.asked.append((operation, name))
            return error() if name == bucket and operation != "bind" else None

        self.manager.fail = fail


async def bucket_with(manager: MemoryManager, bucket: str, *names: str) -> MemoryStore:
    """A new bucket with objects of these names."""
    store = await manager.create(BucketConfig(bucket))
    for name in names:
        await store.put(name, in_pieces(b"data"), ObjectMeta())
    return store


@asynccontextmanager
async def all_of(
    manager: MemoryManager, directory: Path, *, timeout: float = 20.0
) -> AsyncIterator[All]:
    """All buckets of *manager*, mounted."""
    asked: Asked = []

    def note(operation: str, name: str) -> None:
        asked.append((operation, name))

    manager.fail = note
    config = MountConfig(
        server=ServerConfig(timeout=timeout),
        bucket="",
        directory=Path("/mnt"),
        cache=CacheConfig(directory / "cache", 10**8, 0.0),
        tree=TreeConfig(uid=1000, gid=1000),
        purge_delay=0.0,
    )
    async with trio.open_nursery() as nursery:
        served = await build(manager, config, nursery, BlockCache(config.cache), Metrics())
        assert isinstance(served, AllBuckets)
        yield All(
            manager,
            served,
            Operations(served, Metrics(), Reserve(lambda: None), on_init=lambda: None),
            asked,
        )
        nursery.cancel_scope.cancel()


# -- asleep and awake -----------------------------------------------------------------------------


async def test_buckets_sleep(tmp_path: Path) -> None:
    """B1: mounting and looking at buckets follows none of them; looking into one follows it, and
    no other."""
    manager = MemoryManager()
    for number in range(50):
        await bucket_with(manager, f"b{number}", "f")
    async with all_of(manager, tmp_path) as mount:
        assert {operation for operation, _ in mount.asked} <= {"list", "account"}
        for number in range(50):
            inode = await mount.inode(f"b{number}")
            entry = await mount.operations.getattr(inode, CONTEXT)
            assert (entry.st_ino, entry.attr_timeout) == (inode, 0)
        assert {operation for operation, _ in mount.asked} <= {"list", "account", "get_info"}
        assert mount.served.running() == {}
        await mount.inode("b7/f")
        assert list(mount.served.running()) == ["b7"]
        entry = await mount.operations.getattr(await mount.inode("b7"), CONTEXT)
        assert entry.attr_timeout == KEPT


async def test_a_bucket_wakes_once(tmp_path: Path) -> None:
    """B1: however many programs enter a bucket at once, it is loaded once."""
    manager = MemoryManager()
    await bucket_with(manager, "b", "f")
    async with all_of(manager, tmp_path) as mount:
        inode = await mount.inode("b")
        manager.delay = 0.01
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(mount.enter, "b")
        assert [operation for operation, _ in mount.asked].count("watch") == 1
        assert await mount.inode("b") == inode
        file = await mount.inode("b/f")
        assert slot_of(file) == slot_of(inode) > 0


async def test_without_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A5: without the server, a bucket that sleeps has the attributes that it had last."""
    monkeypatch.setattr(natsfs.buckets.bucket, "GLIMPSE_AGE", -1.0)
    monkeypatch.setattr(natsfs.buckets.bucket, "GLIMPSE_PATIENCE", 0.05)
    manager = MemoryManager()
    await bucket_with(manager, "b", "./")
    async with all_of(manager, tmp_path) as mount:
        before = await mount.operations.getattr(await mount.inode("b"), CONTEXT)
        manager.delay = 1000.0
        after = await mount.operations.getattr(before.st_ino, CONTEXT)
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
        manager.delay = 0.0
        mount.refuse("./", lambda: ConnectionLost("away"))
        assert await mount.inode("b") == before.st_ino


async def test_forgetting(tmp_path: Path) -> None:
    """M7: what the kernel forgets is forgotten by the bucket that it is in; roots stay."""
    manager = MemoryManager()
    await bucket_with(manager, "b", "f")
    async with all_of(manager, tmp_path) as mount:
        root, file = await mount.inode("b"), await mount.inode("b/f")
        inodes = mount.served.running()["b"].mounted.inodes
        assert len(inodes) == 2
        await mount.operations.forget([(root, 5), (file, 1), (ROOT, 1), (InodeT(99 << 40), 1)])
        assert len(inodes) == 1
        assert (await mount.operations.getattr(root, CONTEXT)).st_ino == root
        assert (await mount.operations.getattr(ROOT, CONTEXT)).st_ino == ROOT


# -- trouble --------------------------------------------------------------------------------------


@pytest.mark.expects_log("is not loaded within")
async def test_slow_loading(tmp_path: Path) -> None:
    """B1: while one bucket loads, the others are used; who waits for it gets EIO in time, and it is
    there once it is loaded."""
    manager = MemoryManager()
    await bucket_with(manager, "slow", "f")
    await bucket_with(manager, "b", "f")
    async with all_of(manager, tmp_path, timeout=0.05) as mount:
        inode = await mount.inode("slow")
        await mount.enter("b")
        manager.delay = 0.2
        assert await mount.error(mount.operations.opendir, inode, CONTEXT) == errno.EIO
        await mount.inode("b/f")
        await mount.there("slow/f")
        assert [operation for operation, _ in mount.asked].count("watch") == 2


async def test_slow_loading_with_patience(tmp_path: Path) -> None:
    """A5: with `-o hard` a program waits until the bucket is loaded."""
    manager = MemoryManager()
    manager.patient = True
    await bucket_with(manager, "slow", "f")
    async with all_of(manager, tmp_path, timeout=0.05) as mount:
        inode = await mount.inode("slow")
        manager.delay = 0.2
        assert await mount.error(mount.operations.opendir, inode, CONTEXT) == 0


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (lambda: PermissionsError("may not"), errno.EACCES),
        pytest.param(
            lambda: NatsfsError("cannot"), errno.EIO, marks=pytest.mark.expects_log("cannot")
        ),
    ],
)
async def test_a_bucket_that_fails(
    tmp_path: Path, error: Callable[[], Exception], number: int
) -> None:
    """B1: a bucket that cannot be loaded is shown, refused at once, and tried again when somebody
    asks; the others are used."""
    manager = MemoryManager()
    bad, good = await bucket_with(manager, "bad", "f"), await bucket_with(manager, "good", "f")
    async with all_of(manager, tmp_path) as mount:
        inode = await mount.inode("bad")
        mount.refuse(bad.bucket, error)
        for _ in range(2):
            assert await mount.error(mount.operations.opendir, inode, CONTEXT) == number
        await mount.inode(f"{good.bucket}/f")
        manager.fail = lambda operation, name: None
        await mount.inode("bad/f")
        assert set(mount.served.running()) == {"bad", "good"}


@pytest.mark.expects_log("bucket bad cannot be shown any more")
async def test_an_unforeseen_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E: an error that nobody foresaw ends one bucket; it starts anew under other numbers."""
    manager = MemoryManager()
    await bucket_with(manager, "bad", "f")
    await bucket_with(manager, "good", "f")
    fall = trio.Event()

    async def run(self: Times) -> None:
        await fall.wait()
        if self._m.store.bucket == "bad":
            raise KeyError("unforeseen")
        await trio.sleep_forever()

    async with all_of(manager, tmp_path) as mount:
        monkeypatch.setattr(Times, "run", run)
        before, good = await mount.inode("bad/f"), await mount.inode("good/f")
        fall.set()
        with trio.fail_after(DEADLINE):
            while "bad" in mount.served.running():
                await trio.lowlevel.checkpoint()
        assert await mount.error(mount.operations.getattr, before, CONTEXT) == errno.ESTALE
        monkeypatch.undo()
        after = await mount.inode("bad/f")
        assert slot_of(after) != slot_of(before)
        assert await mount.inode("good/f") == good


@pytest.mark.expects_log("an object cannot be shown")
async def test_malformed_metas(tmp_path: Path) -> None:
    """B1: what cannot be understood in one bucket is left out there; rmdir takes it for content."""
    manager = MemoryManager()
    store = await bucket_with(manager, "bad", "f")
    subject = f"$O.{store.bucket}.M.x"
    await bucket_with(manager, "good", "f")
    async with all_of(manager, tmp_path) as mount:
        store.stream.publish(Publish(subject, b"{"))
        await mount.inode("bad/f")
        await mount.inode("good/f")
        await mount.operations.unlink(await mount.inode("bad"), FileNameT(b"f"), CONTEXT)
        rmdir = mount.operations.rmdir
        assert await mount.error(rmdir, ROOT, FileNameT(b"bad"), CONTEXT) == errno.ENOTEMPTY


# -- coming and going -----------------------------------------------------------------------------


async def test_deleted_and_made_again(tmp_path: Path) -> None:
    """A6: what was in a bucket that is gone is ESTALE, also when there is another of its name."""
    manager = MemoryManager()
    await bucket_with(manager, "b", "f")
    async with all_of(manager, tmp_path) as mount:
        before, file = await mount.inode("b"), await mount.inode("b/f")
        opened = await mount.operations.open(file, FlagT(os.O_RDONLY), CONTEXT)
        await manager.delete("b")
        await bucket_with(manager, "b", "g")
        await mount.there("b/g")
        after = await mount.inode("b")
        assert slot_of(after) != slot_of(before)
        for inode in (before, file):
            assert await mount.error(mount.operations.getattr, inode, CONTEXT) == errno.ESTALE
        assert await mount.error(mount.operations.opendir, before, CONTEXT) == errno.ESTALE
        assert await mount.error(mount.operations.read, opened.fh, 0, 1) == errno.ESTALE
        assert await mount.error(mount.operations.release, opened.fh) == errno.ESTALE
        await mount.operations.forget([(before, 1), (file, 1)])
        await mount.gone("b/f")


async def test_nobody_tells(tmp_path: Path) -> None:
    """B1: a bucket that is gone, which nobody told of yet, is noticed by who enters it and by who
    follows it, and one that is new by who tries to make it."""
    manager = MemoryManager()
    await bucket_with(manager, "asleep", "f")
    await bucket_with(manager, "awake", "f")
    async with all_of(manager, tmp_path) as mount:
        await mount.inode("awake/f")
        asleep = await mount.inode("asleep")
        manager._watchers.clear()
        await manager.delete("asleep")
        await manager.delete("awake")
        assert await mount.error(mount.operations.opendir, asleep, CONTEXT) == errno.ESTALE
        await mount.gone("asleep")
        await mount.gone("awake")
        await manager.create(BucketConfig("new"))
        assert await mount.error(mount.inode, "new") == errno.ENOENT
        mkdir, name = mount.operations.mkdir, FileNameT(b"new")
        assert await mount.error(mkdir, ROOT, name, ModeT(0o755), CONTEXT) == errno.EEXIST
        await mount.there("new")


async def test_one_mkdir_of_many(tmp_path: Path) -> None:
    """A3: of many that make the same bucket at once, on this mount and elsewhere, one succeeds."""
    manager = MemoryManager()
    async with all_of(manager, tmp_path) as mount:
        manager.delay = 0.01
        results: list[int] = []

        async def compete() -> None:
            name = FileNameT(b"b")
            mkdir = mount.operations.mkdir
            results.append(await mount.error(mkdir, ROOT, name, ModeT(0o755), CONTEXT))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(compete)
        assert sorted(results) == [0] + [errno.EEXIST] * 4
        await mount.operations.rmdir(ROOT, FileNameT(b"b"), CONTEXT)
        await mount.gone("b")
        await manager.create(BucketConfig("b"))
        mkdir = mount.operations.mkdir
        name = FileNameT(b"b")
        assert await mount.error(mkdir, ROOT, name, ModeT(0o755), CONTEXT) == errno.EEXIST
        await mount.there("b")


async def test_own_changes_come_back(tmp_path: Path) -> None:
    """B2: what the watch tells of this mount's own changes changes nothing."""
    manager = MemoryManager()
    async with all_of(manager, tmp_path) as mount:
        mkdir, rmdir, name = mount.operations.mkdir, mount.operations.rmdir, FileNameT(b"b")
        for _ in range(3):
            made = await mkdir(ROOT, name, ModeT(0o755), CONTEXT)
            await mount.enter("b")
            await trio.testing.wait_all_tasks_blocked()
            assert await mount.inode("b") == made.st_ino
            await rmdir(ROOT, name, CONTEXT)
            await mkdir(ROOT, name, ModeT(0o755), CONTEXT)
            await trio.testing.wait_all_tasks_blocked()
            await mount.inode("b")
            await rmdir(ROOT, name, CONTEXT)
            await trio.testing.wait_all_tasks_blocked()
            await mount.gone("b")


# -- between buckets, and the end -----------------------------------------------------------------


async def test_links_into_what_cannot_be_read(tmp_path: Path) -> None:
    """K5: a symbolic link into a bucket that cannot be loaded is kept as a text."""
    manager = MemoryManager()
    store = await bucket_with(manager, "one")
    await bucket_with(manager, "shut", "f")
    async with all_of(manager, tmp_path) as mount:
        one = await mount.inode("one")
        mount.refuse("shut", lambda: PermissionsError("may not"))
        target = FileNameT(b"../shut/f")
        link = await mount.operations.symlink(one, FileNameT(b"l"), target, CONTEXT)
        assert await mount.operations.readlink(link.st_ino, CONTEXT) == target
        assert (await store.get_info("l")).link is None
        target = FileNameT(b"../shut")
        await mount.operations.symlink(one, FileNameT(b"b"), target, CONTEXT)
        assert (await store.get_info("b")).link == Link("shut")


async def test_the_way_up(tmp_path: Path) -> None:
    """M7: `..` in a bucket's directory is the top."""
    manager = MemoryManager()
    await bucket_with(manager, "b", "d/f")
    async with all_of(manager, tmp_path) as mount:
        bucket, up = await mount.inode("b"), FileNameT(b"..")
        directory = await mount.inode("b/d")
        assert (await mount.operations.lookup(directory, up, CONTEXT)).st_ino == bucket
        assert (await mount.operations.lookup(bucket, up, CONTEXT)).st_ino == ROOT
        assert (await mount.operations.lookup(ROOT, up, CONTEXT)).st_ino == ROOT


@pytest.mark.expects_log("bucket bad could not be finished")
@pytest.mark.expects_log("1 files of bucket bad, 4 bytes, could not be saved")
async def test_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W7: when the mount ends, what is written in each bucket is stored, whatever fails in
    others."""
    manager = MemoryManager()
    stores = {name: await bucket_with(manager, name) for name in ("bad", "one", "two")}
    async with all_of(manager, tmp_path) as mount:
        for name in stores:
            inode, flags = await mount.inode(name), FlagT(os.O_WRONLY)
            info, _ = await mount.operations.create(
                inode, FileNameT(b"f"), ModeT(0o644), flags, CONTEXT
            )
            await mount.operations.write(info.fh, 0, b"data")

        async def finish() -> int:
            raise KeyError("unforeseen")

        monkeypatch.setattr(mount.served.running()["bad"], "finish", finish)
        session = SimpleNamespace(config=ServerConfig(timeout=20.0), silence=0.0)
        await Ending(mount.served, cast(Session, session)).run()
        for name in ("one", "two"):
            assert (await stores[name].get_info("f")).size == 4
