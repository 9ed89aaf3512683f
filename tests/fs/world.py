"""A mounted bucket without a kernel, a program that uses it, and another client of the bucket.

`mounted` composes the filesystem as `natsfs.mount` does, over the in-memory store.  When a test is
over it checks what must hold after any sequence of operations: the tree is what the bucket lists,
no chunks are left over, and nothing is open or unsaved.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import trio
import trio.testing

from natsfs.config import CacheConfig, ConflictConfig, ConflictPolicy, TreeConfig
from natsfs.data.cache import BlockCache
from natsfs.data.journal import Journal
from natsfs.data.journals import Journals
from natsfs.data.outflow import Outflows
from natsfs.data.reader import ObjectReader
from natsfs.data.runs import About, Run
from natsfs.errors import NotFoundError
from natsfs.filesystem import Filesystem, Mounted
from natsfs.filesystem.attributes import AttributeChanges, Attributes, is_hard_link
from natsfs.filesystem.files import new_file
from natsfs.filesystem.purger import Purger
from natsfs.filesystem.reservations import Reservations
from natsfs.handles import FileHandle
from natsfs.store.base import tombstone
from natsfs.store.memory import MemoryManager, MemoryStore
from natsfs.store.memory_stream import Publish
from natsfs.store.model import BucketConfig, MetaWrite, ObjectInfo, ObjectMeta
from natsfs.store.wire import chunk_subject, meta_prefix, meta_subject, new_nuid, render_digest
from natsfs.tree.inodes import InodeTable
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import Change, Directory, Leaf, Node, info_of, walk

_ABOUT = About("bucket", "bucket@1", "memory", "/mnt", "this host", os.getpid(), 10**18)

#: Seconds until a condition must have come true.
DEADLINE = 20.0


@dataclass
class Notices:
    """A notifier that remembers.  While *busy* is set the kernel takes its time."""

    told: list[Change] = field(default_factory=list)
    busy: trio.Event | None = None

    def changed(self, changes: Iterable[Change]) -> None:
        """Keep them."""
        self.told.extend(changes)

    @property
    def behind(self) -> bool:
        """Whether it is busy."""
        return self.busy is not None

    async def delivered(self) -> None:
        """Wait for *busy*."""
        if self.busy is not None:
            await self.busy.wait()

    async def told_of(self, node: Node) -> None:
        """Nothing is on its way."""


async def in_pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    """*data* as a source."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


