"""A complete object store in this process, behaving as nats-server does: a fake that may be
trusted, because it passes the same contract suite as the real one (tests/contract).

Concurrency: a primitive waits once, at its start (`MemoryManager.delay`), and then works on the
synchronous `MemoryStream` without another await, so that it is atomic.  Only an upload waits again:
for its source, for what decides its metas, and as operation "place" before it stores them; whether
the bucket still exists and what it holds is checked after that.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
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
    WrongRevision,
)
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.memory_stream import MemoryStream, Message, Publish, cover, cut
from natsfs.store.memory_watch import events, parse
from natsfs.store.model import (
    DEFAULT_CHUNK_SIZE,
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
)
from natsfs.store.primitives import Place
from natsfs.store.streams import stream_config
from natsfs.store.wire import (
    check_bucket_name,
    chunk_prefix,
    chunk_subject,
    complete,
    meta_subject,
    new_nuid,
    render_digest,
    render_info,
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
    def timeout(self) -> float:
        return self._manager.timeout

    async def upload_version(
        self,
        name: str,
        source: AsyncIterable[bytes | bytearray | memoryview],
        place: Place,
        *,
        max_chunk_size: int = 0,
    ) -> tuple[ObjectInfo, ...]:
        await self._begin("upload", name)
        chunk_size = max_chunk_size or DEFAULT_CHUNK_SIZE
        info = ObjectInfo(name, self.bucket, "", nuid=new_nuid(), max_chunk_size=chunk_size)
        try:
            version = await self._store_chunks(info, source)
            return await self._place(version, place)
        except BaseException:
            if not self.stream.sealed:
                self.stream.purge(chunk_subject(self.bucket, info.nuid))
            raise

    async def commit(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        await self._begin("commit", writes[0].info.name if writes else "")
        return await self._commit(writes)

    async def purge_chunks(self, nuid: str) -> int:
        subject = chunk_subject(self.bucket, nuid)
        await self._begin("purge_chunks", nuid)
        return self.stream.purge(subject)

    async def count_chunks(self) -> Mapping[str, int]:
        await self._begin("count_chunks", self.bucket)
        return self.stream.counts(chunk_prefix(self.bucket))

    async def inspect_chunks(self, nuid: str) -> ChunkSet:
        subject = chunk_subject(self.bucket, nuid)
        await self._begin("inspect_chunks", nuid)
        chunks = self.stream.on(subject)
        if not chunks:
            raise NotFoundError(f"no message on {subject}")
        size = sum(len(chunk.data) for chunk in chunks)
        return ChunkSet(nuid, len(chunks), size, chunks[-1].time_ns)

    async def purge_meta(self, subject: str, revision: int) -> int:
        await self._begin("purge_meta", subject)
        return self.stream.purge(subject, revision)

    async def get_info(self, name: str, *, show_deleted: bool = False) -> ObjectInfo:
        subject = meta_subject(self.bucket, name)
        await self._begin("get_info", name)
        info = self._info(subject)
        if info is None or (info.deleted and not show_deleted):
            raise NotFoundError(f"no object {name!r} in bucket {self.bucket!r}")
        return info

    async def get_info_at(self, subject: str) -> ObjectInfo:
        await self._begin("get_info_at", subject)
        info = self._info(subject)
        if info is None:
            raise NotFoundError(f"no message on {subject}")
        return info

    async def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        await self._begin("read", info.name)
        stop = min(stop, info.size)
        if start >= stop:
            return b""
        chunks = self.stream.on(chunk_subject(self.bucket, info.nuid))
        if len(chunks) < info.chunks or sum(len(chunk.data) for chunk in chunks) < info.size:
            raise self._gone(info)
        return b"".join(cover(chunks, start, stop))

    @asynccontextmanager
    async def watch(self, after: int = 0) -> AsyncGenerator[AsyncIterator[WatchEvent], None]:
        await self._begin("watch", self.bucket)
        with self.stream.subscribed() as messages:
            async with aclosing(events(self.stream, messages, after)) as shown:
                yield shown

    @asynccontextmanager
    async def advisories(self) -> AsyncGenerator[AsyncIterator[Advisory], None]:
        await self._begin("advisories", self.bucket)
        with self.stream.advised() as advisories:
            yield advisories

    async def survey(self, revision: int = 1) -> Survey:
        await self._begin("survey", self.bucket)
        found = self.stream.meta_messages(revision)
        if not found:
            return Survey(0)
        first = min(found, key=lambda message: message.sequence)
        return Survey(len(found), first.sequence, first.subject, first.time_ns)

    async def status(self) -> BucketStatus:
        await self._begin("status", self.bucket)
        return self._manager.status_of(self.stream)

    async def seal(self) -> None:
        await self._begin("seal", self.bucket)
        self.stream.seal()

    async def upgrade(self, *, dry_run: bool = False) -> Upgrade:
        await self._begin("upgrade", self.bucket)
        if self.stream.sealed:
            raise ReadOnlyError(f"bucket {self.bucket!r} is sealed")
        changed = () if self._manager.allow_atomic else ("allow_atomic",)
        if changed and not dry_run:
            self._manager.allow_atomic = True
            self.stream.advise(Reconfigured())
        return Upgrade(changed)

    async def account(self) -> AccountLimits:
        await self._begin("account", self.bucket)
        return self._manager.usage()

    # -- steps ---------------------------------------------------------------------------------

    async def _begin(self, operation: str, name: str) -> None:
        await self._manager.begin(operation, name)
        self._check_exists()

    def _check_exists(self) -> None:
        if self.stream.deleted:
            raise BucketNotFoundError(f"bucket {self.bucket!r} was deleted")

    async def _store_chunks(
        self, info: ObjectInfo, source: AsyncIterable[bytes | bytearray | memoryview]
    ) -> ObjectInfo:
        subject = chunk_subject(self.bucket, info.nuid)
        sha256, size, chunks = hashlib.sha256(), 0, 0
        async with aclosing(cut(source, info.max_chunk_size)) as pieces:
            async for piece in pieces:
                self._publish([Publish(subject, piece)])
                sha256.update(piece)
                size, chunks = size + len(piece), chunks + 1
        return replace(info, size=size, chunks=chunks, digest=render_digest(sha256.digest()))

    async def _place(self, version: ObjectInfo, place: Place) -> tuple[ObjectInfo, ...]:
        lost: WrongRevision | None = None
        while True:
            writes = await place(version, lost)
            await self._begin("place", version.name)
            try:
                return await self._commit(writes)
            except WrongRevision as error:
                lost = error

    async def _commit(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        if self._manager.allow_atomic and len(writes) <= BATCH_LIMIT:
            return self._store_metas(writes)
        stored: list[ObjectInfo] = []
        for write in writes:
            await self._begin("publish", write.info.name)
            stored += self._store_metas([write])
        return tuple(stored)

    def _store_metas(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        infos = [complete(write.info, self.bucket) for write in writes]
        now = self._manager.now()
        stored = self._publish(
            [
                Publish(i.subject, render_info(i, now), True, write.expected, write.ttl, i.name)
                for i, write in zip(infos, writes, strict=True)
            ]
        )
        return tuple(
            replace(info, revision=message.sequence, time_ns=now, ttl=message.ttl)
            for info, message in zip(infos, stored, strict=True)
        )

    def _publish(self, batch: Sequence[Publish]) -> list[Message]:
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
    has atomic batches.  *timeout* is that of the stores.  All may be changed at any time.
    """

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

    async def list(self) -> list[BucketStatus]:
        await self.begin("list", "")
        return [self.status_of(store.stream) for _, store in sorted(self._stores.items())]

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[BucketEvent], None]:
        send, receive = trio.open_memory_channel[BucketEvent](math.inf)
        for status in await self.list():
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
