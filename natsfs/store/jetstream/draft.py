"""A version on its way: chunks to a fresh nuid, then the metas that give it a name.

A small version goes in one round trip, as a chain that ends with its meta, where the stream has no
replicas; others go window by window while their bytes come, and the metas follow when all is
acknowledged.

Concurrency: a draft serves one task at a time.  While a thread hashes, nothing is written to the
draft, and the thread is waited for even when the task is cancelled.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import trio

from natsfs.errors import (
    ConnectionLost,
    InvalidArgument,
    NatsfsError,
    NotSent,
    ServerRefused,
    WrongRevision,
)
from natsfs.store.jetstream.api import is_transient
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.jetstream.chunks import ChunkWriter
from natsfs.store.jetstream.commit import Committer, Planned
from natsfs.store.jetstream.reader import ChunkReader
from natsfs.store.model import DEFAULT_CHUNK_SIZE, ObjectInfo
from natsfs.store.primitives import Data, Draft, Place
from natsfs.store.protocol import parse_puback
from natsfs.store.wire import new_nuid, render_digest
from natsfs.threads import in_thread_or_here

log = logging.getLogger(__name__)

#: Up to this size an object goes as one chain.  4 default chunks: beyond, the round trip that is
#: saved is small against the transfer, and a broken chain sends it twice.
SMALL_BYTES = 4 * DEFAULT_CHUNK_SIZE

#: Bytes of a message that are not for the chunk: the ids of a chain are 2 × 60.
HEADER_ROOM = 512

#: Bytes that are hashed on the spot: they take 36 µs, the way to a thread and back takes 92 µs.
INLINE = 64 * 1024

#: "wrong last msg ID": another writer's message came into a chain.
CHAIN_BROKEN = 10070

#: Seconds for freeing the chunks of a failed upload.
UNDO_TIMEOUT = 10.0


class JetStreamDraft(Draft):
    """A version for object *name*, as far as messages say."""

    def __init__(
        self,
        bucket: Bucket,
        committer: Committer,
        reader: ChunkReader,
        name: str,
        max_chunk_size: int,
    ) -> None:
        if not name:
            raise InvalidArgument("an object name cannot be empty")
        if max_chunk_size < 0:
            raise InvalidArgument(f"chunk size {max_chunk_size}")
        limit = max(bucket.max_message - HEADER_ROOM, 1)
        self._info = ObjectInfo(
            name="",
            bucket=bucket.name,
            subject="",
            nuid=new_nuid(),
            max_chunk_size=min(max_chunk_size or DEFAULT_CHUNK_SIZE, limit),
        )
        self._name = name
        self._chunks = ChunkWriter(bucket, f"upload of {name!r}", self._info.nuid)
        self._committer = committer
        self._reader = reader
        self._digest = hashlib.sha256()
        self._incoming: deque[memoryview] = deque()  # not cut into chunks yet
        self._uncut = 0
        self._unhashed: list[Data] = []
        self._remembered = 0
        self._meta_sent = False
        self._uncertain = False

    @property
    def nuid(self) -> str:
        return self._info.nuid

    @property
    def acknowledged(self) -> int:
        return self._chunks.placed.size

    @property
    def begun(self) -> bool:
        return self._chunks.sent

    @property
    def uncertain(self) -> bool:
        return self._uncertain

    def stored(self) -> ObjectInfo:
        placed = self._chunks.placed
        info = replace(self._info, size=placed.size, chunks=len(placed))
        if self._remembered != len(placed):
            self._reader.remember(info, placed)
            self._remembered = len(placed)
        return info

    async def write(self, data: Data) -> None:
        self._take(memoryview(data))
        size = self._info.max_chunk_size
        while True:
            full = self._chunks.full
            while not full and self._uncut >= size:
                full = self._chunks.add(self._cut(size))
            if not full:
                return
            await self._store()

    async def flush(self) -> None:
        await self.write(b"")
        await self._store()

    async def commit(self, name: str, place: Place) -> tuple[ObjectInfo, ...]:
        self._name = name
        try:
            await self.write(b"")
            if self._uncut:
                self._chunks.add(self._cut(self._uncut))
            stored = await self._commit(place)
        except BaseException as error:
            refused = isinstance(error, NatsfsError) and not is_transient(error)
            self._uncertain |= self._meta_sent and not refused
            if isinstance(error, ConnectionLost) and not self._uncertain:
                raise NotSent(str(error)) from None
            raise
        self._reader.remember(stored[-1], self._chunks.placed)
        return stored

    async def abandon(self) -> None:
        if self._uncertain:
            log.info("whether %r was stored is unknown: its chunks stay", self._name)
        elif self._chunks.sent:
            await self._purge()

    # -- bytes ------------------------------------------------------------------------------------

    def _take(self, data: memoryview) -> None:
        if data:
            self._incoming.append(data)
            self._unhashed.append(data)
            self._uncut += len(data)

    def _cut(self, size: int) -> Data:
        """The next *size* bytes, which are there, without a copy where they are in one piece."""
        self._uncut -= size
        parts: list[memoryview] = []
        while size:
            piece = self._incoming.popleft()
            if len(piece) > size:
                self._incoming.appendleft(piece[size:])
                piece = piece[:size]
            parts.append(piece)
            size -= len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _store(self) -> None:
        """Store the chunks of the window, and hash meanwhile.  Errors: those of `flush`."""
        if sum(map(len, self._unhashed)) <= INLINE:
            self._hash_now()
            return await self._chunks.flush()
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hash)
            try:
                await self._chunks.flush()
            except Exception as error:
                failure = error  # out of the nursery, which would put it into a group
        if failure is not None:
            raise failure
        return None

    async def _hash(self) -> None:
        await in_thread_or_here(self._hash_now)

    def _hash_now(self) -> None:
        for piece in self._unhashed:
            self._digest.update(piece)
        self._unhashed = []

    # -- metas ------------------------------------------------------------------------------------

    async def _commit(self, place: Place) -> tuple[ObjectInfo, ...]:
        size = self._chunks.placed.size + self._chunks.waiting
        small = 0 < self._chunks.waiting == size <= SMALL_BYTES
        if small and self._chunks.may_chain and not self._uncertain:
            self._hash_now()
            metas = await self._decide(place, None)
            if len(metas) == 1:
                return await self._chain(metas[0], place)
            await self._store()
        else:
            await self._store()
            metas = await self._decide(place, None)
        return await self._conclude(metas, place, lost=False)

    async def _decide(self, place: Place, lost: WrongRevision | None) -> list[Planned]:
        """The metas to publish, ready, after the last ones were refused with *lost*."""
        self._meta_sent = False
        version = replace(
            self._info,
            name=self._name,
            size=self._chunks.placed.size + self._chunks.waiting,
            chunks=self._chunks.count,
            digest=render_digest(self._digest.digest()),
        )
        return [self._committer.plan(write) for write in await place(version, lost)]

    async def _chain(self, meta: Planned, place: Place) -> tuple[ObjectInfo, ...]:
        self._meta_sent = True
        try:
            answer = await self._chunks.chain(meta.request)
        except ConnectionLost:
            self._meta_sent = False
            raise
        try:
            if isinstance(answer, NatsfsError):
                raise answer
            data = answer[0].data
            revision = parse_puback(
                self._name, data, expected=meta.expected, domain=self._chunks.domain
            ).sequence
        except WrongRevision as error:
            metas = await self._decide(place, error)
            return await self._conclude(metas, place, lost=False)
        except NatsfsError as error:
            broken = isinstance(error, ServerRefused) and error.err_code == CHAIN_BROKEN
            if not broken and not is_transient(error):
                raise
            # Another writer came between, or answers are lost: one step after the other.
            return await self._conclude([meta], place, lost=True)
        self._chunks.chained(revision)
        return self._committer.stored([meta], [revision])

    async def _conclude(
        self, metas: Sequence[Planned], place: Place, *, lost: bool
    ) -> tuple[ObjectInfo, ...]:
        await self._chunks.flush()
        await self._chunks.check()
        while True:
            self._meta_sent = True
            try:
                identity = self._chunks.identity
                return await self._committer.store(metas, identity=identity, lost=lost)
            except NotSent:
                self._meta_sent = False
                raise
            except WrongRevision as error:
                metas, lost = await self._decide(place, error), False

    async def _purge(self) -> None:
        with trio.move_on_after(UNDO_TIMEOUT, shield=True) as scope:
            try:
                await self._committer.purge(self._chunks.subject)
            except NatsfsError as failure:
                log.info("chunks on %s are left over: %s", self._chunks.subject, failure)
        if scope.cancelled_caught:
            log.info("chunks on %s are left over: no answer in time", self._chunks.subject)
