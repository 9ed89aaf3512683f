"""What the kernel is told of a node, and what it tells of a caller.

How long the kernel may keep an answer is decided here: for good while the watch is live, because
what changes is then told by the notifier (A1); not at all otherwise, and for a node whose ctime is
not yet the server's.  Who asks for the attributes of that waits for it (`getattr`); answers that
bring attributes besides give the estimate, and the kernel asks when a program does.
"""

from __future__ import annotations

import pyfuse3
from pyfuse3 import EntryAttributes, InodeT, ModeT, RequestContext, StatvfsData

from natsfs.filesystem import Filesystem
from natsfs.filesystem.entries import Space
from natsfs.handles import Caller
from natsfs.tree.nodes import Node

#: Seconds that the kernel keeps names and attributes while the watch is live: so long that they
#: never expire between changes, so short that a lost notification heals within a day.
KEPT = 24 * 3600.0

#: The unit of statfs: bytes.  Programs multiply, so any would do; 4 KiB is what ext4 shows.
STATFS_UNIT = 4096


def entry_of(fs: Filesystem, node: Node) -> EntryAttributes:
    """An answer by which the kernel takes a reference to *node*."""
    fs.mounted.inodes.remember(node)
    return attributes_of(fs, node)


def no_entry(fs: Filesystem) -> EntryAttributes:
    """No such entry, and the kernel may believe it until the notifier says otherwise."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(0)
    entry.entry_timeout = KEPT if fs.entries.live else 0
    return entry


def attributes_of(fs: Filesystem, node: Node) -> EntryAttributes:
    """What stat(2) shows of *node*, and for how long."""
    found = fs.entries.attributes(node)
    entry = EntryAttributes()
    entry.st_ino = InodeT(fs.mounted.inodes.number(node))
    entry.entry_timeout = KEPT if fs.entries.live else 0
    entry.attr_timeout = KEPT if fs.entries.settled(node) else 0
    entry.st_mode = ModeT(found.mode)
    entry.st_nlink = fs.entries.links(node)
    entry.st_uid = found.uid
    entry.st_gid = found.gid
    entry.st_rdev = found.rdev
    entry.st_size = found.size
    entry.st_blksize = fs.entries.block_size(node)
    entry.st_blocks = -(-found.size // 512)
    entry.st_atime_ns = found.atime_ns
    entry.st_mtime_ns = found.mtime_ns
    entry.st_ctime_ns = found.ctime_ns
    entry.st_birthtime_ns = found.btime_ns
    return entry


def caller_of(ctx: RequestContext) -> Caller:
    """Who sends a request."""
    uid, gid, pid = ctx.uid, ctx.gid, ctx.pid

    def member_of(group: int) -> bool:
        if group == gid:
            return True
        try:
            return group in pyfuse3.get_sup_groups(pid)
        except (OSError, ValueError, RuntimeError):
            # Gone, or of another PID namespace.  A write comes after the kernel's own request to
            # take the bit away, so who cannot be asked any more was a member then.
            return True

    return Caller(privileged=uid == 0, member_of=member_of)


def not_kept(entry: EntryAttributes) -> EntryAttributes:
    """*entry*, whose attributes the kernel asks for again.

    Of answers to questions it drops those that a notification has overtaken.  Attributes that come
    with the answer to a change of an inode that it knows it takes unseen.
    """
    entry.attr_timeout = 0
    return entry


def statfs_of(space: Space) -> StatvfsData:
    """*space* as the kernel wants it."""
    data = StatvfsData()
    data.f_bsize = data.f_frsize = STATFS_UNIT
    data.f_blocks = space.total // STATFS_UNIT
    data.f_bfree = data.f_bavail = space.free // STATFS_UNIT
    data.f_ffree = data.f_favail = space.free // STATFS_UNIT
    data.f_files = space.files + data.f_ffree
    data.f_namemax = 255
    return data