class Foreign:
    """Another client of the bucket, whose calls no knob of the mount's store reaches.

    When `put` or `delete` return the mount has not heard of it yet: nothing is awaited after it.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.store = MemoryStore(MemoryManager(), store.stream)

    async def put(self, name: str, data: bytes, meta: ObjectMeta | None = None) -> ObjectInfo:
        """Put, as every client does it: the old chunks are gone when it returns."""
        old = [info for info in await self.store.list() if info.name == name]
        subject = old[0].subject if old else ""
        info = await self.store.upload(name, in_pieces(data), meta or ObjectMeta(), subject=subject)
        for replaced in old:
            self.store.stream.purge(chunk_subject(self.store.bucket, replaced.nuid))
        return info

    def put_now(self, name: str, data: bytes) -> ObjectInfo:
        """The same between two steps of the mount, which waits for nothing and nobody."""
        bucket = self.store.bucket
        subject, nuid = meta_subject(bucket, name), new_nuid()
        old = self.store._info(subject)
        self.store.publish([Publish(chunk_subject(bucket, nuid), data)])
        digest = render_digest(hashlib.sha256(data).digest())
        size, chunk = len(data), 131072
        info = ObjectInfo(name, bucket, subject, nuid, size, 1, chunk, digest)
        (stored,) = self.store._store_metas([MetaWrite(info)])
        if old is not None:
            self.store.stream.purge(chunk_subject(bucket, old.nuid))
        return stored

    async def delete(self, name: str) -> None:
        """Delete, chunks included."""
        info = await self.store.get_info(name)
        await self.store.commit([MetaWrite(tombstone(info))])
        self.store.stream.purge(chunk_subject(self.store.bucket, info.nuid))

    async def get(self, name: str) -> bytes:
        """The whole object, verified."""
        return b"".join([bytes(piece) async for piece in self.store.get(name)])

    async def names(self) -> list[str]:
        """What a listing shows, sorted."""
        return sorted(info.name for info in await self.store.list())


class World:
    """The filesystem, and what a program does with it, by path."""

    def __init__(self, manager: MemoryManager, store: MemoryStore, fs: Filesystem) -> None:
        self.manager = manager
        self.store = store
        self.fs = fs
        self.foreign = Foreign(store)
        self.notices = Notices()
        fs.mounted.notifier = self.notices
        self._numbers: dict[FileHandle, int] = {}

    @property
    def root(self) -> Directory:
        return self.fs.mounted.namespace.root

    def break_disk(self) -> None:
        """Nothing new can be made on local disk from now on."""
        parent = self.fs.mounted.journal.parent
        if parent.exists():
            parent.rename(parent.with_name("away"))
        parent.parent.mkdir(parents=True, exist_ok=True)
        for place in self._places_on_disk():
            place.write_text("in the way")

    def mend_disk(self) -> None:
        """It can be again."""
        for place in self._places_on_disk():
            place.unlink()

    def _places_on_disk(self) -> tuple[Path, Path]:
        """Where the bytes of files go, and where they go when there can be no journal."""
        parent = self.fs.mounted.journal.parent
        return parent, parent.parent.parent / "spool"

    # -- paths ------------------------------------------------------------------------------------

    def entry(self, path: str) -> Node:
        """What has this path.  Errors: `NotFoundError`, `NotADirectory`."""
        node: Node = self.root
        for part in filter(None, path.split("/")):
            if not isinstance(node, Directory):
                raise NotFoundError(f"nothing below {path!r}")
            node = self.fs.entries.entry(node, part.encode())
        return node

    def leaf(self, path: str) -> Leaf:
        """The file of this path."""
        node = self.fs.entries.meant(self.entry(path))
        assert isinstance(node, Leaf)
        return node

    def directory(self, path: str) -> Directory:
        """The directory of this path."""
        node = self.entry(path)
        assert isinstance(node, Directory)
        return node

    def place(self, path: str) -> tuple[Directory, bytes]:
        """Directory and name of a path whose last part need not exist."""
        above, _, name = path.rpartition("/")
        return self.directory(above), name.encode()

    def exists(self, path: str) -> bool:
        """Whether something has this path."""
        try:
            self.entry(path)
        except NotFoundError:
            return False
        return True

    def stat(self, path: str) -> Attributes:
        """stat(2)"""
        return self.fs.entries.attributes(self.fs.entries.meant(self.entry(path)))

    def paths(self) -> list[str]:
        """Every path, sorted; directories end in a slash."""
        found = []
        for node in walk(self.root):
            parts, above = [node.name.decode()], node.parent
            while above is not None and above.parent is not None:
                parts.append(above.name.decode())
                above = above.parent
            found.append("/".join(reversed(parts)) + "/" * isinstance(node, Directory))
        return sorted(found)

    # -- files ------------------------------------------------------------------------------------

    def open(self, path: str, flags: int = os.O_RDONLY) -> FileHandle:
        """open(2), as the kernel splits it into lookup, open and create."""
        directory, name = self.place(path)
        if name in directory.children or not flags & os.O_CREAT:
            handle, _ = self.fs.files.open(self.leaf(path), flags)
        else:
            self.fs.naming.check_name(directory, name)
            above = self.fs.entries.attributes(directory)
            created = new_file(above, 0o100644, 1000, 1000)
            handle, _ = self.fs.files.create(directory, name, created, flags)
        self.number(handle)
        return handle

    def number(self, handle: FileHandle) -> None:
        """Have *handle*, which some other call than `open` gave, closed by `close`."""
        self._numbers[handle] = self.fs.handles.add(handle)

    async def close(self, handle: FileHandle) -> None:
        """close(2) of the only descriptor: flush, whose error is raised, and release."""
        try:
            await self.fs.files.flush(handle)
        finally:
            await self.release(handle)

    async def release(self, handle: FileHandle) -> None:
        """What the kernel does when the last descriptor is gone."""
        await self.fs.files.release(handle)
        self.fs.handles.remove(self._numbers.pop(handle))

    @asynccontextmanager
    async def opened(self, path: str, flags: int = os.O_RDONLY) -> AsyncIterator[FileHandle]:
        """An open file; an error of its close is raised."""
        handle = self.open(path, flags)
        try:
            yield handle
        except BaseException:
            await self.release(handle)
            raise
        await self.close(handle)

    async def read_from(self, handle: FileHandle) -> bytes:
        """All that a handle reads."""
        data = b""
        while part := await self.fs.files.read(handle, len(data), 131072):
            data += part
        return data

    async def read(self, path: str) -> bytes:
        """The content of a file."""
        async with self.opened(path) as handle:
            return await self.read_from(handle)

    async def write(self, path: str, data: bytes) -> None:
        """Create or replace a file."""
        async with self.opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as handle:
            for start in range(0, len(data), 131072):
                await self.fs.files.write(handle, start, data[start : start + 131072])

    # -- names ------------------------------------------------------------------------------------

    async def mkdir(self, path: str) -> None:
        """mkdir(2)"""
        await self.fs.changes.mkdir(*self.place(path), 0o755, 1000, 1000)

    async def rmdir(self, path: str) -> None:
        """rmdir(2)"""
        await self.fs.changes.rmdir(*self.place(path))

    async def unlink(self, path: str) -> None:
        """unlink(2)"""
        await self.fs.changes.unlink(*self.place(path))

    async def symlink(self, target: str, path: str) -> None:
        """symlink(2)"""
        await self.fs.changes.symlink(*self.place(path), target.encode(), 1000, 1000)

    def readlink(self, path: str) -> bytes:
        """readlink(2)"""
        inodes = self.fs.mounted.inodes
        ino = inodes.remember(self.entry(path))
        try:
            return self.fs.entries.readlink(ino)
        finally:
            inodes.forget(ino, 1)

    async def link(self, path: str, new_path: str) -> None:
        """link(2)"""
        await self.fs.hardlinks.link(self.leaf(path), *self.place(new_path))

    async def rename(self, old: str, new: str, flags: int = 0) -> None:
        """renameat2(2)"""
        await self.fs.moves.rename(*self.place(old), *self.place(new), flags)

    async def chmod(self, path: str, mode: int) -> None:
        """chmod(2)"""
        node = self.fs.entries.meant(self.entry(path))
        await self.fs.changes.setattr(node, AttributeChanges(mode=mode), None)

    async def truncate(self, path: str, size: int) -> None:
        """truncate(2)"""
        await self.fs.changes.setattr(self.leaf(path), AttributeChanges(size=size), None)

    # -- waiting and checking ---------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until everything that the bucket told has been taken in."""
        await trio.testing.wait_all_tasks_blocked()

    async def check(self) -> None:
        """What must hold when nothing is going on."""
        listed = {info.subject: info for info in await self.foreign.store.list()}
        namespace = self.fs.mounted.namespace
        nodes = [namespace.root, *walk(namespace.root)]
        shown = {info.subject: info for node in nodes if (info := info_of(node)) is not None}
        assert shown.keys() == listed.keys()
        assert {s: i.revision for s, i in shown.items()} == {
            s: i.revision for s, i in listed.items()
        }
        assert sorted(namespace.subjects()) == sorted(shown)
        assert all(node.parent.children[node.name] is node for node in nodes if node.parent)
        open_files = [node for node in nodes if isinstance(node, Leaf) and node.file is not None]
        assert open_files == []
        assert all(node.info is not None for node in nodes if isinstance(node, Leaf))
        assert len(self.fs.handles) == 0
        assert len(self.fs.mounted.inodes) == 1
        assert self.fs.pending_bytes() == 0
        self._check_chunks(listed.values())
        self._check_journal()

    def _check_chunks(self, listed: Iterable[ObjectInfo]) -> None:
        """Nothing is left over, once what waits to be purged is."""
        if len(self.fs.mounted.purger):
            return
        bucket = self.store.bucket
        wanted = {chunk_subject(bucket, info.nuid) for info in listed if info.chunks}
        stored = {s for s in self.store.stream._subjects if not s.startswith(meta_prefix(bucket))}
        assert stored == wanted

    def _check_journal(self) -> None:
        """Nothing is left of what was written."""
        assert len(self.fs.mounted.journal) == 0
        assert list(self.fs.mounted.journal.parent.glob("*")) == []


