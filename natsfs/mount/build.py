"""What a mount shows, put together: the filesystem of one bucket, or of all."""

from __future__ import annotations

import logging
import os
import time
from pathlib import PurePosixPath

import trio

from natsfs.buckets import AllBuckets
from natsfs.config import MountConfig
from natsfs.data.cache import BlockCache
from natsfs.data.journal import Journal
from natsfs.data.journals import Journals
from natsfs.data.outflow import Outflows
from natsfs.data.reader import ObjectReader
from natsfs.data.runs import About, Run
from natsfs.errors import BucketNotFoundError, ExistsError
from natsfs.filesystem import Filesystem, Mounted, Served
from natsfs.filesystem.attributes import is_hard_link
from natsfs.filesystem.purger import Purger
from natsfs.filesystem.reservations import Reservations
from natsfs.metrics import Metrics
from natsfs.mount.holders import Holders
from natsfs.progress import Progress, unheard
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.model import BucketConfig, BucketStatus
from natsfs.tree.inodes import InodeTable
from natsfs.tree.namespace import Namespace

log = logging.getLogger(__name__)

#: Seconds between two words about how far the tree is: who waits is a person.
TELLING = 0.2


async def build(
    manager: ObjectStoreManager,
    config: MountConfig,
    nursery: trio.Nursery,
    cache: BlockCache,
    metrics: Metrics,
    listing: Progress = unheard,
) -> Served:
    """The bucket of *config* with its tree complete, or all buckets; it lives in *nursery*.
    *listing* is told how far the tree is.

    Errors: `BucketNotFoundError`, `PermissionsError`, those of `ObjectStoreManager`.
    """

    def compose(store: ObjectStore, status: BucketStatus) -> Mounted:
        return _compose(store, status, config, cache, nursery, metrics)

    if not config.bucket:
        buckets = AllBuckets(manager, config, compose, nursery)
        await buckets.start(listing)
        return buckets
    store = await _open_bucket(manager, config)
    filesystem = Filesystem(compose(store, await store.status()))
    telling = trio.CancelScope()
    nursery.start_soon(_tell, filesystem, listing, telling)
    try:
        await filesystem.start(nursery)
    finally:
        telling.cancel()
    return filesystem


async def _tell(filesystem: Filesystem, listing: Progress, telling: trio.CancelScope) -> None:
    """Tell *listing* how far the tree is, until *telling* is cancelled."""
    with telling:
        while True:
            await trio.sleep(TELLING)
            listing(*filesystem.loaded())


async def _open_bucket(manager: ObjectStoreManager, config: MountConfig) -> ObjectStore:
    try:
        return await manager.bind(config.bucket)
    except BucketNotFoundError:
        if not config.create:
            raise
    try:
        return await manager.create(BucketConfig(config.bucket))
    except ExistsError:
        # Another mount with --create was faster.
        return await manager.bind(config.bucket)


def _compose(
    store: ObjectStore,
    status: BucketStatus,
    config: MountConfig,
    cache: BlockCache,
    nursery: trio.Nursery,
    metrics: Metrics,
) -> Mounted:
    """What the filesystem of a bucket stands on."""
    namespace = Namespace(is_hard_link)
    # Until something is in it, the bucket's directory is as old as the bucket.
    namespace.root.changed = (0, status.created_ns)
    purger = Purger(store, config.purge_delay)

    def journal(identity: str) -> Journal:
        run = Run(config.cache.directory, _about(config, status.bucket, identity))
        return Journal(run, store.timeout, cache)

    mounted = Mounted(
        store=store,
        namespace=namespace,
        inodes=InodeTable(namespace.root),
        reader=ObjectReader(store, cache, status.identity, nursery, metrics=metrics),
        purger=purger,
        outflows=Outflows(store, nursery, purger.drain, purger.discard, metrics),
        reservations=Reservations(),
        tree=config.tree,
        root=PurePosixPath(config.directory),
        journal=Journals(journal, status.identity),
        writeback=config.writeback,
        tree_directory=config.cache.directory,
        read_only_mount=config.read_only,
        metrics=metrics,
        conflict=config.conflict,
        holders=Holders(config.directory),
        noatime="noatime" in config.kernel_options,
        nodiratime="nodiratime" in config.kernel_options,
    )
    mounted.adopt(status)
    if mounted.read_only is not None and not config.read_only:
        log.info("%s: mounted read-only", mounted.read_only)
    return mounted


def _about(config: MountConfig, bucket: str, identity: str) -> About:
    return About(
        bucket=bucket,
        identity=identity,
        source=config.source,
        directory=str(config.directory),
        host=config.conflict.host,
        pid=os.getpid(),
        began_ns=time.time_ns(),
    )
