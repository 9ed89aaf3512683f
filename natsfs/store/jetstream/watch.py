"""The watch: every meta of a bucket and then every change, complete over any interruption.

Whatever may have lost a message (a gap, silence, a broken connection, a stream created anew) ends
the consumer, and the next one begins with everything again under `Restarted`.

In a cluster the consumer's server may be behind the leader, who acknowledges what is written.  So
the watch has caught up when the consumer has brought the newest meta that the leader had, and not
when nothing is pending: what is missing then would be taken for deleted.

Concurrency: a `Watcher` serves one iterator in one task.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

import trio

from natsfs.errors import (
    ConnectionLost,
    JetStreamUnavailable,
    MalformedMeta,
    NotFoundError,
    RequestTimeout,
    ServerRefused,
)
from natsfs.store.headers import parse_headers
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.jetstream.consumer import Consumer, ConsumerLost, consume
from natsfs.store.model import CaughtUp, Malformed, Restarted, Resumed, Updated, WatchEvent
from natsfs.store.protocol import MESSAGE_TTL, ROLLUP, Delivery, parse_ttl
from natsfs.store.session import Message, NoResponders
from natsfs.store.wire import meta_prefix, parse_info

log = logging.getLogger(__name__)

#: Seconds between two attempts to begin again while the server is away.  The session reconnects by
#: itself; this only keeps a server that refuses from being asked all the time.
RESTART_DELAY = 0.25

#: What a server says while it starts, stops, or elects.  Before the first round has begun it is
#: the caller's to know; later it is no reason to stop watching.
_INTERRUPTIONS = (
    ConnectionLost,
    ConsumerLost,
    JetStreamUnavailable,
    NoResponders,
    RequestTimeout,
    ServerRefused,
)

_ROLLED_UP = f"{ROLLUP}: sub\r\n".encode()


class Watcher:
    """Follows the metas of one bucket."""

    def __init__(self, bucket: Bucket, after: int) -> None:
        self._bucket = bucket
        #: Where the first round begins, 0 for everything.
        self._after = after
        self._revision = 0
        self._behind = True
        self._delivered = 0
        #: The newest meta that has to come before the watch has caught up.
        self._goal = 0

    async def events(self) -> AsyncGenerator[WatchEvent, None]:
        """`ObjectStore.watch`."""
        begun = False
        while True:
            try:
                status = await self._bucket.refresh()
                filter_ = meta_prefix(self._bucket.subjects) + ">"
                resumed, config = self._after > 0, _config(self._after)
                self._goal = await self._newest(filter_)
                async with consume(self._bucket, filter_, config) as consumer:
                    begun, self._behind = True, True
                    self._delivered, self._after = self._after, 0
                    self._revision = status.last_revision
                    created_ns, self._bucket.identity = status.created_ns, status.identity
                    begin = Resumed if resumed else Restarted
                    yield begin(created_ns, consumer.pending)
                    if not consumer.pending and self._delivered >= self._goal:
                        yield self._caught_up()
                    while True:
                        for event in await self._next(consumer):
                            yield event
            except _INTERRUPTIONS as error:
                if not (begun or self._bucket.api.session.patient):
                    raise
                log.info("the watch of bucket %r begins again: %s", self._bucket.name, error)
            await trio.sleep(RESTART_DELAY)

    async def _next(self, consumer: Consumer) -> list[WatchEvent]:
        messages = await consumer.receive()
        events: list[WatchEvent] = []
        for message, delivery in messages:
            self._delivered = delivery.stream_sequence
            self._revision = max(self._revision, delivery.stream_sequence)
            events.append(self._event(message, delivery))
            if self._behind and delivery.pending == 0 and self._delivered >= self._goal:
                events.append(self._caught_up())
        if self._behind and not messages:
            # The last of what was pending, or of what the leader had, may have been replaced or
            # purged meanwhile: an idle consumer has caught up, whatever it had counted.
            self._goal = await self._newest(meta_prefix(self._bucket.subjects) + ">")
            if self._delivered >= self._goal:
                events.append(self._caught_up())
        return events

    async def _newest(self, filter_: str) -> int:
        """The newest meta that the leader has; 0 where no other server could be asked."""
        if self._bucket.status.replicas < 2:
            return 0
        try:
            return (await self._bucket.api.last_on(self._bucket.stream, filter_)).sequence
        except NotFoundError:
            return 0

    def _caught_up(self) -> CaughtUp:
        self._behind = False
        return CaughtUp(self._revision)

    def _event(self, message: Message, delivery: Delivery) -> WatchEvent:
        try:
            info = parse_info(
                message.subject,
                bytes(message.data),
                bucket=self._bucket.name,
                revision=delivery.stream_sequence,
                time_ns=delivery.time_ns,
                ttl=_ttl(message),
            )
            return Updated(info, _ROLLED_UP in message.block)
        except MalformedMeta as error:
            return Malformed(message.subject, delivery.stream_sequence, str(error))


def _config(after: int) -> dict[str, Any]:
    if after:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
    return {"deliver_policy": "last_per_subject"}


def _ttl(message: Message) -> int:
    """Most metas have none, so their headers are not taken apart."""
    if MESSAGE_TTL.encode() not in message.block:
        return 0
    return parse_ttl(parse_headers(message.block).fields.get(MESSAGE_TTL, ""))
