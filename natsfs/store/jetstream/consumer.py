"""Ephemeral push consumers with flow control: how a stream's messages are made to come.

A consumer is named and has one filter, so that permissions can be given for it (protocol.md 2.10).
Its messages are numbered; a number out of turn, a heartbeat that tells of a message never seen, or
silence means that the consumer has to be made again.

In a cluster a consumer lives on a server chosen by lot from those that have the stream.  That one
may be behind the leader, so what a consumer has brought is not yet all there is; and it may be one
that hangs or was killed just now, so a creation without an answer is given up soon, for another
draw (2 of 8 with one frozen server of three on 2.15, 5 of 12 with a killed one on 2.9).

Concurrency: a `Consumer` serves one task.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from natsfs.errors import NatsfsError, RequestTimeout, ServerRefused
from natsfs.store.headers import parse_headers
from natsfs.store.jetstream.api import SILENCE as API_SILENCE
from natsfs.store.jetstream.api import decode
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.protocol import Delivery, parse_delivery
from natsfs.store.session import Message, Subscription
from natsfs.store.wire import new_nuid

log = logging.getLogger(__name__)

#: Seconds between heartbeats of an idle consumer, and of silence after which it is given up.  The
#: deletion of a stream shows in nothing but this silence.
HEARTBEAT = 2.0
SILENCE = 2.5 * HEARTBEAT

#: Seconds that the first creation may take without an answer, doubling with each: on a large cold
#: stream one takes 7 to 24 (protocol.md 2.2).
PATIENCE = 2.0

#: Seconds after which the server drops a consumer that nobody listens to any more.
INACTIVE = 30.0

#: Seconds for deleting a consumer that is not needed any more; the server would do it by itself.
DELETE_TIMEOUT = 1.0

_NS = 1_000_000_000


class ConsumerLost(NatsfsError):
    """Messages may have been missed: the consumer has to be made again."""


class Consumer:
    """A consumer's messages.  *pending* is how many there were when it was made."""

    def __init__(self, subscription: Subscription, pending: int) -> None:
        self.pending = pending
        self._subscription = subscription
        self._last = 0

    async def receive(self) -> list[tuple[Message, Delivery]]:
        """The next messages with what is said of each; an empty list for a heartbeat that tells
        that there is nothing more for now.

        Errors: `ConsumerLost`, `AnswerLost` (the connection broke).
        """
        found: list[tuple[Message, Delivery]] = []
        with trio.move_on_after(SILENCE):
            while True:
                messages = await self._subscription.receive()
                for message in messages:
                    if message.status:
                        self._heartbeat(message)
                    else:
                        found.append((message, self._delivery(message)))
                if found or any(_is_heartbeat(message) for message in messages):
                    return found
        raise ConsumerLost("the consumer has fallen silent")

    def _delivery(self, message: Message) -> Delivery:
        delivery = parse_delivery(message.reply)
        if delivery is None:
            raise ServerRefused("a consumer", 0, f"unreadable delivery {message.reply!r}")
        if delivery.consumer_sequence != self._last + 1:
            raise ConsumerLost(f"message {delivery.consumer_sequence} came after {self._last}")
        self._last = delivery.consumer_sequence
        return delivery

    def _heartbeat(self, message: Message) -> None:
        delivered = parse_headers(message.block).fields.get("Nats-Last-Consumer", "")
        if delivered.isdecimal() and delivered != str(self._last):
            raise ConsumerLost(f"message {delivered} was not seen, {self._last} was the last")


@asynccontextmanager
async def consume(bucket: Bucket, subject: str, config: dict[str, Any]) -> AsyncIterator[Consumer]:
    """Make a consumer on *subject* with *config* for as long as the context lasts.

    Errors: those of `Api.ask` and `Session.feed`.
    """
    patience = PATIENCE
    async with AsyncExitStack() as stack:

        async def attempt(timeout: float) -> Consumer:
            nonlocal patience
            async with AsyncExitStack() as own:
                try:
                    making = _make(bucket, subject, config, min(timeout, patience))
                    consumer = await own.enter_async_context(making)
                except RequestTimeout:
                    patience *= 2
                    raise
                stack.push_async_exit(own.pop_all())
            return consumer

        yield await bucket.api.persist(attempt, silence=API_SILENCE)


@asynccontextmanager
async def _make(
    bucket: Bucket, subject: str, config: dict[str, Any], timeout: float
) -> AsyncIterator[Consumer]:
    """One attempt of `consume`, with a name and an inbox of its own: what an earlier one left on a
    server that did not answer may still come to life."""
    name = f"natsfs_{new_nuid()}"
    wanted = {
        "name": name,
        "filter_subject": subject,
        "ack_policy": "none",
        "max_deliver": 1,
        "replay_policy": "instant",
        "flow_control": True,
        "idle_heartbeat": round(HEARTBEAT * _NS),
        "inactive_threshold": round(INACTIVE * _NS),
        "mem_storage": True,
        "num_replicas": 1,
        **config,
    }
    api = bucket.api.control
    async with bucket.api.session.feed() as (inbox, subscription):
        request = api.request(
            f"CONSUMER.CREATE.{bucket.stream}.{name}.{subject}",
            {"stream_name": bucket.stream, "config": {"deliver_subject": inbox, **wanted}},
        )
        answer = await api.session.request(request, timeout=timeout)
        made = decode(f"consumer of bucket {bucket.name!r}", answer.data)
        try:
            yield Consumer(subscription, int(made.get("num_pending", 0)))
        finally:
            await _delete(bucket, name)


async def _delete(bucket: Bucket, name: str) -> None:
    session = bucket.api.session
    if not session.connected:
        return
    request = bucket.api.request(f"CONSUMER.DELETE.{bucket.stream}.{name}")
    with trio.move_on_after(DELETE_TIMEOUT, shield=True):
        try:
            await session.request(request, timeout=DELETE_TIMEOUT)
        except NatsfsError as error:
            log.debug("the server will drop consumer %s by itself: %s", name, error)


def _is_heartbeat(message: Message) -> bool:
    """An idle heartbeat has no reply subject; a request for flow control has one."""
    return bool(message.status) and not message.reply
