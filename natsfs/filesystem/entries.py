"""Looking: names, attributes, listings, link texts, free space.  Nothing here changes the bucket.

Concurrency: everything but `statfs` is atomic, so an answer is the tree at one moment.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

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
        self._space: tuple[float, Space] | None = None

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

    def listing(self, handle: DirectoryHandle, start: int) -> list[tuple[bytes, Node]]:
        """All entries of an open directory, for a reading that goes on at number *start*.

        A start at 0 is a rewinddir(3) and sees the directory as it is now; until the next one the
        list stays the same, so that numbers are cookies.
        """
        if start == 0 or handle.entries is None:
            directory = handle.directory
            parent = directory.parent or self._m.outer or directory
            handle.entries = [(b".", directory), (b"..", parent), *directory.children.items()]
        return handle.entries

    def still_there(self, handle: DirectoryHandle, name: bytes, node: Node) -> bool:
        """Whether an entry of a listing is still one: what went meanwhile may be left out, and the
        kernel must not be told of nodes that are no more."""
        return name in (b".", b"..") or handle.directory.children.get(name) is node

    async def statfs(self) -> Space:
        """Space of the bucket (M8), at most `STATFS_AGE` old if the server tells within
        `STATFS_PATIENCE`, and what it told last otherwise.

        Errors: those of `ObjectStore.status` while nothing was ever told.
        """
        now = trio.current_time()
        if self._space is None or now - self._space[0] > STATFS_AGE:
            with trio.move_on_after(STATFS_PATIENCE if self._space else float("inf")):
                try:
                    self._space = (now, await self._ask_space())
                except NatsfsError as error:
                    if self._space is None:
                        raise
                    log.debug("free space is as it was: %s", error)
        assert self._space is not None
        return replace(self._space[1], files=len(self._m.namespace))

    async def learn_space(self) -> None:
        """Ask for the space once, so that there is something to tell when the server is away."""
        try:
            self._space = (-math.inf, await self._ask_space())
        except NatsfsError as error:
            log.debug("free space is not known: %s", error)

    async def _ask_space(self) -> Space:
        status = await self._m.store.status()
        return _space(status, await self._m.store.account(), len(self._m.namespace))


def _space(status: BucketStatus, account: AccountLimits, files: int) -> Space:
    used, limit = account.storage_used, account.storage_limit
    if status.storage == "memory":
        used, limit = account.memory_used, account.memory_limit
    room = [UNLIMITED]
    if status.max_bytes > 0:
        room.append(status.max_bytes - status.size)
    if limit > 0:
        room.append((limit - used) // max(1, status.replicas))
    free = max(0, min(room))
    return Space(total=status.size + free, free=free, files=files)
