"""Fetching the chunks of a version: layout first, then batches of consecutive messages.

What a follower says of a layout may be out of date, so what is not as the meta says is asked from
the leader; `messages` does the same for the chunks themselves.

Concurrency: layouts belong to immutable versions, so a layout that two tasks look up at once is the
same one twice.  The memory of layouts changes between awaits only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from natsfs.errors import (
    ChunkMissing,
    MalformedMeta,
    NotFoundError,
    StaleVersion,
)
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.jetstream.indexing import index_chunks
from natsfs.store.jetstream.messages import ChunkMessages
from natsfs.store.layout import Layout, Place, Stretches, learn, prove
from natsfs.store.link import joined
from natsfs.store.model import ObjectInfo
from natsfs.store.primitives import Data
from natsfs.store.protocol import (
    StoredMessage,
    get_last,
    get_next,
)
from natsfs.store.wire import chunk_subject

#: Layouts remembered.  A proved one takes 200 bytes, a learned one 16 bytes a chunk.
LAYOUTS = 4096

#: Asks for a message with each request, all on one subject.
Ask = Callable[[Sequence[bytes], str], Awaitable[list[StoredMessage | None]]]


class ChunkReader:
    """Reads versions of one bucket's objects."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._api = bucket.api
        self._layouts: OrderedDict[str, Layout] = OrderedDict()
        self._messages = ChunkMessages(bucket)

    def remember(self, info: ObjectInfo, chunks: Stretches) -> None:
        """Note where the chunks of a version are that this store has just written."""
        layout = learn(info, chunks)
        if layout is not None:
            self._keep(info, layout)

    async def read(self, info: ObjectInfo, start: int, stop: int) -> Data:
        """`ObjectStore.read`."""
        stop = min(stop, info.size)
        if start >= stop:
            return b""
        subject = chunk_subject(self._bucket.subjects, info.nuid)
        layout, brought = await self._layout(info)
        places = layout.places(start, stop)
        if all(place.sequence in brought for place in places):
            chunks: list[Data] | None = [brought[place.sequence] for place in places]
        else:
            chunks = await self._messages.fetch(subject, places)
        if chunks is None or not _fit(chunks, places):
            # The meta's chunk size was wrong in a way that the two ends do not show, or the stream
            # was restored from another one and its messages have new sequences.
            places = (await self._learn(info)).places(start, stop)
            chunks = await self._messages.fetch(subject, places)
        if chunks is None or not _fit(chunks, places):
            raise await self._gone(info)
        return _cover(places, chunks, start, stop)

    async def read_small(self, infos: Sequence[ObjectInfo]) -> list[Data | None]:
        """`ObjectStore.read_small`."""
        bucket = self._bucket.subjects
        wanted = [(chunk_subject(bucket, info.nuid), info.size) for info in infos]
        last = await self._messages.last_on(wanted)
        return [self._whole(*one) for one in zip(infos, last, strict=True)]

    def _whole(self, info: ObjectInfo, last: StoredMessage | None) -> Data | None:
        """What *last*, the last chunk of *info*, proves to be all of its bytes."""
        if last is None or info.chunks != 1:
            return None
        layout = prove(info, last.sequence, last.sequence, len(last.data))
        if layout is None:
            return None
        self._keep(info, layout)
        return last.data

    # -- layouts ----------------------------------------------------------------------------------

    async def _layout(self, info: ObjectInfo) -> tuple[Layout, Mapping[int, Data]]:
        """The layout of *info*, and the chunks that finding out has brought, by their sequence."""
        known = self._layouts.get(info.nuid)
        # A meta may claim another one's version, with a size of its own.
        if known is not None and known.size == info.size:
            self._layouts.move_to_end(info.nuid)
            return known, {}
        if not info.subject:
            return await self._learn(info), {}  # more of a draft may be there than is known
        subject = chunk_subject(self._bucket.subjects, info.nuid)
        found = await self._ends(info, subject, self._messages.ask)
        if self._bucket.status.replicas > 1 and (found is None or found[0] is None):
            # A follower may not have all of it yet.
            found = await self._ends(info, subject, self._messages.ask_leader)
        if found is None:
            raise await self._gone(info)
        layout, brought = found
        if layout is None:
            return await self._learn(info), {}
        self._keep(info, layout)
        return layout, brought

    async def _ends(
        self, info: ObjectInfo, subject: str, ask: Ask
    ) -> tuple[Layout | None, Mapping[int, Data]] | None:
        """The layout that the ends of a version prove, if they do, and their chunks; None when
        there is no chunk."""
        # Both ends at once: the first byte of a cold object waits for one round trip.
        ends = [get_last(subject), get_next(subject)][: 1 if info.chunks == 1 else 2]
        last, *rest = await ask(ends, subject)
        if last is None:
            return None
        first: StoredMessage | None = rest[0] if rest else last
        if not rest and len(last.data) != info.size:
            (first,) = await ask([get_next(subject)], subject)
        if first is None:
            return None, {}
        proved = prove(info, first.sequence, last.sequence, len(last.data))
        return proved, {last.sequence: last.data, first.sequence: first.data}

    async def _learn(self, info: ObjectInfo) -> Layout:
        subject = chunk_subject(self._bucket.subjects, info.nuid)
        chunks = await index_chunks(self._bucket, subject)
        # What is not acknowledged of a draft is behind all that is.
        layout = learn(info, chunks if info.subject else chunks[: info.chunks])
        if layout is None:
            raise await self._gone(info)
        self._keep(info, layout)
        return layout

    def _keep(self, info: ObjectInfo, layout: Layout) -> None:
        self._layouts[info.nuid] = layout
        self._layouts.move_to_end(info.nuid)
        while len(self._layouts) > LAYOUTS:
            self._layouts.popitem(last=False)

    async def _gone(self, info: ObjectInfo) -> StaleVersion | ChunkMissing:
        """Why chunks are not there, by what the name now has, if the version has one."""
        self._layouts.pop(info.nuid, None)
        try:
            now = await self._bucket.last_info(info.subject) if info.subject else None
        except (NotFoundError, MalformedMeta):
            now = None
        if now is None or now.deleted or now.nuid != info.nuid:
            return StaleVersion(f"version {info.nuid} of {info.name!r} was purged")
        return ChunkMissing(f"chunks of {info.name!r}, version {info.nuid}, are missing")


def _fit(chunks: Sequence[Data], places: Sequence[Place]) -> bool:
    return all(len(c) == place.length for c, place in zip(chunks, places, strict=True))


def _cover(places: Sequence[Place], chunks: Sequence[Data], start: int, stop: int) -> Data:
    """The bytes [*start*, *stop*) of *chunks*, which are at *places*."""
    first, last = places[0], places[-1]
    whole = joined(chunks)
    if whole is not None:
        return whole[start - first.offset : stop - first.offset]
    if len(chunks) == 1:
        return memoryview(chunks[0])[start - first.offset : stop - first.offset]
    parts = list(chunks)
    parts[0] = memoryview(chunks[0])[start - first.offset :]
    parts[-1] = memoryview(chunks[-1])[: stop - last.offset]
    return b"".join(parts)
