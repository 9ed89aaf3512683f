"""Publishing meta messages: compare-and-set, atomic batches, and lost answers resolved by reading.

An answer can get lost after the server has stored the message.  Then the meta is read back from the
leader: the payload carries the nuid and the moment of rendering, so equal bytes are our message.
Unless it is there, publishing again is safe, because a compare-and-set refuses the second copy and
a write without one has the same effect twice.

Concurrency: a `Committer` has no state; two commits to one subject are ordered by the server.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from natsfs.errors import (
    ConnectionLost,
    NatsfsError,
    NotFoundError,
    NotSent,
    PermissionsError,
    RequestTimeout,
    ServerRefused,
    WrongRevision,
)
from natsfs.store.jetstream.api import decode, is_transient
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.store.protocol import (
    BATCH_COMMIT,
    BATCH_ID,
    BATCH_SEQUENCE,
    EXPECTED_REVISION,
    EXPECTED_STREAM,
    MESSAGE_TTL,
    ROLLUP,
    parse_puback,
)
from natsfs.store.session import AnswerLost, NoResponders, Request
from natsfs.store.wire import complete, meta_subject, new_nuid, render_info

log = logging.getLogger(__name__)

#: The object whose name is used to find out whether one may store any: it is never stored.
PROBE = "natsfs"

#: Messages of one atomic batch: the server's limit (protocol.md 2.5).
BATCH_LIMIT = 1000

#: Not every message of the batch came, or was taken.
BATCH_INCOMPLETE = 10176

#: The stream does not allow atomic batches (any more).
ATOMIC_DISABLED = 10174


@dataclass(frozen=True, slots=True)
class Planned:
    """A meta message that is ready to be published."""

    info: ObjectInfo
    payload: bytes
    expected: int | None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def request(self) -> Request:
        """The message itself."""
        return Request(self.info.subject, self.payload, self.headers)


class Committer:
    """Publishes to one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._api = bucket.api
        self._session = bucket.api.session

    async def commit(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        """`ObjectStore.commit`."""
        return await self.store([self.plan(write) for write in writes])

    async def store(
        self, metas: Sequence[Planned], *, identity: str = "", lost: bool = False
    ) -> tuple[ObjectInfo, ...]:
        """Publish *metas* as `ObjectStore.commit` does, and return their infos as stored.  They are
        for the bucket *identity*, by default that of today.  *lost* says that they may have been
        published before."""
        identity = identity or self._bucket.identity
        if len(metas) > 1 and self.may_batch(len(metas)):
            try:
                last = await self._publish(metas, identity, lost)
            except ServerRefused as error:
                if error.err_code != ATOMIC_DISABLED:
                    raise
                await self._bucket.refresh()
            else:
                return self.stored(metas, range(last - len(metas) + 1, last + 1))
        revisions: list[int] = []
        for meta in metas:
            try:
                revisions.append(await self._publish([meta], identity, lost))
            except NotSent as error:
                raise ConnectionLost(str(error)) if revisions else error from None
        return self.stored(metas, revisions)

    def may_batch(self, count: int) -> bool:
        """Whether *count* messages can be one atomic batch."""
        return self._bucket.status.allow_atomic and count <= BATCH_LIMIT

    def plan(self, write: MetaWrite) -> Planned:
        """Render *write*.  Errors: `NameTooLongError`, `InvalidArgument`."""
        limited = write.ttl is not None and self._bucket.status.allow_msg_ttl
        ttl = (write.ttl or 0) if limited else 0
        info = complete(write.info, self._bucket.name)
        if info.ttl != ttl:
            info = replace(info, ttl=ttl)
        headers = {ROLLUP: "sub", EXPECTED_STREAM: self._bucket.stream}
        if write.expected is not None:
            headers[EXPECTED_REVISION] = str(write.expected)
        if ttl:
            headers[MESSAGE_TTL] = f"{ttl}s"
        return Planned(info, render_info(info, time.time_ns()), write.expected, headers)

    async def purge(self, subject: str, last: int | None = None) -> int:
        """Drop every message on *subject*, or those up to the sequence *last*, and return how many
        there were."""
        what, verb = f"what is on {subject}", f"STREAM.PURGE.{self._bucket.stream}"
        # The server drops what lies below "seq".
        below = {} if last is None else {"seq": last + 1}
        wanted = {"filter": subject, **below}
        answer = await self._bucket.change(self._bucket.identity, what, verb, wanted)
        return int(answer.get("purged", 0))

    async def refusal(self) -> str | None:
        """`ObjectStore.refusal`, by a message that the stream would refuse in any case: it expects
        another stream."""
        subject = meta_subject(self._bucket.name, PROBE)
        probe = Request(subject, headers={EXPECTED_STREAM: "-"})
        try:
            await self._session.request(probe)
        except PermissionsError as error:
            return str(error)
        except NatsfsError as error:
            log.debug("whether bucket %r may be written is not known: %s", self._bucket.name, error)
        return None

    def stored(self, metas: Sequence[Planned], revisions: Sequence[int]) -> tuple[ObjectInfo, ...]:
        """The infos of *metas*, acknowledged with *revisions*.

        An acknowledgement has no time.  Reading it back would double the round trips of every
        change, and the watch brings it anyway, so this is the time that it must have been.
        """
        now = time.time_ns() + self._bucket.ahead_ns
        return tuple(
            meta.info.stored(revision, now) for meta, revision in zip(metas, revisions, strict=True)
        )

    async def _publish(self, metas: Sequence[Planned], identity: str, lost: bool) -> int:
        """Publish *metas* to the bucket *identity*, as one atomic batch where they are more than
        one, and return the sequence of the last.  *lost* says that they may have been published
        before.

        Errors: those of `ObjectStore.commit`, `NotSent` among them; `ServerRefused` with
        `ATOMIC_DISABLED`.
        """

        async def attempt(timeout: float) -> int:
            nonlocal lost
            await self._bucket.still(identity, timeout)
            if lost and (last := await self._applied(metas)):
                return last
            try:
                return await self._try(metas, timeout)
            except (AnswerLost, RequestTimeout):
                lost = True
                raise
            except NoResponders:
                # Nobody listens: either there is no leader for now, or no stream any more.
                await self._bucket.refresh()
                raise
            except WrongRevision as error:
                if lost and (last := await self._applied(metas)):
                    return last
                raise await self._blame(error, metas) from None

        try:
            return await self._api.persist(attempt)
        except ConnectionLost as error:
            if lost:
                raise
            raise NotSent(str(error)) from None

    # -- one attempt ------------------------------------------------------------------------------

    async def _try(self, metas: Sequence[Planned], timeout: float) -> int:
        try:
            return await self._exchange(metas, timeout)
        except ServerRefused as error:
            if error.err_code != BATCH_INCOMPLETE:
                raise
        # One in the middle was lost, or refused: only its own answer says why.
        return await self._exchange(metas, timeout, answers_to_all=True)

    async def _exchange(
        self, metas: Sequence[Planned], timeout: float, *, answers_to_all: bool = False
    ) -> int:
        requests = [meta.request for meta in metas]
        sent = _batch(requests, answers_to_all) if len(requests) > 1 else requests
        answers = await self._session.exchange(sent, timeout=timeout)
        first = metas[0]
        errors = [answer for answer in answers if isinstance(answer, NatsfsError)]
        for answer in answers[:-1]:
            # A message that the server takes into a batch is acknowledged by an empty one.
            if not isinstance(answer, NatsfsError) and answer and answer[0].data:
                decode(first.info.name, answer[0].data)
        if errors:
            raise next((e for e in errors if not is_transient(e)), errors[-1])
        final = answers[-1]
        assert not isinstance(final, NatsfsError)
        return parse_puback(
            first.info.name, final[0].data, expected=first.expected, domain=self._api.domain
        ).sequence

    async def _applied(self, metas: Sequence[Planned]) -> int | None:
        """The sequence of the last of *metas* if one of them is what its subject now holds: they
        are stored together or not at all."""
        for index, meta in enumerate(metas):
            try:
                found = await self._api.last_on(self._bucket.stream, meta.info.subject)
            except NotFoundError:
                continue
            if found.data == meta.payload:
                return found.sequence + len(metas) - 1 - index
        return None

    async def _blame(self, error: WrongRevision, metas: Sequence[Planned]) -> WrongRevision:
        """*error* with the name and the revision of the meta that was not as expected: a batch is
        refused as a whole."""
        if len(metas) == 1:
            return error
        for meta in metas:
            if meta.expected is None:
                continue
            try:
                found = await self._api.last_on(self._bucket.stream, meta.info.subject)
                actual = found.sequence
            except NotFoundError:
                actual = 0
            if actual != meta.expected:
                return WrongRevision(meta.info.name, meta.expected, actual)
        return error


def _batch(requests: Sequence[Request], answers_to_all: bool) -> list[Request]:
    """*requests* as one atomic batch (ADR-50).

    As a rule the answers to the first and the last tell everything: whether the server takes
    batches, and whether all of it was stored.  Those to the rest cost as much as the messages.
    """
    batch = new_nuid()
    count = len(requests)

    def numbered(number: int, request: Request) -> Request:
        place = {BATCH_ID: batch, BATCH_SEQUENCE: str(number)}
        end = {BATCH_COMMIT: "1"} if number == count else {}
        return Request(
            request.subject,
            request.data,
            {**request.headers, **place, **end},
            answered=answers_to_all or number in (1, count),
        )

    return [numbered(number, request) for number, request in enumerate(requests, 1)]
