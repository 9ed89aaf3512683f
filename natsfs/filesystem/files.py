"""Files: open, create, read, write, truncate, and the commit of what was written.

The only module that knows when bytes are sent: at the flush of a descriptor that may write, at
fsync, and at a truncation by path, each of which returns when JetStream has acknowledged (W1).
What `release` finds unsaved, because those failed, is kept and tried again.

Concurrency: open, create, write and truncate are atomic.  `commit` holds the file's lock and the
reservation of its name; writes go on meanwhile and leave the file dirty.  After the wait for the
reservation the file may have been unlinked.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import trio

from natsfs.data.reader import VersionReader
from natsfs.data.spool import Held, Spool
from natsfs.errors import (
    BadHandle,
    DigestMismatch,
    IsADirectory,
    NatsfsError,
    ReadOnlyError,
    StaleVersion,
)
from natsfs.filesystem import attributes as attrs
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.attributes import AttributeChanges, Attributes
from natsfs.filesystem.naming import name_of
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.state import Mounted, now_ns
from natsfs.filesystem.times import Times
from natsfs.handles import FileHandle, OpenFile
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import Directory, EntryChange, Leaf, Node, NodeChange

log = logging.getLogger(__name__)

#: Bytes that a commit takes from the spool at once: large against the cost of a step, small
#: against what the store keeps in flight.
COMMIT_PIECE = 1024 * 1024

#: Seconds between attempts to save what could not be saved when it was closed.
RETRY_UNSAVED = 5.0


class Files:
    """Open files of one mount."""

    def __init__(self, mounted: Mounted, publisher: Publisher, times: Times) -> None:
        self._m = mounted
        self._times = times
        self._publisher = publisher
        #: Files that nobody has open any more and whose bytes are not acknowledged.
        self._unsaved: set[OpenFile] = set()

    # -- open and close ---------------------------------------------------------------------------

    def open(self, node: Node, flags: int, *, privileged: bool = True) -> tuple[FileHandle, bool]:
        """A handle for *node*, and whether the pages that the kernel has of it are still true.

        *privileged* says that writes leave set-ID bits alone.

        Errors: `IsADirectory`, `ReadOnlyError`, `CacheError`, `NoSpaceError` (local disk).
        """
        if not isinstance(node, Leaf):
            raise IsADirectory("a directory is not opened as a file")
        access = flags & os.O_ACCMODE
        if access != os.O_RDONLY or flags & os.O_TRUNC:
            self._m.check_writable()
        file = self._acquire(node)
        pages_true = bool(file.handles) or (file.base is not None and node.cached == file.base.nuid)
        node.cached = file.base.nuid if file.base is not None else ""
        handle = FileHandle(
            file,
            readable=access != os.O_WRONLY,
            writable=access != os.O_RDONLY,
            append=bool(flags & os.O_APPEND),
            privileged=privileged,
            # What is read from true pages nobody hears of; a program that may write as well is
            # taken to write, because an atime behind the mtime means new mail to a mail reader.
            was_read=pages_true and access == os.O_RDONLY,
        )
        if flags & os.O_TRUNC:
            # Linux cuts for O_RDONLY, too; the kernel has checked the right to write.
            handle.changed = True
            try:
                self._truncate(file, 0, privileged=privileged)
            except NatsfsError:
                self._dispose(file)
                raise
        file.handles.add(handle)
        return handle, pages_true

    def create(
        self,
        directory: Directory,
        name: bytes,
        attributes: Attributes,
        flags: int,
        *,
        privileged: bool = True,
    ) -> tuple[FileHandle, Leaf]:
        """A new file, which the bucket sees when it is closed or synced (W2).

        *name* is free.  Errors: as `open`, `NameTooLongError`.
        """
        self._publisher.subject_of(directory.child_name(name))
        leaf = Leaf(None, b"", None)
        leaf.attributes = attributes
        self._m.namespace.place(leaf, directory, name)
        self._times.entry_changed(directory, attributes.mtime_ns)
        handle, _ = self.open(leaf, flags & ~os.O_TRUNC, privileged=privileged)
        handle.changed = True
        return handle, leaf

    async def flush(self, handle: FileHandle) -> None:
        """A descriptor of *handle* is being closed: commit.  Errors: of `commit`."""
        if handle.commits:
            await self.commit(handle.file)

    async def fsync(self, handle: FileHandle) -> None:
        """Commit, whoever wrote.  Errors: of `commit`."""
        await self.commit(handle.file)

    async def release(self, handle: FileHandle) -> None:
        """The last descriptor of *handle* is gone.  Raises nothing: nobody would hear of it."""
        file = handle.file
        if handle.commits and file.dirty:
            await self._commit_or_keep(file)
        if handle.stream is not None:
            handle.stream.close()
        if handle.was_read:
            self._times.was_read(file.leaf)
        file.handles.discard(handle)
        self._dispose(file)

    # -- bytes ------------------------------------------------------------------------------------

    async def read(self, handle: FileHandle, offset: int, size: int) -> bytes:
        """*size* bytes from *offset*, fewer at the end of the file.

        Errors: `BadHandle` (not open for reading), `StaleVersion`, `DigestMismatch`,
        `ChunkMissing`.
        """
        if not handle.readable:
            raise BadHandle("not open for reading")
        file = handle.file
        handle.was_read = True

        def stream() -> VersionReader:
            if handle.stream is None:
                handle.stream = self._stream(file)
            return handle.stream

        try:
            return await _read(file, stream, offset, size)
        except DigestMismatch:
            # The pages that were read before are no better: the next open must read them anew.
            file.leaf.cached = ""
            raise

    def write(self, handle: FileHandle, offset: int, data: bytes) -> int:
        """Put *data* at *offset*, or at the end for a handle that appends.

        Errors: `BadHandle` (not open for writing), `NoSpaceError`, `FileTooBig`, `CacheError`.
        """
        if not handle.writable:
            raise BadHandle("not open for writing")
        file = handle.file
        spool = self._spool(file)
        spool.write(spool.size if handle.append else offset, data)
        self._changed(file, handle.privileged)
        return len(data)

    async def truncate(
        self, node: Node, size: int, handle: FileHandle | None, *, privileged: bool = True
    ) -> None:
        """Cut or extend with zeros.  Without a *handle* that will be flushed, commit at once.

        Errors: `IsADirectory`, those of `write` and `commit`.
        """
        if not isinstance(node, Leaf):
            raise IsADirectory("a directory cannot be truncated")
        self._m.check_writable()
        file = handle.file if handle is not None else self._acquire(node)
        try:
            self._truncate(file, size, privileged=privileged)
            if not any(other.writable for other in file.handles):
                await self.commit(file)
        finally:
            self._dispose(file)

    def set_attributes(self, leaf: Leaf, changes: AttributeChanges) -> bool:
        """Let *changes* travel with the bytes that wait for their commit; False if none do."""
        file = leaf.file
        if file is None or not (file.dirty or leaf.info is None):
            return False
        leaf.attributes = changes.apply(attributes_of(self._m, leaf), now_ns())
        file.changes += 1
        return True

    # -- commit -----------------------------------------------------------------------------------

    async def commit(self, file: OpenFile) -> None:
        """Make what was written the object's version, and return when JetStream has it (W1).

        Nothing happens for a file that is clean, or has no name any more (W5).
        Errors: those of `ObjectStore.upload` and, for bytes never rewritten, of `read`.
        """
        async with file.lock:
            if not file.dirty:
                return
            leaf = file.leaf
            async with self._m.reservations.hold(lambda: name_of(leaf.heir)):
                self._reclaim(leaf)
                if leaf.parent is not None and file.dirty:
                    await self._commit(file, leaf)
                self._unsaved.discard(file)

    def _reclaim(self, leaf: Leaf) -> None:
        """Another client wrote a version between the opening of *leaf* and now: the last commit
        wins (A4), so the name goes back to *leaf*."""
        holder = leaf.heir
        if holder is leaf or holder.parent is None:
            return
        self._m.notifier.changed(self._m.namespace.reclaim(leaf, holder))
        holder.successor, leaf.successor = leaf, None

    async def _commit(self, file: OpenFile, leaf: Leaf) -> None:
        changes = file.changes
        attributes = attributes_of(self._m, leaf)
        info = await self._publisher.put(leaf, lambda: self._content(file), attributes)
        file.committed = changes
        leaf.cached = info.nuid
        self._rebase(file, info)
        if not file.dirty:
            leaf.attributes = replace(attributes, ctime_ns=info.time_ns)

    async def retry_unsaved(self) -> None:
        """Try again what could not be saved, until cancelled."""
        while True:
            await trio.sleep(RETRY_UNSAVED)
            for file in list(self._unsaved):
                await self._commit_or_keep(file)
                self._dispose(file)

    async def finish(self, files: list[OpenFile]) -> int:
        """Commit *files* and everything unsaved because the mount ends; return how many failed."""
        for file in [*files, *self._unsaved]:
            await self._commit_or_keep(file)
            self._dispose(file)
        return len(self._unsaved)

    def pending_bytes(self, files: list[OpenFile]) -> int:
        """How many bytes JetStream has not acknowledged, in *files* and in those unsaved."""
        waiting = {file for file in (*files, *self._unsaved) if file.dirty}
        return sum(file.size for file in waiting if file.leaf.heir.parent is not None)

    async def _commit_or_keep(self, file: OpenFile) -> None:
        try:
            await self.commit(file)
        except ReadOnlyError as error:
            self._abandon(file, error)
        except NatsfsError as error:
            if file not in self._unsaved:
                name = file.leaf.object_name
                log.error("%r is not saved yet and will be tried again: %s", name, error)
            self._unsaved.add(file)

    def _abandon(self, file: OpenFile, error: ReadOnlyError) -> None:
        """The bucket was sealed: what was written can never be stored.  close(2) has said so; the
        tree goes back to what the bucket holds, instead of showing what is in no bucket."""
        leaf = file.leaf
        log.error("%r cannot be saved, its changes are dropped: %s", leaf.object_name, error)
        file.committed = file.changes
        self._unsaved.discard(file)
        leaf.cached = ""
        if leaf.info is not None:
            leaf.attributes = None
            self._m.notifier.changed([NodeChange(leaf, content=True)])
        elif leaf.parent is not None:
            parent, name = leaf.parent, leaf.name
            changes = self._m.namespace.detach(leaf)
            self._m.notifier.changed([EntryChange(parent, name, gone=leaf), *changes])

    async def _content(self, file: OpenFile) -> AsyncGenerator[bytes, None]:
        streams: list[VersionReader] = []

        def stream() -> VersionReader:
            if not streams:
                streams.append(self._stream(file))
            return streams[0]

        try:
            for start in range(0, file.size, COMMIT_PIECE):
                yield await _read(file, stream, start, COMMIT_PIECE)
        finally:
            for opened in streams:
                opened.close()

    # -- inside -----------------------------------------------------------------------------------

    def _acquire(self, leaf: Leaf) -> OpenFile:
        if leaf.file is None:
            leaf.file = OpenFile(leaf, leaf.info)
            if leaf.info is not None:
                self._m.purger.hold(leaf.info.nuid)
        file = leaf.file
        assert isinstance(file, OpenFile)
        return file

    def _dispose(self, file: OpenFile) -> None:
        """Let go of a file that nobody has open and that has nothing to save."""
        if file.handles or file.leaf.file is not file:
            return
        if file.dirty and file.leaf.heir.parent is not None:
            self._unsaved.add(file)
            return
        self._unsaved.discard(file)
        file.leaf.file = None
        if file.spool is not None:
            file.spool.close()
        if file.base is not None:
            self._m.purger.release(file.base.nuid)

    def _rebase(self, file: OpenFile, info: ObjectInfo) -> None:
        """What was written is *info* now: bytes that the spool does not hold are the same in it, so
        that the version before can go."""
        for handle in file.handles:
            if handle.stream is not None:
                handle.stream.close()
                handle.stream = None
        if file.base is not None:
            self._m.purger.release(file.base.nuid)
        self._m.purger.hold(info.nuid)
        file.base = info

    def _spool(self, file: OpenFile) -> Spool:
        if file.spool is None:
            file.spool = Spool(self._m.spool_directory, file.size)
        return file.spool

    def _truncate(self, file: OpenFile, size: int, *, privileged: bool) -> None:
        if size != file.size or file.spool is not None:
            self._spool(file).truncate(size)
        self._changed(file, privileged)

    def _changed(self, file: OpenFile, privileged: bool) -> None:
        file.changes += 1
        now = now_ns()
        before = attributes_of(self._m, file.leaf)
        mode = before.mode if privileged else attrs.without_privileges(before.mode)
        file.leaf.attributes = replace(
            before, mode=mode, size=file.size, mtime_ns=now, ctime_ns=now
        )

    def _stream(self, file: OpenFile) -> VersionReader:
        if file.base is None:
            raise StaleVersion("the file has no version to read")
        return self._m.reader.open(file.base)


def new_file(directory_attributes: Attributes, mode: int, uid: int, gid: int) -> Attributes:
    """The attributes of something created in a directory: the group comes from one with the
    set-group-ID bit, as on every Linux file system."""
    inherited = directory_attributes.mode & stat.S_ISGID
    if inherited and stat.S_ISDIR(mode):
        mode |= stat.S_ISGID
    return attrs.new(mode, uid, directory_attributes.gid if inherited else gid, now_ns())


async def _read(
    file: OpenFile, stream: Callable[[], VersionReader], offset: int, size: int
) -> bytes:
    """Bytes from the spool where it holds them, from the base version elsewhere."""
    spool = file.spool
    if spool is None:
        return await stream().read(offset, size) if file.base is not None else b""
    parts = []
    for piece in spool.pieces(offset, offset + size):
        if isinstance(piece, Held):
            parts.append(spool.read(piece.start, piece.stop))
        else:
            parts.append(await stream().read(piece.start, piece.stop - piece.start))
    return parts[0] if len(parts) == 1 else b"".join(parts)
