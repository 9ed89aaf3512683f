"""Looking: names, attributes, listings, link texts, free space.  Nothing here changes the bucket.

Concurrency: everything but `statfs` is atomic, so an answer is the tree at one moment.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import trio

from natsfs.errors import (
    BucketGone,
    InvalidArgument,
    NatsfsError,
    NotADirectory,
    NotFoundError,
    StaleNode,
)
from natsfs.filesystem.appearance import attributes_of, link_text
from natsfs.filesystem.attributes import Attributes
from natsfs.filesystem.naming import check_length
from natsfs.filesystem.state import Mounted
from natsfs.handles import DirectoryHandle
from natsfs.store.model import DEFAULT_CHUNK_SIZE, LARGEST_CHUNK, AccountLimits, BucketStatus
from natsfs.tree.nodes import Directory, Leaf, Node

log = logging.getLogger(__name__)

#: Seconds that an answer to statfs is good for: `df` and file managers ask in bursts.
STATFS_AGE = 1.0

#: Seconds that statfs waits for the server.  umount(8) calls it, too, and must not hang because the
#: server is away.
STATFS_PATIENCE = 1.0

#: Of an account that nobody has asked about yet.
_NO_LIMITS = AccountLimits(storage_used=0, storage_limit=-1, memory_used=0, memory_limit=-1)

#: What statfs shows as free where nothing limits the bucket: 1 PiB, the convention of the peers.
UNLIMITED = 1 << 50


@dataclass(frozen=True, slots=True)
class Space:
    """statfs: bytes, and numbers of files."""

    total: int
    free: int
    files: int


class Entries:
    """Questions about the tree."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        #: The bytes in all and those that are free, and when the server was asked for them, on
        #: trio's clock.  At first nobody knows what the account allows.
        self._room = _room(mounted.status, _NO_LIMITS)
        self._asked = -math.inf

    def entry(self, directory: Directory, name: bytes) -> Node:
        """What has *name* in *directory*, which for a hard link is the link.

        Errors: `NotFoundError`, `NameTooLongError`.
        """
        check_length(name)
        node = directory.children.get(name)
        if node is None:
            raise NotFoundError(f"no entry {name!r}")
        return node

    def meant(self, node: Node) -> Node:
        """What programs are to see of an entry: the file of a hard link."""
        return self._m.namespace.primary(node)

    def directory(self, ino: int) -> Directory:
        """The directory with this number.  Errors: `NotADirectory`, those of `node`."""
        node = self.node(ino)
        if not isinstance(node, Directory):
            raise NotADirectory(f"inode {ino} is not a directory")
        return node

    def node(self, ino: int) -> Node:
        """The node with this number.

        Errors: `StaleVersion` (ESTALE); while the bucket does not exist `BucketGone` (ENODEV) for
        the root and `StaleNode` for all others: a directory that is empty would invite a mirroring
        job to delete everything.
        """
        node = self._m.inodes.get(ino)
        assert isinstance(node, Node)
        if self._m.gone:
            if node is self._m.namespace.root and self._m.outer is None:
                raise BucketGone(f"bucket {self._m.store.bucket} is gone")
            raise StaleNode(f"bucket {self._m.store.bucket} is gone, and this with it")
        return node

    def lookup(self, parent: int, name: bytes) -> Node:
        """The entry *name* of the directory *parent*, `.` and `..` included.

        Errors: `NotFoundError`, `NotADirectory`, `StaleVersion`.
        """
        directory = self.directory(parent)
        if name == b".":
            return directory
        if name == b"..":
            return directory.parent or self._m.outer or directory
        return self.meant(self.entry(directory, name))

    def attributes(self, node: Node) -> Attributes:
        """stat(2) of *node*, for the kernel to believe."""
        found = attributes_of(self._m, node)
        if isinstance(node, Leaf):
            node.told_size = found.size
        return found

    def links(self, node: Node) -> int:
        """`st_nlink` of *node*."""
        if isinstance(node, Directory):
            return 2 + node.subdirectories if node.parent or node is self._m.namespace.root else 0
        if node.parent is None:
            return 0
        return 1 + len(self._m.namespace.links_to(node)) if isinstance(node, Leaf) else 1

    def block_size(self, node: Node) -> int:
        """`st_blksize`: the chunk size (M7), if there can be chunks of that size.  Programs take
        buffers of it, and it has 32 bits on its way."""
        info = node.info if isinstance(node, Leaf) else None
        size = info.max_chunk_size if info is not None else 0
        return size if 0 < size <= LARGEST_CHUNK else DEFAULT_CHUNK_SIZE

    def settled(self, node: Node) -> bool:
        """Whether the kernel may keep what it is told of *node* until it is told otherwise."""
        if not (self._m.live and self._m.inodes.holds(node.ino)):
            return False
        info = node.marker if isinstance(node, Directory) else None
        if isinstance(node, Leaf):
            info = node.info
        return info is None or info.subject not in self._m.unconfirmed

    @property
    def live(self) -> bool:
        """Whether changes of names reach this mount as they happen."""
        return self._m.live

    def readlink(self, ino: int) -> bytes:
        """The text of a symbolic link.  Errors: `InvalidArgument`, `StaleVersion`."""
        node = self.node(ino)
        if not isinstance(node, Leaf):
            raise InvalidArgument("a directory is not a symbolic link")
        return link_text(self._m, node)

    def listing(self, handle: DirectoryHandle, start: int) -> list[bytes]:
        """All names in an open directory, for a reading that goes on at number *start*.

        A start at 0 is a rewinddir(3) and sees the directory as it is now; until the next one the
        list stays the same, so that numbers are cookies.
        """
        if start == 0 or handle.names is None:
            # Not the nodes: to make those of a million entries takes seconds in which nobody else
            # is served.
            handle.names = [b".", b"..", *handle.directory.children]
        return handle.names

    def listed(self, handle: DirectoryHandle, name: bytes) -> Node | None:
        """The entry *name* of a listing, None if it went meanwhile."""
        directory = handle.directory
        if name == b".":
            return directory
        if name == b"..":
            return directory.parent or self._m.outer or directory
        return directory.children.get(name)

    async def statfs(self) -> Space:
        """Space of the bucket (M8), at most `STATFS_AGE` old if the server tells within
        `STATFS_PATIENCE`, and what it told last otherwise.
        """
        now = trio.current_time()
        if now - self._asked > STATFS_AGE:
            with trio.move_on_after(STATFS_PATIENCE):
                await self._ask_space(now)
        total, free = self._room
        return Space(total, free, files=len(self._m.namespace))

    async def learn_space(self) -> None:
        """Ask once, so that the account's limits are known when the server is away."""
        await self._ask_space(-math.inf)

    async def _ask_space(self, now: float) -> None:
        try:
            self._room = _room(await self._m.store.status(), await self._m.store.account())
        except NatsfsError as error:
            log.debug("free space is as it was: %s", error)
        else:
            self._asked = now


def _room(status: BucketStatus, account: AccountLimits) -> tuple[int, int]:
    used, limit = account.storage_used, account.storage_limit
    if status.storage == "memory":
        used, limit = account.memory_used, account.memory_limit
    limits = [UNLIMITED]
    if status.max_bytes > 0:
        limits.append(status.max_bytes - status.size)
    if limit > 0:
        limits.append((limit - used) // max(1, status.replicas))
    free = max(0, min(limits))
    return status.size + free, free
