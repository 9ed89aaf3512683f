"""The buckets of an account as a store of its own, in which each is the marker of a directory.

With it a `Filesystem` shows the buckets as directories and needs to know nothing of them: to make
a directory stores a marker, which creates a bucket; to remove one stores a tombstone, which deletes
it.  Nothing else can be stored.

What is known of the buckets comes from `add` and `remove`, which whoever follows them calls, and
from the changes made here.  Revisions are numbers of this process: which of two changes comes first
is decided by the server.

Concurrency: everything but `commit`, `status` and `account` is atomic.  While `commit` waits for
the server, the same change may be told by `add` or `remove`; it is then taken for done.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from natsfs.config import TreeConfig
from natsfs.errors import (
    BucketNotFoundError,
    ExistsError,
    NatsfsError,
    NotEmptyError,
    NotFoundError,
    NotPermitted,
)
from natsfs.filesystem.attributes import encode, of_directory
from natsfs.progress import Progress, unheard
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.model import (
    NOTHING,
    AccountLimits,
    Advisory,
    BucketConfig,
    BucketStatus,
    CaughtUp,
    ChunkSet,
    Malformed,
    MetaWrite,
    ObjectInfo,
    Restarted,
    Updated,
    Upgrade,
    WatchEvent,
    identity_of,
)
from natsfs.store.primitives import Draft
from natsfs.store.wire import meta_subject
from natsfs.tree.nodes import ROOT_MARKER

log = logging.getLogger(__name__)

#: What the store is called; no server hears of it.
NAME = "buckets"


class Catalogue(ObjectStore):
    """Which buckets there are.

    *check_empty* raises for a bucket with entries that the server may not know; *on_removal* is
    called with the name of each bucket that is gone.
    """

    def __init__(
        self,
        manager: ObjectStoreManager,
        tree: TreeConfig,
        *,
        check_empty: Callable[[str], None],
        on_removal: Callable[[str], None],
    ) -> None:
        self._manager = manager
        self._usual = encode(of_directory(None, 0, tree)[0])
        self._check_empty = check_empty
        self._on_removal = on_removal
        self._created_ns = time.time_ns()
        self._revision = 0
        self._known: dict[str, tuple[BucketStatus, ObjectInfo]] = {}
        self._watchers: set[trio.MemorySendChannel[WatchEvent]] = set()

    # -- what is known ----------------------------------------------------------------------------

    def __contains__(self, bucket: str) -> bool:
        return bucket in self._known

    def __getitem__(self, bucket: str) -> BucketStatus:
        """*bucket* as it was when it was found.  Errors: `BucketNotFoundError`."""
        if bucket not in self._known:
            raise BucketNotFoundError(f"no bucket {bucket!r}")
        return self._known[bucket][0]

    def names(self) -> list[str]:
        """All that are known."""
        return list(self._known)

    def add(self, status: BucketStatus) -> ObjectInfo:
        """There is a bucket; one of that name which was created at another time is gone."""
        known = self._known.get(status.bucket)
        if known is not None and known[0].created_ns != status.created_ns:
            self.remove(status.bucket, known[0].created_ns)
            known = None
        info = known[1] if known is not None else self._stamped(status.bucket, status.created_ns)
        self._known[status.bucket] = (status, info)
        # Told again, it confirms what this mount has done.
        self._publish(info)
        return info

    def remove(self, bucket: str, created_ns: int) -> None:
        """The bucket that was created at *created_ns* is gone."""
        known = self._known.get(bucket)
        if known is not None and known[0].created_ns == created_ns:
            del self._known[bucket]
            self._publish(replace(self._stamped(bucket, time.time_ns()), deleted=True))
            self._on_removal(bucket)

    def _stamped(self, bucket: str, time_ns: int) -> ObjectInfo:
        self._revision += 1
        name = f"{bucket}/"
        subject = meta_subject(NAME, name)
        return ObjectInfo(name, NAME, subject, revision=self._revision, time_ns=time_ns)

    def _publish(self, info: ObjectInfo) -> None:
        for watcher in self._watchers:
            watcher.send_nowait(Updated(info))

    # -- the store --------------------------------------------------------------------------------

    @property
    def bucket(self) -> str:
        return NAME

    @property
    def identity(self) -> str:
        return identity_of("", self._created_ns)

    async def commit(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        """Create or delete one bucket.

        Errors: `NotPermitted` (anything else), `ExistsError`, `InvalidArgument` (the name),
        `NotEmptyError`, those of `ObjectStoreManager`.
        """
        name = writes[0].info.name
        bucket = name.removesuffix("/")
        if len(writes) > 1 or name in (bucket, ROOT_MARKER):
            raise NotPermitted(
                "a directory of buckets has no attributes, and they keep their names"
            )
        if writes[0].info.deleted:
            return (await self._delete(bucket),)
        return (await self._create(bucket, writes[0].info.metadata),)

    async def _create(self, bucket: str, metadata: Mapping[str, str]) -> ObjectInfo:
        try:
            store = await self._manager.create(BucketConfig(bucket))
        except ExistsError:
            await self._find(bucket)
            raise
        # A bucket that looks as one without a marker does needs none.
        if any(metadata[key] != self._usual[key] for key in ("mode", "uid", "gid")):
            marker = ObjectInfo(ROOT_MARKER, bucket, "", metadata=metadata)
            await store.commit([MetaWrite(marker, 0)])
        return self.add(await store.status())

    async def _find(self, bucket: str) -> None:
        """*bucket* exists: where nobody has told of it yet, add it."""
        if bucket not in self:
            try:
                self.add(await (await self._manager.bind(bucket)).status())
            except NatsfsError as error:
                log.debug("bucket %s exists and cannot be shown yet: %s", bucket, error)

    async def _delete(self, bucket: str) -> ObjectInfo:
        if bucket in self:
            status = self[bucket]
            try:
                await check_nothing_stored(self._manager.opened(status))
                self._check_empty(bucket)
                await self._manager.delete(bucket)
            except BucketNotFoundError as error:
                log.debug("somebody else was faster: %s", error)
            self.remove(bucket, status.created_ns)
        return replace(self._stamped(bucket, time.time_ns()), deleted=True)

    async def get_info(self, name: str, *, show_deleted: bool = False) -> ObjectInfo:
        return await self.get_info_at(meta_subject(NAME, name))

    async def get_info_at(self, subject: str) -> ObjectInfo:
        for _, info in self._known.values():
            if info.subject == subject:
                return info
        raise NotFoundError(f"no bucket on {subject}")

    @asynccontextmanager
    async def watch(self, after: int = 0) -> AsyncGenerator[AsyncIterator[WatchEvent], None]:
        send, receive = trio.open_memory_channel[WatchEvent](math.inf)
        send.send_nowait(Restarted(self._created_ns))
        for _, info in self._known.values():
            send.send_nowait(Updated(info))
        send.send_nowait(CaughtUp(self._revision))
        self._watchers.add(send)
        try:
            yield receive
        finally:
            self._watchers.discard(send)
            send.close()

    async def status(self) -> BucketStatus:
        return self.described((await self.account()).storage_used)

    def described(self, used: int = 0) -> BucketStatus:
        """The account, of which *used* bytes are used, as one bucket without a limit of its own."""
        return BucketStatus(
            bucket=NAME,
            stream="",
            description="",
            ttl=None,
            max_bytes=-1,
            storage="file",
            replicas=1,
            sealed=False,
            compression=False,
            metadata=NOTHING,
            size=used,
            messages=0,
            last_revision=self._revision,
            created_ns=self._created_ns,
            allow_atomic=True,
        )

    async def account(self) -> AccountLimits:
        return await self._manager.account()

    @property
    def timeout(self) -> float:
        # What is waited for are calls of the manager, which have deadlines of their own.
        return math.inf

    @property
    def patient(self) -> bool:
        return self._manager.patient

    def draft(self, name: str, *, max_chunk_size: int = 0) -> Draft:
        raise NotPermitted("files are in buckets")

    async def purge_chunks(self, nuid: str) -> int:
        return 0

    async def count_chunks(self, progress: Progress = unheard) -> Mapping[str, int]:
        return {}

    async def inspect_chunks(self, nuid: str) -> ChunkSet:
        raise NotFoundError(f"no version {nuid}")

    async def purge_meta(self, subject: str, revision: int) -> int:
        return 0

    async def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        return b""

    @asynccontextmanager
    async def advisories(self) -> AsyncGenerator[AsyncIterator[Advisory], None]:
        # Whatever happens to a bucket, its own tree hears of it.
        send, receive = trio.open_memory_channel[Advisory](0)
        with send, receive:
            yield receive

    async def survey(self, revision: int = 1) -> None:
        return None

    async def seal(self) -> None:
        raise NotPermitted("buckets are sealed one by one")

    async def upgrade(self, *, dry_run: bool = False) -> Upgrade:
        raise NotPermitted("buckets are upgraded one by one")


async def check_nothing_stored(store: ObjectStore) -> None:
    """Errors: `NotEmptyError` when the bucket has an object that is shown, or one that cannot be;
    those of `ObjectStore.watch`.  The marker of the bucket's own directory is not shown."""
    async with store.watch() as events:
        async for event in events:
            match event:
                case CaughtUp():
                    return
                case Malformed():
                    log.info("bucket %s is not removed: %s", store.bucket, event.reason)
                    raise NotEmptyError(f"bucket {store.bucket} has an object without a shape")
                case Updated(info) if not info.deleted and info.name != ROOT_MARKER:
                    raise NotEmptyError(f"bucket {store.bucket} is not empty")
