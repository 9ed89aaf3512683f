"""A complete object store in this process, behaving as nats-server does: a fake that may be
trusted, because it passes the same contract suite as the real one (tests/contract).

Concurrency: a primitive waits once, at its start (`MemoryManager.delay`), and then works on the
synchronous `MemoryStream` without another await, so that it is atomic.  A draft (`memory_draft`)
waits again and again; whether the bucket still exists and what it holds is checked after that.
"""

from __future__ import annotations

import math
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import trio

from natsfs.errors import (
    BucketNotFoundError,
    ChunkMissing,
    ExistsError,
    MalformedMeta,
    NotFoundError,
    QuotaExceededError,
    ReadOnlyError,
    StaleVersion,
)
from natsfs.progress import Progress, unheard
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.memory_draft import MemoryDraft
from natsfs.store.memory_stream import MemoryStream, Message, Publish, cover
from natsfs.store.memory_watch import events, parse
from natsfs.store.model import (
    AccountLimits,
    Advisory,
    BucketConfig,
    BucketCreated,
    BucketDeleted,
    BucketEvent,
    BucketsListed,
    BucketStatus,
    ChunkSet,
    MetaWrite,
    ObjectInfo,
    Reconfigured,
    Survey,
    Upgrade,
    WatchEvent,
    identity_of,
)
from natsfs.store.primitives import Draft
from natsfs.store.streams import stream_config
from natsfs.store.wire import (
    check_bucket_name,
    chunk_prefix,
    chunk_subject,
    complete,
    meta_subject,
    render_info,
    stream_name,
)

#: How many messages one atomic batch may have (protocol.md 2.5).
BATCH_LIMIT = 1000


