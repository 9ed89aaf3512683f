"""Files: open, create, read, write, truncate.

The only module that knows when bytes are sent: at the flush of a descriptor that may write, at
fsync, and at a truncation by path, each of which returns when JetStream has acknowledged (W1), or,
with writeback, when the disk has what a closed descriptor wrote (W8).

Concurrency: open and create are atomic.  A write waits for room first; then it is, too.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from natsfs.data.reader import VersionReader
from natsfs.data.spool import Spool
from natsfs.errors import (
    BadHandle,
    BucketNotFoundError,
    DigestMismatch,
    FileTooBig,
    IsADirectory,
    NatsfsError,
    StaleNode,
)
from natsfs.filesystem import attributes as attrs
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.attributes import AttributeChanges, Attributes
from natsfs.filesystem.commits import Commits
from natsfs.filesystem.contents import Contents, read
from natsfs.filesystem.journaling import Journaling
from natsfs.filesystem.state import Mounted, now_ns
from natsfs.filesystem.times import Times
from natsfs.filesystem.unsaved import Unsaved
from natsfs.filesystem.walks import Walks
from natsfs.handles import SUPERUSER, Caller, FileHandle, OpenFile
from natsfs.store.primitives import Data
from natsfs.tree.nodes import Directory, Leaf, Node, NodeChange

#: Bytes of the largest file, which is that of ext4 with 4 KiB blocks.
MAX_FILE_SIZE = 16 * 1024**4 - 4096

#: Bytes by which one write or truncation may leap over the end of a file.  Objects have no holes:
#: what is skipped is stored as zeros, so what costs nothing on other file systems would fill the
#: server's disk here, and `close` would take as long as that takes.
MAX_HOLE = 16 * 1024**3

#: Bytes from which on a file that was stored, and is still open, is not stored again for less than
#: the part 1 / `GROWTH` of it: about as much as storing it takes as long as finding out who has it
#: open (`Holders`).
LARGE = 1024 * 1024
GROWTH = 8


class Files:
    """Open files of one mount."""

    def __init__(
        self,
        mounted: Mounted,
        commits: Commits,
        unsaved: Unsaved,
        journaling: Journaling,
        times: Times,
    ) -> None:
        self._m = mounted
        self._commits = commits
        self._unsaved = unsaved
        self._journaling = journaling
        self._times = times
        self._contents = Contents(mounted)
        self._walks = Walks(mounted)

    # -- open and close ---------------------------------------------------------------------------

    def open(self, node: Node, flags: int, caller: Caller = SUPERUSER) -> tuple[FileHandle, bool]:
        """A handle for *node*, and whether the pages that the kernel has of it are still true.

        Errors: `IsADirectory`, `ReadOnlyError`, `CacheError`, `NoSpaceError` (local disk).
        """
        if not isinstance(node, Leaf):
            raise IsADirectory("a directory is not opened as a file")
        access = flags & os.O_ACCMODE
        if access != os.O_RDONLY or flags & os.O_TRUNC:
            self._m.check_writable()
        file = self._acquire(node)
        pages_true = file.pages_true
        handle = FileHandle(
            file,
            readable=access != os.O_WRONLY,
            writable=access != os.O_RDONLY,
            append=bool(flags & os.O_APPEND),
            caller=caller,
            # What is read from true pages nobody hears of; a program that may write as well is
            # taken to write, because an atime behind the mtime means new mail to a mail reader.
            was_read=pages_true and access == os.O_RDONLY,
            silent=bool(flags & os.O_NOATIME),
            dropping=not pages_true,
        )
        if flags & os.O_TRUNC:
            # Linux cuts for O_RDONLY, too; the kernel has checked the right to write.
            handle.changed = True
            try:
                self._truncate(file, 0, caller)
            except NatsfsError:
                self._commits.let_go(file)
                raise
        elif handle.readable and not (handle.writable or pages_true):
            self._walks.opened(node)
        file.handles.add(handle)
        return handle, pages_true

    def create(
        self,
        directory: Directory,
        name: bytes,
        attributes: Attributes,
        flags: int,
        caller: Caller = SUPERUSER,
    ) -> tuple[FileHandle, Leaf]:
        """A new file, which the bucket sees when it is closed or synced (W2).

        *name* is free and checked by `Naming`.  Errors: as `open`.
        """
        leaf = Leaf(None, b"", None)
        leaf.attributes = attributes
        self._m.namespace.place(leaf, directory, name)
        self._times.entry_changed(directory, attributes.mtime_ns)
        handle, _ = self.open(leaf, flags & ~os.O_TRUNC, caller)
        handle.changed = True
        return handle, leaf

    async def flush(self, handle: FileHandle) -> None:
        """A descriptor of *handle* is being closed: commit, now or, where the mount is to write
        back, later.  Errors: of `commit`."""
        handle.heard_of()
        if handle.commits and not await self._can_wait(handle):
            await self._m.journal.disk.ready()
            await self._unsaved.close(handle.file)
            handle.stored = True

    async def _can_wait(self, handle: FileHandle) -> bool:
        """Whether a close, or the end of a child that inherited the descriptor, is not the last of
        it, and what it would store is little beside what would have to be sent again: a version has
        all of its bytes.  So what many children write costs 9 times its size at most."""
        file = handle.file
        repeats = file.size >= LARGE and file.written * GROWTH < file.size
        if not (handle.stored and repeats and file.dirty) or self._m.writeback:
            return False
        return await self._m.holders.somebody_writes(self._m.inodes.number(file.leaf))

    async def fsync(self, handle: FileHandle) -> None:
        """Commit, whoever wrote.  Errors: of `commit`."""
        handle.heard_of()
        await self._m.journal.disk.ready()
        await self._unsaved.sync(handle.file)

    async def release(self, handle: FileHandle) -> None:
        """The last descriptor of *handle* is gone.  Raises nothing: nobody would hear of it.  Nor
        does anybody wait, not even umount(2): so this does not wait for the server, see `Unsaved`.
        """
        file = handle.file
        if handle.stream is not None:
            handle.stream.close()
        if handle.was_read and not handle.silent:
            self._times.was_read(file.leaf)
        file.handles.discard(handle)
        if handle.commits:
            await self._unsaved.release(file)
        self._commits.let_go(file)

    # -- bytes ------------------------------------------------------------------------------------

    async def read(self, handle: FileHandle, offset: int, size: int) -> Data:
        """*size* bytes from *offset*, fewer at its end.  Others may read the same buffer.

        Errors: `BadHandle` (not open for reading), `StaleVersion` (also of a bucket that is gone),
        `DigestMismatch`, `ChunkMissing`.
        """
        if not handle.readable:
            raise BadHandle("not open for reading")
        file = handle.file
        handle.heard_of()
        handle.was_read = True
        if isinstance(file.content, Spool):
            await self._m.journal.disk.ready()

        def stream() -> VersionReader:
            if handle.stream is None:
                handle.stream = self._commits.stream(file)
            return handle.stream

        try:
            return await read(file, stream, offset, size)
        except BucketNotFoundError as error:
            raise StaleNode(str(error)) from error
        except DigestMismatch:
            # The pages that were read before are no better: the next open must read them anew.
            file.pages_true = False
            raise

    async def write(self, handle: FileHandle, offset: int, data: bytes) -> int:
        """Put *data* at *offset*, or at the end if a handle that appends writes to what the kernel
        wrongly takes for the end.  What such a handle writes elsewhere comes from a shared mapping,
        or after fcntl(2) took O_APPEND away.

        Errors: `BadHandle` (not open for writing), `FileTooBig`; those of `Contents.room`, with
        which bytes written before could not be stored, and of `Contents.write`.
        """
        if not handle.writable:
            raise BadHandle("not open for writing")
        file = handle.file
        handle.heard_of()
        await self._m.journal.disk.ready()
        await self._unsaved.before_change(file)
        await self._contents.room(file)
        leaf, end, start = file.leaf, file.size, offset
        if handle.append and leaf.told_size != end and offset >= leaf.told_size:
            # The kernel takes the end from the size that it has, which another client changed.
            start = end
        _check_growth(file, start, start + len(data))
        held = self._contents.write(file, start, data)
        if not handle.append or start != end:
            file.appended_from = None
        file.written += len(data)
        self._changed(file, handle.caller)
        self._journaling.wrote(file, start, data, held=held)
        leaf.told_size = max(leaf.told_size, offset + len(data))
        if start != offset:
            # The kernel has put the bytes into pages where they are not; a size that is not its own
            # makes it drop them.
            self._m.notifier.changed([NodeChange(leaf)])
        return len(data)

    async def truncate(
        self, node: Node, size: int, handle: FileHandle | None, caller: Caller = SUPERUSER
    ) -> None:
        """Cut or extend with zeros.  Without a *handle* that will be flushed, commit at once.

        Errors: `IsADirectory`, those of `write` and `commit`.
        """
        if not isinstance(node, Leaf):
            raise IsADirectory("a directory cannot be truncated")
        self._m.check_writable()
        await self._m.journal.disk.ready()
        file = handle.file if handle is not None else self._acquire(node)
        while await self._contents.settled(file):
            file = handle.file if handle is not None else self._acquire(node)
        try:
            if size:
                await self._unsaved.before_change(file)
            self._truncate(file, size, caller)
            if not any(other.writable for other in file.handles):
                await self._commits.commit(file)
        finally:
            self._commits.let_go(file)

    def set_attributes(self, leaf: Leaf, changes: AttributeChanges) -> bool:
        """Let *changes* travel with the bytes that wait for their commit; False if none do."""
        file = leaf.file
        if file is None or not (file.dirty or leaf.info is None):
            return False
        leaf.attributes = changes.apply(attributes_of(self._m, leaf), now_ns())
        file.changes += 1
        self._journaling.described(file)
        return True

    # -- inside -----------------------------------------------------------------------------------

    def _acquire(self, leaf: Leaf) -> OpenFile:
        if leaf.file is None:
            leaf.file = OpenFile(leaf, leaf.info, self._m.store.identity)
            if leaf.info is not None:
                self._m.purger.hold(leaf.info.nuid)
        file = leaf.file
        assert isinstance(file, OpenFile)
        return file

    def _truncate(self, file: OpenFile, size: int, caller: Caller) -> None:
        _check_growth(file, size, size)
        if not size:
            self._journaling.keep_promised(file)
            file.yields = ""  # what begins now replaces whatever is there
        self._contents.truncate(file, size)
        file.appended_from = None
        self._changed(file, caller)
        self._journaling.cut(file, size)
        file.leaf.told_size = size

    def _changed(self, file: OpenFile, caller: Caller) -> None:
        file.changes += 1
        now = now_ns()
        before = attributes_of(self._m, file.leaf)
        mode = before.mode
        if not caller.privileged:
            mode = attrs.without_privileges(mode, lambda: caller.member_of(before.gid))
        file.leaf.attributes = replace(
            before, mode=mode, size=file.size, mtime_ns=now, ctime_ns=now
        )


def _check_growth(file: OpenFile, start: int, size: int) -> None:
    """Errors: `FileTooBig` for bytes from *start* on that would make *file* *size* bytes large."""
    if size > MAX_FILE_SIZE or start - file.size > MAX_HOLE:
        raise FileTooBig(f"{size} bytes, {start - file.size} of them beyond the end so far")


def new_file(directory_attributes: Attributes, mode: int, uid: int, gid: int) -> Attributes:
    """The attributes of something created in a directory: the group comes from one with the
    set-group-ID bit, as on every Linux file system."""
    inherited = directory_attributes.mode & stat.S_ISGID
    if inherited and stat.S_ISDIR(mode):
        mode |= stat.S_ISGID
    return attrs.new(mode, uid, directory_attributes.gid if inherited else gid, now_ns())
