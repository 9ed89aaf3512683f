"""The in-memory store's versions on their way, acknowledged window by window as a server's are.

Concurrency: a draft waits as operation "upload" before it stores a window, and as "place" before
it stores metas; what it then stores, it stores without another await.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from natsfs.errors import (
    InvalidArgument,
    NatsfsError,
    ReadOnlyError,
    ReplacedBucket,
    RequestTimeout,
    WrongRevision,
)
from natsfs.store.memory_stream import MemoryStream, Message, Publish
from natsfs.store.model import DEFAULT_CHUNK_SIZE, MetaWrite, ObjectInfo
from natsfs.store.primitives import Data, Draft, Place
from natsfs.store.wire import chunk_subject, new_nuid, render_digest

#: Chunks that wait to be stored together.
WINDOW_CHUNKS = 8


class Host(Protocol):
    """What a draft needs from its store."""

    stream: MemoryStream

    @property
    def identity(self) -> str:
        """`ObjectStore.identity`."""

    async def begin(self, operation: str, name: str) -> None:
        """`MemoryManager.begin`, then make sure that the bucket exists."""

    def publish(self, batch: Sequence[Publish]) -> list[Message]:
        """Store messages, all or nothing."""

    async def store_metas(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        """What `ObjectStore.commit` does after its wait."""


class MemoryDraft(Draft):
    """A version for object *name*, as far as messages say."""

    def __init__(self, host: Host, name: str, max_chunk_size: int) -> None:
        if not name:
            raise InvalidArgument("an object name cannot be empty")
        if max_chunk_size < 0:
            raise InvalidArgument(f"chunk size {max_chunk_size}")
        self._host = host
        self._identity = host.identity
        self._name = name
        bucket, size = host.stream.config.bucket, max_chunk_size or DEFAULT_CHUNK_SIZE
        self._info = ObjectInfo("", bucket, "", nuid=new_nuid(), max_chunk_size=size)
        self._subject = chunk_subject(bucket, self._info.nuid)
        self._digest = hashlib.sha256()
        self._rest = bytearray()
        self._window: list[bytes] = []
        self._asked = False
        self._uncertain = False

    @property
    def nuid(self) -> str:
        return self._info.nuid

    @property
    def acknowledged(self) -> int:
        return self._info.size

    @property
    def begun(self) -> bool:
        return self._info.chunks > 0

    @property
    def uncertain(self) -> bool:
        return self._uncertain

    def stored(self) -> ObjectInfo:
        return self._info

    async def write(self, data: Data) -> None:
        self._digest.update(data)
        self._rest += data
        size = self._info.max_chunk_size
        while len(self._rest) >= size:
            self._window.append(bytes(self._rest[:size]))
            del self._rest[:size]
        while len(self._window) >= WINDOW_CHUNKS:
            await self._store(WINDOW_CHUNKS)

    async def flush(self) -> None:
        await self.write(b"")
        if self._window:
            await self._store(len(self._window))

    async def commit(self, name: str, place: Place) -> tuple[ObjectInfo, ...]:
        self._name = name
        if self._rest:
            self._window.append(bytes(self._rest))
            self._rest.clear()
        if self._window or not self._asked:
            await self._store(len(self._window))
        version = replace(self._info, name=name, digest=render_digest(self._digest.digest()))
        lost: WrongRevision | None = None
        while True:
            writes = await place(version, lost)
            await self._begin("place")
            try:
                return await self._host.store_metas(writes)
            except WrongRevision as error:
                lost = error
            except BaseException as error:
                refused = isinstance(error, NatsfsError) and not isinstance(error, RequestTimeout)
                self._uncertain |= not refused
                raise

    async def abandon(self) -> None:
        if self._uncertain:
            return
        with suppress(ReadOnlyError):  # sealed meanwhile: then they stay
            self._host.stream.purge(self._subject)

    async def _begin(self, operation: str) -> None:
        """Errors: those of `MemoryManager.begin`, `ReplacedBucket`."""
        await self._host.begin(operation, self._name)
        if self._host.identity != self._identity:
            raise ReplacedBucket(f"there is another bucket where {self._name!r} was to be stored")

    async def _store(self, count: int) -> None:
        await self._begin("upload")
        self._asked = True
        for _ in range(count):
            chunk = self._window[0]
            self._host.publish([Publish(self._subject, chunk)])
            size, chunks = self._info.size + len(chunk), self._info.chunks + 1
            self._info = replace(self._info, size=size, chunks=chunks)
            del self._window[0]
