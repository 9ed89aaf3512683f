"""One upload: chunks to a fresh nuid, then the meta.

A small object goes in one round trip, as a chain that ends with the meta; others go window by
window, and the meta follows when all is acknowledged.

Concurrency: an `Uploader` serves one upload in one task.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterable, Iterator
from dataclasses import replace

import trio

from natsfs.errors import (
    InvalidArgument,
    NatsfsError,
    ServerRefused,
)
from natsfs.store.jetstream.api import is_transient
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.jetstream.chunks import ChunkWriter
from natsfs.store.jetstream.commit import Committer, Planned
from natsfs.store.model import DEFAULT_CHUNK_SIZE, MetaWrite, ObjectInfo, ObjectMeta
from natsfs.store.protocol import parse_puback
from natsfs.store.wire import complete, new_nuid, render_digest

log = logging.getLogger(__name__)

#: Up to this size an object goes as one chain.  4 default chunks: beyond, the round trip that is
#: saved is small against the transfer, and a broken chain sends it twice.
SMALL_BYTES = 4 * DEFAULT_CHUNK_SIZE

#: Bytes of a message that are not for the chunk: the ids of a chain are 2 × 60.
HEADER_ROOM = 512

#: "wrong last msg ID": another writer's message came into a chain.
CHAIN_BROKEN = 10070

#: Seconds for freeing the chunks of a failed upload.
UNDO_TIMEOUT = 10.0


class Uploader:
    """One upload of *name*."""

    def __init__(
        self,
        bucket: Bucket,
        committer: Committer,
        name: str,
        meta: ObjectMeta,
        subject: str,
        expected: int | None,
    ) -> None:
        if not name:
            raise InvalidArgument("an object name cannot be empty")
        limit = bucket.api.session.max_payload - HEADER_ROOM
        info = ObjectInfo(
            name=name,
            bucket=bucket.name,
            subject=subject,
            nuid=new_nuid(),
            max_chunk_size=min(meta.max_chunk_size or DEFAULT_CHUNK_SIZE, limit),
            description=meta.description,
            headers=meta.headers,
            metadata=meta.metadata,
            extra=meta.extra,
        )
        self._info = complete(info, bucket.name)
        self._chunks = ChunkWriter(bucket, f"upload of {name!r}", info.nuid)
        self._committer = committer
        self._expected = expected
        self._digest = hashlib.sha256()
        self._size = 0
        self._meta_sent = False

    @property
    def placed(self) -> list[tuple[int, int]]:
        """(sequence, length) of each chunk of an upload that has run."""
        return self._chunks.placed

    async def run(self, source: AsyncIterable[bytes | bytearray | memoryview]) -> ObjectInfo:
        """Store what *source* gives.  Errors: those of `ObjectStore.upload`."""
        try:
            await self._take(source)
            meta = self._plan()
            if 0 < self._chunks.waiting == self._size <= SMALL_BYTES:
                revision = await self._chain(meta)
            else:
                await self._chunks.flush()
                revision = await self._conclude(meta, lost=False)
        except BaseException as error:
            await self._undo(error)
            raise
        return (await self._committer.stored([meta], [revision]))[0]

    async def _take(self, source: AsyncIterable[bytes | bytearray | memoryview]) -> None:
        rest = bytearray()
        async for piece in source:
            self._digest.update(piece)
            self._size += len(piece)
            rest += piece
            for data in _cut(rest, self._info.max_chunk_size):
                await self._chunks.add(data)
        if rest:
            await self._chunks.add(bytes(rest))

    def _plan(self) -> Planned:
        info = replace(
            self._info,
            size=self._size,
            chunks=self._chunks.count,
            digest=render_digest(self._digest.digest()),
        )
        return self._committer.plan(MetaWrite(info, self._expected))

    async def _chain(self, meta: Planned) -> int:
        self._meta_sent = True
        answer = await self._chunks.chain(meta.request)
        try:
            if isinstance(answer, NatsfsError):
                raise answer
            name, data = self._info.name, answer[0].data
            return parse_puback(name, data, expected=self._expected).sequence
        except NatsfsError as error:
            broken = isinstance(error, ServerRefused) and error.err_code == CHAIN_BROKEN
            if not broken and not is_transient(error):
                raise
        # Another writer came between, or answers are lost: go on one step after the other.
        await self._chunks.flush()
        return await self._conclude(meta, lost=True)

    async def _conclude(self, meta: Planned, *, lost: bool) -> int:
        await self._chunks.check()
        self._meta_sent = True
        return await self._committer.publish([meta], lost=lost)

    async def _undo(self, error: BaseException) -> None:
        """Free the chunks, unless the meta may have been stored: then they belong to it."""
        refused = isinstance(error, NatsfsError) and not is_transient(error)
        if self._meta_sent and not refused:
            log.info("whether %r was stored is unknown: its chunks stay", self._info.name)
        elif self._chunks.sent:
            await self._purge()

    async def _purge(self) -> None:
        with trio.move_on_after(UNDO_TIMEOUT, shield=True) as scope:
            try:
                await self._committer.purge(self._chunks.subject)
            except NatsfsError as failure:
                log.info("chunks on %s are left over: %s", self._chunks.subject, failure)
        if scope.cancelled_caught:
            log.info("chunks on %s are left over: no answer in time", self._chunks.subject)


def _cut(rest: bytearray, size: int) -> Iterator[bytes]:
    """Take all full chunks off the front of *rest*."""
    full = len(rest) - len(rest) % size
    for start in range(0, full, size):
        yield bytes(rest[start : start + size])
    del rest[:full]