class MemoryStore(ObjectStore):
    """One bucket of a `MemoryManager`, which makes them.  *stream* is what the server holds."""

    def __init__(self, manager: MemoryManager, stream: MemoryStream) -> None:
        self.stream = stream
        self._manager = manager

    @property
    def bucket(self) -> str:
        return self.stream.config.bucket

    @property
    def identity(self) -> str:
        return identity_of(stream_name(self.bucket), self.stream.created_ns)

    @property
    def timeout(self) -> float:
        return self._manager.timeout

    @property
    def patient(self) -> bool:
        return self._manager.patient

    def draft(self, name: str, *, max_chunk_size: int = 0) -> Draft:
        return MemoryDraft(self, name, max_chunk_size)

    async def commit(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        await self.begin("commit", writes[0].info.name if writes else "")
        return await self.store_metas(writes)

    async def purge_chunks(self, nuid: str) -> int:
        subject = chunk_subject(self.bucket, nuid)
        await self.begin("purge_chunks", nuid)
        return self.stream.purge(subject)

    async def count_chunks(self, progress: Progress = unheard) -> Mapping[str, int]:
        progress(0, 0)
        await self.begin("count_chunks", self.bucket)
        counts = self.stream.counts(chunk_prefix(self.bucket))
        progress(len(counts), len(counts))
        return counts

    async def inspect_chunks(self, nuid: str) -> ChunkSet:
        subject = chunk_subject(self.bucket, nuid)
        await self.begin("inspect_chunks", nuid)
        chunks = self.stream.on(subject)
        if not chunks:
            raise NotFoundError(f"no message on {subject}")
        size = sum(len(chunk.data) for chunk in chunks)
        return ChunkSet(nuid, len(chunks), size, chunks[-1].time_ns)

    async def purge_meta(self, subject: str, revision: int) -> int:
        await self.begin("purge_meta", subject)
        return self.stream.purge(subject, revision)

    async def get_info(self, name: str, *, show_deleted: bool = False) -> ObjectInfo:
        subject = meta_subject(self.bucket, name)
        await self.begin("get_info", name)
        info = self._info(subject)
        if info is None or (info.deleted and not show_deleted):
            raise NotFoundError(f"no object {name!r} in bucket {self.bucket!r}")
        return info

    async def get_info_at(self, subject: str) -> ObjectInfo:
        await self.begin("get_info_at", subject)
        info = self._info(subject)
        if info is None:
            raise NotFoundError(f"no message on {subject}")
        return info

    async def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        await self.begin("read", info.name)
        stop = min(stop, info.size)
        if start >= stop:
            return b""
        chunks = self.stream.on(chunk_subject(self.bucket, info.nuid))
        if len(chunks) < info.chunks or sum(len(chunk.data) for chunk in chunks) < info.size:
            raise self._gone(info)
        return b"".join(cover(chunks, start, stop))

    @asynccontextmanager
    async def watch(self, after: int = 0) -> AsyncGenerator[AsyncIterator[WatchEvent], None]:
        await self.begin("watch", self.bucket)
        with self.stream.subscribed() as messages:
            async with aclosing(events(self.stream, messages, after)) as shown:
                yield shown

    @asynccontextmanager
    async def advisories(self) -> AsyncGenerator[AsyncIterator[Advisory], None]:
        await self.begin("advisories", self.bucket)
        with self.stream.advised() as advisories:
            yield advisories

    async def survey(self, revision: int = 1) -> Survey:
        await self.begin("survey", self.bucket)
        found = self.stream.meta_messages(revision)
        if not found:
            return Survey(0)
        first = min(found, key=lambda message: message.sequence)
        return Survey(len(found), first.sequence, first.subject, first.time_ns)

    async def status(self) -> BucketStatus:
        await self.begin("status", self.bucket)
        return self._manager.status_of(self.stream)

    async def seal(self) -> None:
        await self.begin("seal", self.bucket)
        self.stream.seal()

    async def upgrade(self, *, dry_run: bool = False) -> Upgrade:
        await self.begin("upgrade", self.bucket)
        if self.stream.sealed:
            raise ReadOnlyError(f"bucket {self.bucket!r} is sealed")
        changed = () if self._manager.allow_atomic else ("allow_atomic",)
        if changed and not dry_run:
            self._manager.allow_atomic = True
            self.stream.advise(Reconfigured())
        return Upgrade(changed)

    async def account(self) -> AccountLimits:
        await self.begin("account", self.bucket)
        return self._manager.usage()

    # -- steps ---------------------------------------------------------------------------------

    async def begin(self, operation: str, name: str) -> None:
        """`MemoryManager.begin`.  Errors: `BucketNotFoundError`."""
        await self._manager.begin(operation, name)
        self._check_exists()

    def _check_exists(self) -> None:
        if self.stream.deleted:
            raise BucketNotFoundError(f"bucket {self.bucket!r} was deleted")

    async def store_metas(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        """`commit`, after its wait."""
        if self._manager.allow_atomic and len(writes) <= BATCH_LIMIT:
            return self._store_metas(writes)
        stored: list[ObjectInfo] = []
        for write in writes:
            await self.begin("publish", write.info.name)
            stored += self._store_metas([write])
        return tuple(stored)

    def _store_metas(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        infos = [complete(write.info, self.bucket) for write in writes]
        now = self._manager.now()
        stored = self.publish(
            [
                Publish(i.subject, render_info(i, now), True, write.expected, write.ttl, i.name)
                for i, write in zip(infos, writes, strict=True)
            ]
        )
        return tuple(
            replace(info, revision=message.sequence, time_ns=now, ttl=message.ttl)
            for info, message in zip(infos, stored, strict=True)
        )

    def publish(self, batch: Sequence[Publish]) -> list[Message]:
        """`MemoryStream.publish`.  Errors: `BucketNotFoundError`, `QuotaExceededError`."""
        self._check_exists()
        self._manager.check_quota(sum(publish.cost for publish in batch))
        return self.stream.publish(*batch)

    def _info(self, subject: str) -> ObjectInfo | None:
        message = self.stream.last(subject)
        return None if message is None else parse(self.stream, message)

    def _gone(self, info: ObjectInfo) -> StaleVersion | ChunkMissing:
        try:
            now = self._info(info.subject)
        except MalformedMeta:
            now = None
        if now is None or now.deleted or now.nuid != info.nuid:
            return StaleVersion(f"version {info.nuid} of {info.name!r} was purged")
        return ChunkMissing(f"chunks of {info.name!r}, version {info.nuid}, are missing")


class MemoryManager(ObjectStoreManager):
    """All buckets, and the knobs.

    *delay* is what every primitive waits at its start, in seconds.  *fail* is asked then, with the
    primitive's name and the object's (or nuid, subject, bucket), and what it returns is raised.
    *storage_limit* is the account's, in bytes, -1 for none.  *allow_atomic* is whether the server
    has atomic batches.  *timeout* and *patient* are those of the stores.  All may be changed
    at any time.
    """

    patient = False

    def __init__(self) -> None:
        self.delay: float = 0.0
        self.timeout = 60.0
        self.fail: Callable[[str, str], Exception | None] = lambda operation, name: None
        self.storage_limit = -1
        self.allow_atomic = True
        self._stores: dict[str, MemoryStore] = {}
        self._watchers: set[trio.MemorySendChannel[BucketEvent]] = set()
        self._last_ns = 0

    async def create(self, config: BucketConfig) -> MemoryStore:
        stream_config(config)
        await self.begin("create", config.bucket)
        if config.bucket in self._stores:
            raise ExistsError(f"bucket {config.bucket!r} exists")
        self.check_quota(max(config.max_bytes, 0))
        store = MemoryStore(self, MemoryStream(config, self.now))
        self._stores[config.bucket] = store
        self._tell(BucketCreated(self.status_of(store.stream)))
        return store

    async def bind(self, bucket: str) -> MemoryStore:
        check_bucket_name(bucket)
        await self.begin("bind", bucket)
        return self._find(bucket)

    async def delete(self, bucket: str) -> None:
        check_bucket_name(bucket)
        await self.begin("delete", bucket)
        stream = self._find(bucket).stream
        stream.delete()
        del self._stores[bucket]
        self._tell(BucketDeleted(bucket, stream.created_ns))

    def opened(self, status: BucketStatus) -> MemoryStore:
        # One that is gone answers as a server would: every call says so.
        store = self._stores.get(status.bucket)
        if store is None:
            store = MemoryStore(self, MemoryStream(BucketConfig(status.bucket), self.now))
            store.stream.delete()
        return store

    async def list(self, progress: Progress = unheard) -> list[BucketStatus]:
        progress(0, 0)
        await self.begin("list", "")
        found = [self.status_of(store.stream) for _, store in sorted(self._stores.items())]
        progress(len(found), len(found))
        return found

    @asynccontextmanager
    async def watch(
        self, progress: Progress = unheard
    ) -> AsyncGenerator[AsyncIterator[BucketEvent], None]:
        send, receive = trio.open_memory_channel[BucketEvent](math.inf)
        for status in await self.list(progress):
            send.send_nowait(BucketCreated(status))
        send.send_nowait(BucketsListed())
        self._watchers.add(send)
        try:
            yield receive
        finally:
            self._watchers.discard(send)
            send.close()

    async def account(self) -> AccountLimits:
        await self.begin("account", "")
        return self.usage()

    def _tell(self, event: BucketEvent) -> None:
        for watcher in self._watchers:
            watcher.send_nowait(event)

    # -- what the stores share -------------------------------------------------------------------

    async def begin(self, operation: str, name: str) -> None:
        """Wait *delay* seconds, then fail if *fail* says so.  Always a checkpoint."""
        await trio.sleep(self.delay)
        error = self.fail(operation, name)
        if error is not None:
            raise error

    def now(self) -> int:
        """The server's clock, in nanoseconds: never the same twice."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

    def usage(self) -> AccountLimits:
        """The storage of all buckets together."""
        sizes = {"file": 0, "memory": 0}
        for store in self._stores.values():
            sizes[store.stream.config.storage] += store.stream.size
        return AccountLimits(sizes["file"], self.storage_limit, sizes["memory"], -1)

    def check_quota(self, more: int) -> None:
        """Errors: `QuotaExceededError` when *more* bytes would pass *storage_limit*."""
        used = self.usage().storage_used
        if more and 0 <= self.storage_limit < used + more:
            raise QuotaExceededError("resource limits exceeded for account")

    def status_of(self, stream: MemoryStream) -> BucketStatus:
        """*stream* as the server would describe it."""
        return stream.status(allow_atomic=self.allow_atomic, asked_ns=self.now())

    def _find(self, bucket: str) -> MemoryStore:
        try:
            return self._stores[bucket]
        except KeyError:
            raise BucketNotFoundError(f"no bucket {bucket!r}") from None
