"""pyfuse3's operations class: one method for each request of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from natsfs.errors import CrossBucketError
from natsfs.filesystem import Filesystem, Served
from natsfs.filesystem.attributes import AttributeChanges
from natsfs.filesystem.naming import check_length
from natsfs.handles import DirectoryHandle, FileHandle
from natsfs.metrics import Metrics
from natsfs.operations.boundary import answers
from natsfs.operations.encoding import (
    attributes_of,
    caller_of,
    entry_of,
    no_entry,
    not_kept,
    statfs_of,
)
from natsfs.operations.reserve import Reserve
from natsfs.tree.inodes import ROOT_INO, slot_of
from natsfs.tree.nodes import Node


class Operations(pyfuse3.Operations):
    """Requests of one mount."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self, served: Served, metrics: Metrics, reserve: Reserve, *, on_init: Callable[[], None]
    ) -> None:
        super().__init__()
        self.metrics = metrics
        self._served = served
        self._reserve = reserve
        self._on_init = on_init

    def init(self) -> None:
        """The kernel has connected."""
        self._on_init()

    # -- looking ----------------------------------------------------------------------------------

    @answers
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        fs = await self._served.at(parent_inode)
        directory = fs.entries.directory(parent_inode)
        check_length(name)
        if name not in (b".", b"..") and name not in directory.children:
            return no_entry(fs)
        return await self._shown(fs, fs.entries.lookup(parent_inode, name))

    @answers
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        fs, node = await self._served.look(inode)
        await fs.confirmation.settled(node)
        return attributes_of(fs, node)

    @answers
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        fs = await self._served.at(inode)
        fs.times.was_read(fs.entries.node(inode))
        return fs.entries.readlink(inode)

    @answers
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        fs = await self._served.at(inode)
        handle = DirectoryHandle(fs.entries.directory(inode))
        return FileHandleT(fs.handles.add(handle))

    @answers
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        fs = await self._served.at(fh)
        handle = fs.handles.get(fh, DirectoryHandle)
        entries = fs.entries
        found = entries.listing(handle, start_id)
        for number in range(start_id, len(found)):
            name = found[number]
            node = entries.listed(handle, name)
            if node is None:
                continue
            meant = entries.meant(node)
            if not pyfuse3.readdir_reply(token, name, attributes_of(fs, meant), number + 1):
                break
            if name not in (b".", b".."):
                fs.mounted.inodes.remember(meant)

    @answers
    async def releasedir(self, fh: FileHandleT) -> None:
        fs = await self._served.at(fh)
        handle = fs.handles.get(fh, DirectoryHandle)
        if handle.names is not None:
            fs.times.was_read(handle.directory)
        fs.handles.remove(fh)

    @answers
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        # Names are acknowledged before the call that changed them returns; the mtime may wait.
        fs = await self._served.at(fh)
        await fs.times.store(fs.handles.get(fh, DirectoryHandle).directory)

    @answers
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        # pyfuse3 does not say which inode it is about: the answer is that for the mount's root.
        fs = await self._served.at(ROOT_INO)
        return statfs_of(await fs.entries.statfs())

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Lookups taken back; this may not fail, and does not."""
        for inode, count in inode_list:
            fs = self._served.known(inode)
            if fs is not None:
                fs.mounted.inodes.forget(inode, count)

    # -- files ------------------------------------------------------------------------------------

    @answers
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        fs = await self._served.at(inode)
        node = fs.entries.node(inode)
        # A reader must not be given new bytes while the kernel knows the old size.
        await fs.mounted.notifier.told_of(node)
        handle, pages_true = fs.files.open(node, flags, caller_of(ctx))
        return FileInfo(FileHandleT(fs.handles.add(handle)), keep_cache=pages_true)

    @answers
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        fs = await self._served.at(parent_inode)
        directory = fs.entries.directory(parent_inode)
        handle, node = await fs.creation.create(
            directory, name, mode, flags, ctx.uid, ctx.gid, caller_of(ctx)
        )
        info = FileInfo(FileHandleT(fs.handles.add(handle)), keep_cache=False)
        return info, entry_of(fs, node)

    @answers
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        self._reserve.demand()
        fs = await self._served.at(fh)
        handle = fs.handles.get(fh, FileHandle)
        data = await fs.files.read(handle, off, size)
        self.metrics.read.inc(len(data))
        # pyfuse3 hands any buffer to the kernel as it is; its stub knows of bytes only.
        return data  # type: ignore[return-value]

    @answers
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        self._reserve.demand()
        fs = await self._served.at(fh)
        count = await fs.files.write(fs.handles.get(fh, FileHandle), off, buf)
        self.metrics.written.inc(count)
        return count

    @answers
    async def flush(self, fh: FileHandleT) -> None:
        fs = await self._served.at(fh)
        handle = fs.handles.get(fh, FileHandle)
        await fs.files.flush(handle)
        await fs.mounted.notifier.told_of(handle.file.leaf)

    @answers
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        fs = await self._served.at(fh)
        await fs.files.fsync(fs.handles.get(fh, FileHandle))

    @answers
    async def release(self, fh: FileHandleT) -> None:
        fs = await self._served.at(fh)
        await fs.files.release(fs.handles.get(fh, FileHandle))
        fs.handles.remove(fh)

    # -- changes ----------------------------------------------------------------------------------

    @answers
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        fs = await self._served.at(inode)
        node = fs.entries.node(inode)
        handle = fs.handles.get(fh, FileHandle) if fh is not None else None
        changes = AttributeChanges(
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
        )
        await fs.changes.setattr(node, changes, handle, caller_of(ctx))
        return not_kept(attributes_of(fs, node))

    @answers
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        fs = await self._served.at(parent_inode)
        parent = fs.entries.directory(parent_inode)
        node = await fs.changes.mkdir(parent, name, mode & 0o7777, ctx.uid, ctx.gid)
        return await self._shown(fs, node)

    @answers
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        fs = await self._served.at(parent_inode)
        parent = fs.entries.directory(parent_inode)
        node = await fs.changes.mknod(parent, name, mode, rdev, ctx.uid, ctx.gid)
        return entry_of(fs, node)

    @answers
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        fs = await self._served.at(parent_inode)
        parent = fs.entries.directory(parent_inode)
        return entry_of(fs, await fs.changes.symlink(parent, name, target, ctx.uid, ctx.gid))

    @answers
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        fs = await self._of_both(inode, new_parent_inode)
        parent = fs.entries.directory(new_parent_inode)
        node = fs.entries.node(inode)
        return not_kept(entry_of(fs, await fs.hardlinks.link(node, parent, new_name)))

    @answers
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        fs = await self._served.at(parent_inode)
        await fs.changes.unlink(fs.entries.directory(parent_inode), name)

    @answers
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        fs = await self._served.at(parent_inode)
        await fs.changes.rmdir(fs.entries.directory(parent_inode), name)

    @answers
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        fs = await self._of_both(parent_inode_old, parent_inode_new)
        old = fs.entries.directory(parent_inode_old)
        new = fs.entries.directory(parent_inode_new)
        await fs.moves.rename(old, name_old, new, name_new, flags)

    # -- extended attributes ----------------------------------------------------------------------

    @answers
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        fs, node = await self._served.look(inode)
        return fs.xattrs.get(node, name)

    @answers
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        fs, node = await self._served.look(inode)
        return fs.xattrs.names(node)

    @answers
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        fs = await self._served.at(inode)
        await fs.xattrs.put(fs.entries.node(inode), name, value)

    @answers
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        fs = await self._served.at(inode)
        await fs.xattrs.remove(fs.entries.node(inode), name)

    # -- between several filesystems --------------------------------------------------------------

    async def _of_both(self, one: InodeT, other: InodeT) -> Filesystem:
        """The filesystem of two inodes.  Errors: `CrossBucketError`, those of `Served.at`."""
        if slot_of(one) != slot_of(other):
            raise CrossBucketError("neither a name nor a file can be in two buckets")
        return await self._served.at(one)

    async def _shown(self, fs: Filesystem, node: Node) -> EntryAttributes:
        """`_entry` of an entry of a directory of *fs*, which may be the root of another one."""
        inodes = fs.mounted.inodes
        ino = inodes.number(node)
        if not inodes.holds(ino):
            fs, node = await self._served.look(ino)
        return entry_of(fs, node)
