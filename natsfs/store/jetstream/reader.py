"""Fetching the chunks of a version: layout first, then batches of consecutive messages.

Every message is checked for stream, subject, sequence and length, because an unfiltered batch steps
over what was purged and a mirror may answer in the stream's place (protocol.md 2.2, 2.3).  What a
direct get does not bring is asked from the leader, whose word is final.

Concurrency: layouts belong to immutable versions, so a layout that two tasks look up at once is the
same one twice.  The memory of layouts changes between awaits only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from natsfs.errors import (
    ChunkMissing,
    MalformedMeta,
    NatsfsError,
    NotFoundError,
    StaleVersion,
)
from natsfs.store.jetstream.api import attempt_timeout, decode, is_transient
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.jetstream.indexing import index_chunks
from natsfs.store.layout import Layout, Place, Stretches, learn, prove, runs
from natsfs.store.link import joined
from natsfs.store.model import ObjectInfo
from natsfs.store.primitives import Data
from natsfs.store.protocol import (
    StoredMessage,
    direct_fields,
    get_batch,
    get_last,
    get_next,
    get_sequence,
    parse_direct,
    parse_stored,
    sequence_after,
)
from natsfs.store.session import Answer, Message, NoResponders, Request
from natsfs.store.wire import chunk_subject

#: Layouts remembered.  A proved one takes 200 bytes, a learned one 16 bytes a chunk.
LAYOUTS = 4096

#: Bytes asked for by one batch: a quarter of the 64 MiB at which a server calls its reader slow,
#: since there is no flow control (protocol.md 2.2).
BATCH_BYTES = 16 * 1024 * 1024

#: What the server counts for each message of a batch beside its data.
MESSAGE_OVERHEAD = 1024

#: The first servers with batched direct get (protocol.md 2.1).
BATCH_VERSION = (2, 11, 0)


class ChunkReader:
    """Reads versions of one bucket's objects."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._api = bucket.api
        self._layouts: OrderedDict[str, Layout] = OrderedDict()

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
        layout, brought = await self._layout(info)
        places = layout.places(start, stop)
        if all(place.sequence in brought for place in places):
            chunks: list[Data] | None = [brought[place.sequence] for place in places]
        else:
            chunks = await self._fetch(info, places)
        if chunks is None or not _fit(chunks, places):
            # The meta's chunk size was wrong in a way that the two ends do not show, or the stream
            # was restored from another one and its messages have new sequences.
            places = (await self._learn(info)).places(start, stop)
            chunks = await self._fetch(info, places)
        if chunks is None or not _fit(chunks, places):
            raise await self._gone(info)
        return _cover(places, chunks, start, stop)

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
        # Both ends at once: the first byte of a cold object waits for one round trip.
        ends = [get_last(subject), get_next(subject)][: 1 if info.chunks == 1 else 2]
        last, *rest = await self._ask(ends, subject)
        if last is None:
            raise await self._gone(info)
        first: StoredMessage | None = rest[0] if rest else last
        if not rest and len(last.data) != info.size:
            (first,) = await self._ask([get_next(subject)], subject)
        proved = prove(info, first.sequence, last.sequence, len(last.data)) if first else None
        if first is None or proved is None:
            return await self._learn(info), {}
        self._keep(info, proved)
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

    # -- messages ---------------------------------------------------------------------------------

    async def _fetch(self, info: ObjectInfo, places: Sequence[Place]) -> list[Data] | None:
        """The messages at *places*, of whatever length; None when one of them is not there."""
        subject = chunk_subject(self._bucket.subjects, info.nuid)
        found: dict[int, Data] = {}
        if self._bucket.status.allow_direct:
            found = await self._api.persist(lambda timeout: self._direct(subject, places, timeout))
        missing = [place for place in places if place.sequence not in found]
        if missing:
            found |= await self._api.persist(
                lambda timeout: self._from_leader(subject, missing, timeout)
            )
        if any(place.sequence not in found for place in places):
            return None
        return [found[place.sequence] for place in places]

    async def _direct(
        self, subject: str, places: Sequence[Place], timeout: float
    ) -> dict[int, Data]:
        """What direct gets bring of *places*: nothing when nobody answers them."""
        fields = direct_fields(self._bucket.stream, subject)
        found: dict[int, Data] = {}
        try:
            for run in runs(places, BATCH_BYTES):
                single = len(run) == 1 or not self._has_batches
                for message in await (self._singles if single else self._batch)(run, timeout):
                    sequence = sequence_after(fields, message.block)
                    if sequence is not None:
                        found[sequence] = message.data
                    elif (stored := self._check(message, subject)) is not None:
                        found[stored.sequence] = stored.data
        except NoResponders:
            return found
        return found

    @property
    def _has_batches(self) -> bool:
        version = self._api.session.server_version
        return version is None or version >= BATCH_VERSION

    async def _batch(self, run: Sequence[Place], timeout: float) -> list[Message]:
        size = sum(place.length + MESSAGE_OVERHEAD for place in run)
        payload = sum(place.length for place in run)
        request = self._request(get_batch(run[0].sequence, len(run), size), payload)
        return (await self._api.session.collect(request, timeout=timeout))[:-1]

    async def _singles(self, run: Sequence[Place], timeout: float) -> list[Message]:
        requests = [self._request(get_sequence(place.sequence), place.length) for place in run]
        answers = await self._api.session.exchange(requests, timeout=timeout)
        return [_message(answer) for answer in answers]

    async def _from_leader(
        self, subject: str, places: Sequence[Place], timeout: float
    ) -> dict[int, Data]:
        """Those of *places* that the leader has."""
        verb = f"STREAM.MSG.GET.{self._bucket.stream}"
        requests = [self._api.request(verb, get_sequence(place.sequence)) for place in places]
        found: dict[int, Data] = {}
        for answer in await self._api.session.exchange(requests, timeout=timeout):
            try:
                stored = parse_stored(subject, decode(subject, _message(answer).data))
            except NotFoundError:
                continue
            if stored.subject == subject:
                found[stored.sequence] = stored.data
        return found

    async def _ask(self, requests: Sequence[bytes], subject: str) -> list[StoredMessage | None]:
        """The message that each of *requests* is for, by direct get and else from the leader."""
        found: list[StoredMessage | None] = [None] * len(requests)
        if self._bucket.status.allow_direct:
            timeout = attempt_timeout(self._api.timeout)
            direct = [self._request(request) for request in requests]
            for index, answer in enumerate(await self._answers(direct, timeout)):
                if not isinstance(answer, NatsfsError):
                    found[index] = self._check(answer[0], subject)
                elif not is_transient(answer):
                    raise answer
        for index, request in enumerate(requests):
            if found[index] is None:
                found[index] = await self._ask_leader(request, subject)
        return found

    async def _answers(self, requests: Sequence[Request], timeout: float) -> Sequence[Answer]:
        """`Session.exchange`, with an error of all as the answer to each."""
        try:
            return await self._api.session.exchange(requests, timeout=timeout)
        except NatsfsError as error:
            return [error] * len(requests)

    async def _ask_leader(self, request: bytes, subject: str) -> StoredMessage | None:
        try:
            verb = f"STREAM.MSG.GET.{self._bucket.stream}"
            return parse_stored(subject, await self._api.ask(subject, verb, request))
        except NotFoundError:
            return None

    def _request(self, payload: bytes, answer_bytes: int = 0) -> Request:
        return self._api.request(f"DIRECT.GET.{self._bucket.stream}", payload, answer_bytes)

    def _check(self, message: Message, subject: str) -> StoredMessage | None:
        """The chunk in *message*, None for a status, a ghost or a foreign message."""
        stored = parse_direct(message.block, message.data)
        if not isinstance(stored, StoredMessage):
            return None
        ours = stored.stream == self._bucket.stream and stored.subject == subject
        return stored if ours else None


def _fit(chunks: Sequence[Data], places: Sequence[Place]) -> bool:
    return all(len(c) == place.length for c, place in zip(chunks, places, strict=True))


def _message(answer: list[Message] | NatsfsError) -> Message:
    if isinstance(answer, NatsfsError):
        raise answer
    return answer[0]


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
