"""The session with NATS: requests, batched answers and subscriptions for trio callers.

This package alone knows nats-py and asyncio.  `client` makes one connection, `line` is one,
`connection` keeps one, `bridge` crosses between the threads, `subscription` does so for messages
that nobody asked for one by one, `denials` words what the server does not allow, and this module is
what trio sees of it.

Concurrency: everything here runs in the trio thread.  A call crosses to the asyncio thread and back
once, however many messages it sends or receives; a subscription crosses once for each bunch of
messages that arrived together.  `connected`, `url` and `max_payload` are snapshots that may be
out of date after the next await.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from natsfs.config import ServerConfig
from natsfs.errors import NatsfsError
from natsfs.store.session.access import Access, access_of
from natsfs.store.session.bridge import Bridge, SessionClosed, open_bridge
from natsfs.store.session.client import Message
from natsfs.store.session.connection import Connection
from natsfs.store.session.denials import DENIED, Denials
from natsfs.store.session.line import (
    LIVENESS_INTERVAL,
    Answer,
    AnswerLost,
    Line,
    NoResponders,
    Request,
)
from natsfs.store.session.subscription import Feed, Subscription, flow_control_of
from natsfs.store.wire import new_nuid

__all__ = [
    "DENIED",
    "LIVENESS_INTERVAL",
    "Access",
    "Answer",
    "AnswerLost",
    "Message",
    "NoResponders",
    "Request",
    "Session",
    "SessionClosed",
    "Subscription",
    "flow_control_of",
    "open_session",
]

#: Seconds that closing may take.  It sends nothing, so it needs next to none.
CLOSE_TIMEOUT = 5.0

#: Bytes of a message when no server has said its limit yet: the server's default.
DEFAULT_MAX_PAYLOAD = 1024 * 1024

DEFAULT_INBOX_PREFIX = "_INBOX"


class Session:
    """A connection to NATS that reconnects for ever.  Made by `open_session`."""

    def __init__(self, bridge: Bridge, config: ServerConfig) -> None:
        self.config = config
        #: Whether calls of JetStream's API wait on when the time-out is over (A5, `hard`).
        self.patient = False
        self._bridge = bridge
        self._denials = Denials()
        self._connection = Connection(config, self._denials, lambda: bridge.post(self._announce))
        self._last_payload = DEFAULT_MAX_PAYLOAD
        self._change = trio.Event()

    # -- state ------------------------------------------------------------------------------------

    @property
    def _line(self) -> Line | None:
        return self._connection.current

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._line is not None

    @property
    def silence(self) -> float:
        """Seconds since the server was heard of last, infinite while there is no connection.  One
        that lives says something every `LIVENESS_INTERVAL` at least, however slow its JetStream."""
        line = self._line
        return time.monotonic() - line.heard_at if line else math.inf

    @property
    def losses(self) -> int:
        """How often a connection was lost: while that stays the same, nothing was missed."""
        return self._connection.losses

    @property
    def url(self) -> str | None:
        """The server that the session is connected to, without secrets; None while it is not."""
        line = self._line
        return str(line.address) if line else None

    @property
    def server_version(self) -> tuple[int, int, int] | None:
        """The version of the server that the session is connected to."""
        line = self._line
        if line is None:
            return None
        version = line.client.connected_server_version
        return version.major, version.minor, version.patch

    @property
    def max_payload(self) -> int:
        """Bytes of headers and data that the server takes in one message, as last heard."""
        line = self._line
        if line is not None:
            self._last_payload = line.client.max_payload
        return self._last_payload

    @property
    def access(self) -> Access | None:
        """How another connection to the same server is made; None while there is none."""
        line = self._line
        return access_of(line.client, line.address, self._denials) if line else None

    async def changed(self) -> None:
        """Wait until the connection is made or lost next."""
        await self._change.wait()

    # -- requests ---------------------------------------------------------------------------------

    async def request(self, request: Request, *, timeout: float | None = None) -> Message:
        """Send one request and wait for its one answer, *timeout* seconds at most (the configured
        time-out where it is None), the wait for a connection included.

        Errors: `RequestTimeout`; `ConnectionLost` (nothing was sent); `AnswerLost`, `NoResponders`;
        `PermissionsError`; `InvalidArgument` (larger than the server takes); `SessionClosed`.
        """
        return (await self._one(request, streamed=False, timeout=timeout))[0]

    async def collect(self, request: Request, *, timeout: float | None = None) -> list[Message]:
        """Send one request and collect its answers, the last of which is the first with a status.
        *timeout* is between two of them.

        Errors: as `request`.
        """
        return await self._one(request, streamed=True, timeout=timeout)

    async def exchange(
        self, requests: Sequence[Request], *, timeout: float | None = None
    ) -> list[Answer]:
        """Send all *requests* at once, in order, each for one answer.  *timeout* is between two
        answers.  Gives one answer for each request: a list of one message, or of none where no
        answer was asked for, or the error that `request` would have raised.

        Errors: `ConnectionLost` (nothing was sent).
        """
        return await self._send(requests, streamed=False, timeout=timeout)

    async def _one(
        self, request: Request, *, streamed: bool, timeout: float | None
    ) -> list[Message]:
        (answer,) = await self._send([request], streamed=streamed, timeout=timeout)
        if isinstance(answer, NatsfsError):
            raise answer
        return answer

    async def _send(
        self, requests: Sequence[Request], *, streamed: bool, timeout: float | None
    ) -> list[Answer]:
        limit = self.config.timeout if timeout is None else timeout

        async def send() -> list[Answer]:
            line = await self._connection.line(limit)
            return await line.send(requests, streamed=streamed, timeout=limit)

        return await self._bridge.call(send)

    # -- subscriptions ----------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(self, *subjects: str) -> AsyncIterator[Subscription]:
        """Subscribe to *subjects* on the present connection, for as long as that lasts.

        JetStream's flow control is answered at once, in the asyncio thread: what arrived is in
        memory, and a push consumer stalls until then (protocol.md 2.8).

        Errors: `ConnectionLost` (no connection came within the configured time-out).
        """
        subscription = Subscription()
        feed = Feed(self._bridge, subscription)

        async def begin() -> None:
            line = await self._connection.line(self.config.timeout)
            await feed.begin(line, subjects)

        try:
            await self._bridge.call(begin)
            yield subscription
        finally:
            with trio.CancelScope(shield=True):
                await self._bridge.call(feed.end)

    @asynccontextmanager
    async def feed(self) -> AsyncIterator[tuple[str, Subscription]]:
        """A subject for a consumer to deliver to, and what it delivers.  Errors: as `subscribe`."""
        inbox = self.new_inbox()
        async with self.subscribe(inbox) as subscription:
            yield inbox, subscription

    def new_inbox(self) -> str:
        """A subject that nobody else uses, under the configured prefix."""
        return f"{self.config.inbox_prefix or DEFAULT_INBOX_PREFIX}.{new_nuid()}"

    # -- life -------------------------------------------------------------------------------------

    async def _open(self) -> None:
        await self._bridge.call(self._connection.open)

    async def _close(self) -> None:
        await self._bridge.call(self._connection.close)

    def _announce(self) -> None:
        change, self._change = self._change, trio.Event()
        change.set()


@asynccontextmanager
async def open_session(config: ServerConfig) -> AsyncIterator[Session]:
    """Connect to one of `config.urls` and keep connected until the context ends.

    Errors: `ConnectFailed`, one sentence for each server that was tried.
    """
    async with open_bridge() as bridge:
        session = Session(bridge, config)
        try:
            await session._open()
            yield session
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await session._close()
