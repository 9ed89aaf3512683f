"""What one bucket is called and what its stream can do, shared by the parts of a store.

A bucket may be deleted and made again while nobody can hear of it.  So before something is sent
that changes it, after each loss of a connection, the bucket is asked which one it is (`still`).  No
message can say itself which bucket it is meant for: the headers know its name, and the revision of
what it replaces, and where that is nothing, any bucket will do.

Concurrency: `status` is replaced as a whole, by `refresh` and `still`; it may be out of date at any
time, so it decides what to try and never what to believe.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from natsfs.errors import ReadOnlyError, ReplacedBucket
from natsfs.store.jetstream.api import SILENCE, Api, decode
from natsfs.store.model import BucketStatus, ObjectInfo, Survey
from natsfs.store.protocol import (
    MESSAGE_TTL,
    NO_MESSAGE,
    Status,
    StoredMessage,
    get_batch,
    parse_direct,
    parse_ttl,
)
from natsfs.store.session import NoResponders
from natsfs.store.streams import clock_ahead, parse_status
from natsfs.store.wire import bucket_of, meta_prefix, parse_info


class Bucket:
    """One bucket's names, and its stream as last described.

    *identity* is `ObjectStore.identity`.
    *ahead_ns* is by how much the server's clock is ahead of this host's, 0 until it was asked.
    """

    def __init__(self, api: Api, status: BucketStatus) -> None:
        self.api = api
        self.status = status
        self.identity = status.identity
        self.name = status.bucket
        self.stream = status.stream
        self.ahead_ns = 0
        #: How many connections had been lost when it was last asked which one it is.
        self._losses = api.session.losses

    @property
    def subjects(self) -> str:
        """The bucket whose name is in the subjects: a mirror keeps its origin's (protocol.md
        2.3)."""
        return bucket_of(self.status.mirror or "") or self.name

    @property
    def max_message(self) -> int:
        """Bytes of headers and data that one message may have, as far as is known."""
        payload, limit = self.api.session.max_payload, self.status.max_message
        return min(payload, limit) if limit > 0 else payload

    async def refresh(self) -> BucketStatus:
        """Ask for the stream as it is now.  Errors: `BucketNotFoundError`."""
        losses, begin = self.api.session.losses, time.time_ns()
        info = await self.api.ask(f"bucket {self.name!r}", f"STREAM.INFO.{self.stream}")
        return self._told(info, losses, begin)

    async def still(self, identity: str, timeout: float) -> None:
        """Make sure that this is the bucket *identity*, as far as can be known: for as long as no
        connection is lost, whoever deletes it is heard of.

        Errors: `ReplacedBucket`, `BucketNotFoundError`; those of one request of *timeout* seconds.
        """
        losses, begin = self.api.session.losses, time.time_ns()
        if losses != self._losses:
            request = self.api.request(f"STREAM.INFO.{self.stream}")
            message = await self.api.session.request(request, timeout=timeout)
            self._told(decode(f"bucket {self.name!r}", message.data), losses, begin)
        if self.status.identity != identity:
            raise ReplacedBucket(
                f"bucket {self.name!r} was deleted, and there is another bucket of its name"
            )

    def is_surely(self, identity: str) -> bool:
        """Whether `still` would find the bucket *identity* without asking."""
        return self.api.session.losses == self._losses and self.status.identity == identity

    async def change(
        self, identity: str, what: str, verb: str, payload: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`Api.ask` for something that changes the bucket *identity*, and no other.

        Errors: those of `still` and of `Api.ask`."""
        request = self.api.request(verb, payload)

        async def attempt(timeout: float) -> dict[str, Any]:
            await self.still(identity, timeout)
            message = await self.api.session.request(request, timeout=timeout)
            return decode(what, message.data)

        return await self.api.persist(attempt, silence=SILENCE)

    def _told(self, info: Mapping[str, Any], losses: int, begin: int) -> BucketStatus:
        self.status, self._losses = parse_status(info), losses
        if self.status.asked_ns:
            self.ahead_ns = clock_ahead(self.status.asked_ns, begin, time.time_ns())
        return self.status

    def check_writable(self) -> None:
        """Errors: `ReadOnlyError` for a mirror, whose subjects nobody may publish to here."""
        if self.status.mirror is not None:
            raise ReadOnlyError(f"bucket {self.name!r} mirrors {self.status.mirror}")

    async def last_info(self, subject: str) -> ObjectInfo:
        """The meta on *subject*, from the leader.  Errors: `NotFoundError`, `MalformedMeta`."""
        return self.parse(await self.api.last_on(self.stream, subject))

    async def survey(self, revision: int) -> Survey | None:
        """`ObjectStore.survey`: a batch of one, whose message says how many follow it.

        From the first message on the server counts in its index of subjects: 6 to 12 ms with
        100,000 metas.  STREAM.INFO with a filter of subjects sorts them, 600 to 700 ms, and a
        consumer has to be deleted again.
        """
        if not self.status.allow_direct:
            return None
        wanted = get_batch(revision, 1, 1, f"{meta_prefix(self.subjects)}*")
        request = self.api.request(f"DIRECT.GET.{self.stream}", wanted)
        try:
            message = await self.api.session.request(request)
        except NoResponders:
            return None
        first = parse_direct(message.block, message.data)
        if isinstance(first, Status):
            return Survey(0) if first.code == NO_MESSAGE else None
        if first.stream != self.stream or first.num_pending is None:
            return None
        return Survey(1 + first.num_pending, first.sequence, first.subject, first.time_ns)

    def parse(self, message: StoredMessage) -> ObjectInfo:
        """The meta in *message*.  Errors: `MalformedMeta`."""
        return parse_info(
            message.subject,
            bytes(message.data),
            bucket=self.name,
            revision=message.sequence,
            time_ns=message.time_ns,
            ttl=parse_ttl(message.headers.get(MESSAGE_TTL, "")),
        )