@asynccontextmanager
async def mounted(
    directory: Path,
    config: BucketConfig = BucketConfig("bucket"),  # noqa: B008  (frozen)
    *,
    manager: MemoryManager | None = None,
    store: MemoryStore | None = None,
    purge_delay: float = 0.0,
    conflict: ConflictPolicy = ConflictPolicy.LAST,
    writeback: bool = False,
    dies: bool = False,
) -> AsyncIterator[World]:
    """A bucket, new unless it is *store*, mounted; at the end it is unmounted and checked, or its
    process *dies*."""
    manager = manager or MemoryManager()
    store = store or await manager.create(config)
    async with trio.open_nursery() as nursery:
        together = await compose(store, directory, purge_delay, nursery)
        together.conflict = ConflictConfig(conflict, "this host")
        together.writeback = writeback
        fs = Filesystem(together)
        await fs.start(nursery)
        world = World(manager, store, fs)
        yield world
        if dies:
            nursery.cancel_scope.cancel()
            run = together.journal.of(store.identity)._run
            if run._lock >= 0:
                os.close(run._lock)
            return
        assert await fs.finish() == 0
        assert together.journal.close() == 0
        await world.settle()
        await world.check()
        nursery.cancel_scope.cancel()


async def compose(
    store: MemoryStore, directory: Path, purge_delay: float, nursery: trio.Nursery
) -> Mounted:
    """What `natsfs.mount` puts together."""
    status = await store.status()
    namespace = Namespace(is_hard_link)
    namespace.root.changed = (0, status.created_ns)
    cache = BlockCache(CacheConfig(directory / "cache", 10**8, 0.0))
    purger = Purger(store, purge_delay)
    mounted = Mounted(
        store=store,
        namespace=namespace,
        inodes=InodeTable(namespace.root),
        reader=ObjectReader(store, cache, "bucket@1", nursery),
        purger=purger,
        outflows=Outflows(store, nursery, purger.drain, purger.discard),
        reservations=Reservations(),
        tree=TreeConfig(uid=1000, gid=1000),
        root=PurePosixPath("/mnt"),
        journal=Journals(lambda _: Journal(Run(directory, _ABOUT), store.timeout), store.identity),
        tree_directory=directory,
    )
    mounted.adopt(status)
    return mounted
