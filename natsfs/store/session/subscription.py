"""A subscription: messages of some subjects cross to trio in the bunches in which they arrived.

Concurrency: `Feed` lives in the asyncio thread and `Subscription` in the trio thread; nothing but
whole bunches and one error goes from the first to the second.  `Feed` puts no bound on what waits
in a `Subscription`: it is meant for changes as they come.  Whole buckets come by `store.link.feed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import trio
from nats.aio.subscription import Subscription as Handle

from natsfs.errors import NatsfsError
from natsfs.store.session.bridge import Bridge
from natsfs.store.session.client import Message
from natsfs.store.session.line import Line

_FLOW_CONTROL = b"NATS/1.0 100"
_STALLED = b"Nats-Consumer-Stalled:"


class Subscription:
    """Messages, in the order and the bunches in which they came."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._error: NatsfsError | None = None
        self._news = trio.Event()
        self._empty = trio.Event()

    async def receive(self) -> list[Message]:
        """Wait for messages and take all that are there.

        Errors: `AnswerLost` (the connection broke, and the subscription with it),
        `PermissionsError` (the server does not allow it).
        """
        while not self._messages:
            if self._error is not None:
                raise self._error
            self._news = trio.Event()
            await self._news.wait()
        messages, self._messages = self._messages, []
        self._empty.set()
        return messages

    @property
    def waiting(self) -> int:
        """How many messages have come and were not received yet."""
        return len(self._messages)

    async def emptied(self) -> None:
        """Wait until what has come is received."""
        self._empty = trio.Event()
        while self._messages:
            await self._empty.wait()

    def take(self, messages: list[Message]) -> None:
        """*messages* have come."""
        self._messages += messages
        self._news.set()

    def fail(self, error: NatsfsError) -> None:
        """Nothing comes any more after what has come."""
        self._error = error
        self._news.set()


class Feed:
    """Carries a subscription's messages from the asyncio thread, where it runs, to trio."""

    def __init__(self, bridge: Bridge, subscription: Subscription) -> None:
        self._bridge = bridge
        self._subscription = subscription
        self._bunch: list[Message] = []
        self._line: Line | None = None
        self._handles: list[Handle] = []
        self._replies: set[asyncio.Task[None]] = set()

    async def begin(self, line: Line, subjects: Sequence[str]) -> None:
        self._line = line
        for subject in subjects:
            self._handles.append(await line.subscribe(subject, self._sink, self._fail))

    async def end(self) -> None:
        if self._line is not None:
            for handle in self._handles:
                await self._line.unsubscribe(handle)

    def _sink(self, message: Message) -> None:
        subject = flow_control_of(message) if message.block else ""
        if subject and self._line is not None:
            reply = asyncio.get_running_loop().create_task(self._line.publish(subject, self._fail))
            self._replies.add(reply)
            reply.add_done_callback(self._replies.discard)
        self._bunch.append(message)
        if len(self._bunch) == 1:
            asyncio.get_running_loop().call_soon(self._cross)

    def _cross(self) -> None:
        bunch, self._bunch = self._bunch, []
        self._bridge.post(lambda: self._subscription.take(bunch))

    def _fail(self, error: NatsfsError) -> None:
        self._bridge.post(lambda: self._subscription.fail(error))


def flow_control_of(message: Message) -> str:
    """Where an empty message has to be sent because of *message*, so that its consumer goes on;
    empty where it asks for none.

    A request for flow control has a reply subject, a heartbeat of a stalled consumer names one in a
    header.
    """
    if not message.block.startswith(_FLOW_CONTROL):
        return ""
    _, _, stalled = message.block.partition(_STALLED)
    return message.reply or stalled.partition(b"\r\n")[0].strip().decode("ascii", "replace")
