"""The messages that chunks are: from whichever server answers first, and else from the leader.

Every message is checked for stream, subject and sequence, because an unfiltered batch steps over
what was purged and a mirror may answer in the stream's place (protocol.md 2.2, 2.3).  In a cluster
a follower answers that may be behind, or nobody does, because it hangs.  So what a direct get does
not bring is asked from the leader, whose word is final.

Concurrency: `_direct_from` is changed between awaits only, and says what to try, not what to
believe.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from natsfs.errors import NatsfsError, NotFoundError, RequestTimeout
from natsfs.store.jetstream.api import attempt_timeout, decode, is_transient
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.layout import Place, runs
from natsfs.store.primitives import Data
from natsfs.store.protocol import (
    StoredMessage,
    direct_fields,
    get_batch,
    get_last,
    get_sequence,
    parse_direct,
    parse_stored,
    sequence_after,
)
from natsfs.store.session import Answer, Message, NoResponders, Request

#: Bytes asked for by one batch: a quarter of the 64 MiB at which a server calls its reader slow,
#: since there is no flow control (protocol.md 2.2).
BATCH_BYTES = 16 * 1024 * 1024

#: What the server counts for each message of a batch beside its data.
MESSAGE_OVERHEAD = 1024

#: Seconds that a direct get may take from one message to the next before the leader is asked, and
#: for how long he is asked then in the first place: a server that hangs would be drawn for one read
#: of three, and servers before 2.10 say nothing where nobody answers (seen on 2.9.10).
DIRECT_TIMEOUT = 3.0
LEADER_ONLY = 10.0

#: The first servers with batched direct get (protocol.md 2.1).
BATCH_VERSION = (2, 11, 0)


class ChunkMessages:
    """Gets messages on chunk subjects of one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._api = bucket.api
        self._direct_from = 0.0

    async def fetch(self, subject: str, places: Sequence[Place]) -> list[Data] | None:
        """The chunks at *places*, of whatever length; None when one of them is not there.

        Errors: those of `Api.persist`, and of the server's answers.
        """
        with self._api.one_timeout():
            return await self._fetch(subject, places)

    async def _fetch(self, subject: str, places: Sequence[Place]) -> list[Data] | None:
        found: dict[int, Data] = {}
        if self._may_ask_anyone:
            found = await self._api.persist(lambda _: self._direct(subject, places))
        missing = [place for place in places if place.sequence not in found]
        if missing:
            found |= await self._api.persist(
                lambda timeout: self._from_leader(subject, missing, timeout)
            )
        if any(place.sequence not in found for place in places):
            return None
        return [found[place.sequence] for place in places]

    @property
    def _may_ask_anyone(self) -> bool:
        """Whether direct gets are worth trying now."""
        return self._bucket.status.allow_direct and trio.current_time() >= self._direct_from

    async def _unanswered(self) -> None:
        """A direct get was not answered: ask the leader for a while.  Errors: `BucketNotFoundError`
        and others that say why nobody answers."""
        self._direct_from = trio.current_time() + LEADER_ONLY
        await self._bucket.refresh()

    async def _direct(self, subject: str, places: Sequence[Place]) -> dict[int, Data]:
        """What direct gets bring of *places*: nothing when nobody answers them."""
        fields = direct_fields(self._bucket.stream, subject)
        found: dict[int, Data] = {}
        try:
            for run in runs(places, BATCH_BYTES):
                single = len(run) == 1 or not self._has_batches
                for message in await (self._singles if single else self._batch)(run):
                    sequence = sequence_after(fields, message.block)
                    if sequence is not None:
                        found[sequence] = message.data
                    elif (stored := self._check(message, subject)) is not None:
                        found[stored.sequence] = stored.data
        except RequestTimeout:
            await self._unanswered()
        except NoResponders:
            return found
        return found

    @property
    def _has_batches(self) -> bool:
        version = self._api.session.server_version
        return version is None or version >= BATCH_VERSION

    async def _batch(self, run: Sequence[Place]) -> list[Message]:
        size = sum(place.length + MESSAGE_OVERHEAD for place in run)
        payload = sum(place.length for place in run)
        request = self._request(get_batch(run[0].sequence, len(run), size), payload)
        return (await self._api.session.collect(request, timeout=self._direct_timeout))[:-1]

    async def _singles(self, run: Sequence[Place]) -> list[Message]:
        requests = [self._request(get_sequence(place.sequence), place.length) for place in run]
        answers = await self._api.session.exchange(requests, timeout=self._direct_timeout)
        return [_message(answer) for answer in answers]

    @property
    def _direct_timeout(self) -> float:
        return min(DIRECT_TIMEOUT, attempt_timeout(self._api.timeout))

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

    async def last_on(self, wanted: Sequence[tuple[str, int]]) -> list[StoredMessage | None]:
        """The last message on each of some subjects, which come with the bytes to expect, as far as
        direct gets bring it at once."""
        if not self._may_ask_anyone:
            return [None] * len(wanted)
        requests = [self._request(get_last(subject), size) for subject, size in wanted]
        answers = await self._answers(requests, self._direct_timeout)
        return [
            None if isinstance(answer, NatsfsError) else self._check(answer[0], subject)
            for answer, (subject, _) in zip(answers, wanted, strict=True)
        ]

    async def ask(self, requests: Sequence[bytes], subject: str) -> list[StoredMessage | None]:
        """The message that each of *requests* is for, by direct get and else from the leader."""
        with self._api.one_timeout():
            return await self._ask(requests, subject)

    async def _ask(self, requests: Sequence[bytes], subject: str) -> list[StoredMessage | None]:
        found: list[StoredMessage | None] = [None] * len(requests)
        if self._may_ask_anyone:
            direct = [self._request(request) for request in requests]
            answers = await self._answers(direct, self._direct_timeout)
            for index, answer in enumerate(answers):
                if not isinstance(answer, NatsfsError):
                    found[index] = self._check(answer[0], subject)
                elif not is_transient(answer):
                    raise answer
            if any(isinstance(answer, RequestTimeout) for answer in answers):
                await self._unanswered()
        for index, request in enumerate(requests):
            if found[index] is None:
                (found[index],) = await self.ask_leader([request], subject)
        return found

    async def _answers(self, requests: Sequence[Request], timeout: float) -> Sequence[Answer]:
        """`Session.exchange`, with an error of all as the answer to each."""
        try:
            return await self._api.session.exchange(requests, timeout=timeout)
        except NatsfsError as error:
            return [error] * len(requests)

    async def ask_leader(
        self, requests: Sequence[bytes], subject: str
    ) -> list[StoredMessage | None]:
        """The message that each of *requests* is for, from the leader."""
        verb = f"STREAM.MSG.GET.{self._bucket.stream}"
        found: list[StoredMessage | None] = []
        for request in requests:
            try:
                answer = await self._api.ask(subject, verb, request)
                found.append(parse_stored(subject, answer))
            except NotFoundError:
                found.append(None)
        return found

    def _request(self, payload: bytes, answer_bytes: int = 0) -> Request:
        return self._api.request(f"DIRECT.GET.{self._bucket.stream}", payload, answer_bytes)

    def _check(self, message: Message, subject: str) -> StoredMessage | None:
        """The chunk in *message*, None for a status, a ghost or a foreign message."""
        stored = parse_direct(message.block, message.data)
        if not isinstance(stored, StoredMessage):
            return None
        ours = stored.stream == self._bucket.stream and stored.subject == subject
        return stored if ours else None


def _message(answer: list[Message] | NatsfsError) -> Message:
    if isinstance(answer, NatsfsError):
        raise answer
    return answer[0]
