"""One upload: chunks to a fresh nuid, then the meta.

A small object goes in one round trip, as a chain that ends with the meta; others go window by
window, and the meta follows when all is acknowledged.

Concurrency: an `Uploader` serves one upload in one task.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterable, Iterator, Sequence
from dataclasses import replace

import trio

from natsfs.errors import (
    InvalidArgument,
    NatsfsError,
    ServerRefused,
    WrongRevision,
)
from natsfs.store.jetstream.api import is_transient
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.jetstream.chunks import ChunkWriter
from natsfs.store.jetstream.commit import Committer, Planned
from natsfs.store.model import DEFAULT_CHUNK_SIZE, ObjectInfo
from natsfs.store.primitives import Place
from natsfs.store.protocol import parse_puback
from natsfs.store.wire import new_nuid, render_digest

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
        self, bucket: Bucket, committer: Committer, name: str, place: Place, max_chunk_size: int
    ) -> None:
        if not name:
            raise InvalidArgument("an object name cannot be empty")
        limit = bucket.api.session.max_payload - HEADER_ROOM
        self._info = ObjectInfo(
            name=name,
            bucket=bucket.name,
            subject="",
            nuid=new_nuid(),
            max_chunk_size=min(max_chunk_size or DEFAULT_CHUNK_SIZE, limit),
        )
        self._chunks = ChunkWriter(bucket, f"upload of {name!r}", self._info.nuid)
        self._committer = committer
        self._place = place
        self._digest = hashlib.sha256()
        self._size = 0
        self._meta_sent = False

    @property
    def placed(self) -> list[tuple[int, int]]:
        """(sequence, length) of each chunk of an upload that has run."""
        return self._chunks.placed

    async def run(
        self, source: AsyncIterable[bytes | bytearray | memoryview]
    ) -> tuple[ObjectInfo, ...]:
        """Store what *source* gives.  Errors: those of `ObjectStore.upload_version`."""
        try:
            await self._take(source)
            metas = await self._decide(None)
            if len(metas) == 1 and 0 < self._chunks.waiting == self._size <= SMALL_BYTES:
                return await self._chain(metas[0])
            return await self._conclude(metas, lost=False)
        except BaseException as error:
            await self._undo(error)
            raise

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

    async def _decide(self, lost: WrongRevision | None) -> list[Planned]:
        """The metas to publish, ready, after the last ones were refused with *lost*."""
        self._meta_sent = False
        version = replace(
            self._info,
            size=self._size,
            chunks=self._chunks.count,
            digest=render_digest(self._digest.digest()),
        )
        return [self._committer.plan(write) for write in await self._place(version, lost)]

    async def _chain(self, meta: Planned) -> tuple[ObjectInfo, ...]:
        self._meta_sent = True
        answer = await self._chunks.chain(meta.request)
        try:
            if isinstance(answer, NatsfsError):
                raise answer
            name, data = self._info.name, answer[0].data
            revision = parse_puback(name, data, expected=meta.expected).sequence
        except WrongRevision as error:
            return await self._conclude(await self._decide(error), lost=False)
        except NatsfsError as error:
            broken = isinstance(error, ServerRefused) and error.err_code == CHAIN_BROKEN
            if not broken and not is_transient(error):
                raise
            # Another writer came between, or answers are lost: one step after the other.
            return await self._conclude([meta], lost=True)
        return self._committer.stored([meta], [revision])

    async def _conclude(self, metas: Sequence[Planned], *, lost: bool) -> tuple[ObjectInfo, ...]:
        await self._chunks.flush()
        await self._chunks.check()
        while True:
            self._meta_sent = True
            try:
                return await self._committer.store(metas, lost=lost)
            except WrongRevision as error:
                metas, lost = await self._decide(error), False

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
