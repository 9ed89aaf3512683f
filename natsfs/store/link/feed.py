"""A connection that brings the messages of one consumer: how a large bucket is loaded.

Small messages by the hundred thousand are another matter than answers: what counts is what each of
them costs, so they come without a detour through another thread.

What is received is handed over as it comes.  A reader that has fallen behind by `WAITING` messages
holds the connection up, and the server with it, so that a load takes no more memory than that; but
not for longer than `PATIENCE`, because the server hangs up on those who do not read
(`write_deadline`, 10 s).

Concurrency: `run` alone receives; whoever has the subscription reads it in one task.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from natsfs.store.link.handshake import Opened, open_transport
from natsfs.store.link.outbox import Outbox
from natsfs.store.link.receiver import Control, Event, ProtocolError
from natsfs.store.link.transport import BROKEN
from natsfs.store.session import (
    DENIED,
    Access,
    AnswerLost,
    Message,
    Subscription,
    flow_control_of,
)
from natsfs.store.wire import new_nuid

log = logging.getLogger(__name__)

#: Messages that may wait for their reader, and seconds for which they hold the server up.
WAITING = 2000
PATIENCE = 1.0


class Feed:
    """One connection.  *subject* is what is to be published to, and *subscription* brings it."""

    def __init__(self, access: Access, opened: Opened, subject: str) -> None:
        self.subject = subject
        self.subscription = Subscription()
        self._access = access
        self._transport = opened.transport
        self._receiver = opened.receiver
        self._outbox = Outbox()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Receive until the connection breaks, which the subscription is told."""
        try:
            with self._scope:
                while True:
                    await self._transport.drain(self._outbox)
                    self._take(await self._transport.receive(self._receiver))
                    if self.subscription.waiting > WAITING:
                        with trio.move_on_after(PATIENCE):
                            await self.subscription.emptied()
        except (*BROKEN, ProtocolError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            log.debug("the feed from %s is over: %s", self._access.address, reason)
            self.subscription.fail(AnswerLost(f"connection lost: {reason}"))
        finally:
            self._transport.close()

    def end(self) -> None:
        """Close the connection."""
        self._scope.cancel()

    def _take(self, events: list[Event]) -> None:
        messages = []
        for event in events:
            if isinstance(event, Message):
                messages.append(event)
                if event.block and (subject := flow_control_of(event)):
                    self._say(f"PUB {subject} 0\r\n\r\n".encode())
            else:
                self._react(event)
        if messages:
            self.subscription.take(messages)

    def _react(self, control: Control) -> None:
        match control.verb:
            case b"PING":
                self._say(b"PONG\r\n")
            case b"-ERR":
                text = control.text.decode("utf-8", "replace").strip("'")
                log.debug("%s: %s", self._access.address, text)
                self._complain(text)

    def _complain(self, text: str) -> None:
        """Whatever is denied here is needed: the subscription, or to answer flow control, without
        which the consumer stands still."""
        denied = DENIED.search(text)
        if denied is not None:
            address, kind = self._access.address, denied[1].lower()
            self.subscription.fail(self._access.denials.error(address, kind, denied[2]))

    def _say(self, line: bytes) -> None:
        self._outbox.add([line])


@asynccontextmanager
async def open_feed(access: Access, timeout: float, nursery: trio.Nursery) -> AsyncIterator[Feed]:
    """Connect within *timeout* seconds, for as long as the context lasts.  The task that receives
    lives in *nursery*: this may be entered by a generator, which must not have one of its own.

    Errors: `ConnectFailed`.
    """
    # Without a wildcard: a consumer takes none for somebody who listens.
    subject = f"{access.inbox_prefix}.{new_nuid()}"
    feed = Feed(access, await open_transport(access, subject, timeout), subject)
    nursery.start_soon(feed.run)
    try:
        yield feed
    finally:
        feed.end()
