"""All buckets of an account as one mount: a directory of buckets, each a directory of its own (B1).

    catalogue    which buckets there are, as a store whose objects are directories
    following    keeps the catalogue true
    bucket       one of them: asleep, or awake with a filesystem of its own

The top is a `Filesystem` over the catalogue, and each bucket that is awake a `Filesystem` over its
bucket.  They are told apart by the slot in the numbers of inodes and handles; slot 0 is the top's.
An entry of the top has the number of the root of its bucket.  A bucket that is deleted and made
again gets another slot, as a directory would another inode.

Concurrency: one trio thread.  A bucket is looked up by its slot anew after every await.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import trio

from natsfs.buckets.bucket import Bucket
from natsfs.buckets.catalogue import Catalogue
from natsfs.buckets.following import Following
from natsfs.config import MountConfig
from natsfs.errors import BucketNotFoundError, DeletedBucket, NatsfsError, NotEmptyError
from natsfs.filesystem import Filesystem, Mounted, Notifier
from natsfs.filesystem.state import now_ns
from natsfs.progress import Progress, unheard
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.model import BucketStatus
from natsfs.tree.inodes import InodeTable, Numbered, is_root, root_of, slot_of
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import Directory, EntryChange, Node

log = logging.getLogger(__name__)

#: Puts together what a filesystem over a store needs.
Compose = Callable[[ObjectStore, BucketStatus], Mounted]


class AllBuckets:
    """The buckets that the user may see, as `Served` by one mount and `Neighbours` of each other.

    Buckets that wake live in *nursery*.
    """

    def __init__(
        self,
        manager: ObjectStoreManager,
        config: MountConfig,
        compose: Compose,
        nursery: trio.Nursery,
    ) -> None:
        self._manager = manager
        self._config = config
        self._compose = compose
        self._nursery = nursery
        self._by_slot: dict[int, Bucket] = {}
        self._by_name: dict[str, Bucket] = {}
        self._last_slot = 0
        self._notifier: Notifier | None = None
        self._catalogue = Catalogue(
            manager, config.tree, check_empty=self._check_empty, on_removal=self._close
        )
        self._following = Following(manager, self._catalogue)
        mounted = compose(self._catalogue, self._catalogue.described())
        mounted.inodes = _Entries(mounted.namespace.root, self._number)
        mounted.namespace.root.changed = (0, now_ns())
        mounted.only_directories = True
        mounted.tree_directory = None
        self._top = Filesystem(mounted)

    async def start(self, listing: Progress = unheard) -> None:
        """Return when all buckets are known; *listing* is told how many are.  Errors: those of
        `ObjectStoreManager.watch`."""
        await self._nursery.start(self._following.run, listing)
        await self._top.start(self._nursery)

    # -- `Served` ---------------------------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """`Served.read_only`."""
        return self._config.read_only

    async def at(self, number: int) -> Filesystem:
        """`Served.at`: a bucket wakes."""
        slot = slot_of(number)
        return await self._awake(self._in(slot)) if slot else self._top

    async def look(self, ino: int) -> tuple[Filesystem, Node]:
        """`Served.look`: the directory of a bucket that sleeps is looked at without waking it."""
        slot = slot_of(ino)
        if slot and self._in(slot).filesystem is None and is_root(ino):
            directory = await self._glimpse(self._in(slot))
            if self._in(slot).filesystem is None:
                return self._top, directory
        filesystem = await self.at(ino)
        return filesystem, filesystem.entries.node(ino)

    def known(self, number: int) -> Filesystem | None:
        """`Served.known`."""
        slot = slot_of(number)
        if not slot:
            return self._top
        return self._by_slot[slot].filesystem if slot in self._by_slot else None

    def running(self) -> dict[str, Filesystem]:
        """`Served.running`."""
        awake = ((name, bucket.filesystem) for name, bucket in self._by_name.items())
        return {name: filesystem for name, filesystem in awake if filesystem is not None}

    def tell(self, notifier: Notifier) -> None:
        """`Served.tell`."""
        self._notifier = notifier
        for filesystem in (self._top, *self.running().values()):
            filesystem.mounted.notifier = notifier

    # -- `Neighbours` -----------------------------------------------------------------------------

    def tree(self, name: bytes) -> tuple[str, Namespace | None] | None:
        """`Neighbours.tree`."""
        bucket = os.fsdecode(name)
        if bucket not in self._catalogue:
            return None
        filesystem = self.running().get(bucket)
        return bucket, None if filesystem is None else filesystem.mounted.namespace

    async def load(self, name: bytes) -> None:
        """`Neighbours.load`: the bucket wakes."""
        bucket = os.fsdecode(name)
        if bucket in self._catalogue:
            try:
                await self._awake(self._named(bucket))
            except NatsfsError as error:
                log.info("a link into bucket %s is kept as a text: %s", bucket, error)

    # -- one bucket -------------------------------------------------------------------------------

    def _in(self, slot: int) -> Bucket:
        """The bucket in *slot*.  Errors: `DeletedBucket`."""
        if slot not in self._by_slot:
            raise DeletedBucket("the bucket was deleted")
        return self._by_slot[slot]

    def _named(self, name: str) -> Bucket:
        """The bucket *name*, which gets a slot if it has none.  Errors: `BucketNotFoundError`."""
        if name not in self._by_name:
            status = self._catalogue[name]
            bucket = Bucket(
                name,
                self._new_slot(),
                lambda: self._manager.opened(status),
                self._furnish,
                timeout=self._config.server.timeout,
                patient=lambda: self._manager.patient,
                on_failure=lambda: self._give_up(bucket),
            )
            self._by_name[name] = self._by_slot[bucket.slot] = bucket
        return self._by_name[name]

    def _new_slot(self) -> int:
        self._last_slot += 1
        return self._last_slot

    def _number(self, directory: Directory) -> int:
        """The number of an entry of the top."""
        if directory.text in self._catalogue:
            return root_of(self._named(directory.text).slot)
        # It is gone, and the tree has not heard of that yet.
        return root_of(self._new_slot())

    async def _awake(self, bucket: Bucket) -> Filesystem:
        try:
            filesystem = await bucket.awake(self._nursery)
        except BucketNotFoundError as error:
            await self._following.look_for(bucket.name)
            raise DeletedBucket(str(error)) from error
        if self._notifier is not None:
            # Not before: while the bucket is loaded the kernel knows nothing that is in it, and
            # what it would have to be told would wait for the very requests that wait for this.
            filesystem.mounted.notifier = self._notifier
        return filesystem

    async def _glimpse(self, bucket: Bucket) -> Directory:
        top = self._top.mounted.namespace.root
        try:
            return await bucket.glimpse(top, self._catalogue[bucket.name].created_ns)
        except BucketNotFoundError as error:
            await self._following.look_for(bucket.name)
            raise DeletedBucket(str(error)) from error

    def _furnish(self, store: ObjectStore, status: BucketStatus, slot: int) -> Filesystem:
        mounted = self._compose(store, status)
        mounted.inodes = InodeTable(mounted.namespace.root, slot)
        mounted.outer = self._top.mounted.namespace.root
        mounted.place = (status.bucket.encode(),)
        mounted.neighbours = self
        mounted.on_gone = lambda: self._nursery.start_soon(self._following.look_for, status.bucket)
        return Filesystem(mounted)

    def _check_empty(self, name: str) -> None:
        """Errors: `NotEmptyError` when the directory of the bucket shows an entry, which may be a
        file that is not stored yet."""
        filesystem = self.running().get(name)
        if filesystem is not None and filesystem.mounted.namespace.root.children:
            raise NotEmptyError(f"bucket {name} is not empty")

    def _close(self, name: str) -> None:
        """The bucket *name* was deleted."""
        bucket = self._by_name.pop(name, None)
        if bucket is not None:
            del self._by_slot[bucket.slot]
            log.info("bucket %s was deleted", name)
            bucket.close()

    def _give_up(self, bucket: Bucket) -> None:
        """*bucket* failed: what the kernel knows of it is void, and it starts anew when it is asked
        for."""
        if self._by_slot.get(bucket.slot) is not bucket:
            return
        del self._by_slot[bucket.slot], self._by_name[bucket.name]
        top = self._top.mounted.namespace.root
        node = top.children.get(bucket.name.encode())
        if node is not None:
            node.ino = 0
            self._top.mounted.notifier.changed([EntryChange(top, node.name)])


class _Entries(InodeTable):
    """Numbers for the top: that of an entry is the one of the root of its bucket."""

    def __init__(self, root: Numbered, give: Callable[[Directory], int]) -> None:
        super().__init__(root)
        self._give = give

    def number(self, node: Numbered) -> int:
        if not node.ino:
            assert isinstance(node, Directory)
            node.ino = self._give(node)
        return node.ino
