"""One connection's worth of requests and subscriptions.

Everything in here belongs to one nats-py client and ends with it: when the connection breaks, each
request under way fails at once with `AnswerLost` instead of waiting for its time-out, and nothing
is carried over into the next connection.

Runs in the asyncio thread only.  Concurrency: sinks run inside nats-py's read loop and never await,
so an answer and the end of its exchange are one step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import nats.errors
from nats.aio.subscription import Subscription

from natsfs.config import ServerConfig
from natsfs.errors import (
    ConnectFailed,
    ConnectionLost,
    InvalidArgument,
    NatsfsError,
    RequestTimeout,
)
from natsfs.store.session.client import (
    Address,
    Login,
    Message,
    RawClient,
    Sink,
    connect,
    discard,
)
from natsfs.store.session.denials import DENIED, Denials

log = logging.getLogger(__name__)

#: Seconds between two looks at whether the server is still there.
LIVENESS_INTERVAL = 3.0

#: After how many silent intervals in a row the connection counts as dead: nats-py's default of
#: 120 s would leave a mount hanging for minutes (faults.md, "server hangs").
LIVENESS_LIMIT = 2

#: Longer than any connection: `Line.ended` judges by what arrives, and a flush of nats-py that
#: times out ends its read loop when the pong comes after all.
_NEVER = 10**9

NO_RESPONDERS = 503


class AnswerLost(ConnectionLost):
    """The connection broke after the request was sent: it may or may not have been executed."""


class NoResponders(NatsfsError):
    """Nobody listens on the subject of the request: it was certainly not executed."""


@dataclass(frozen=True, slots=True)
class Request:
    """A message that asks for an answer, unless it is not *answered*: then what becomes of it shows
    in the answer to a later one, and its own is an empty list.  Nobody may change its *data*.

    *answer_bytes* is how much payload is expected of the answer, 0 where nobody knows: links then
    have it in one piece (`natsfs.store.link.joined`).
    """

    subject: str
    data: bytes | bytearray | memoryview = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    answer_bytes: int = 0
    answered: bool = True


Answer = list[Message] | NatsfsError


class Exchange:
    """Requests that were sent together.  Complete when each has its answer or its error."""

    def __init__(self, requests: Sequence[Request], *, streamed: bool) -> None:
        loop = asyncio.get_running_loop()
        self.requests = requests
        self.complete: asyncio.Future[None] = loop.create_future()
        self.progress = loop.time()
        self._streamed = streamed
        self._parts: list[list[Message]] = [[] for _ in requests]
        self._answers: list[Answer | None] = [None if r.answered else [] for r in requests]
        self._clock = loop.time
        if None not in self._answers:
            self.complete.set_result(None)

    def receive(self, index: int, message: Message) -> None:
        """Take one message for request *index*.  A streamed answer ends with a status."""
        self.progress = self._clock()
        part = self._parts[index]
        part.append(message)
        if message.status == NO_RESPONDERS and len(part) == 1:
            self.fail(index, NoResponders(f"nobody answers {self.requests[index].subject}"))
        elif message.status or not self._streamed:
            self._end(index, part)

    def fail(self, index: int, error: NatsfsError) -> None:
        """End request *index* with *error*, unless it has ended."""
        if self.requests[index].answered:
            self._end(index, error)
        else:
            self._answers[index] = error

    def answers(self, timeout: float) -> list[Answer]:
        """One answer for each request; those that are still open have timed out."""
        return [
            RequestTimeout(f"no answer from {request.subject} within {timeout:.3g} s")
            if answer is None
            else answer
            for request, answer in zip(self.requests, self._answers, strict=True)
        ]

    def _end(self, index: int, answer: Answer) -> None:
        if self._answers[index] is None:
            self._answers[index] = answer
            if None not in self._answers and not self.complete.done():
                self.complete.set_result(None)


class Line:
    """A connected client with an inbox of its own.  Made by `open` only."""

    def __init__(self, address: Address, denials: Denials) -> None:
        self.address = address
        self._denials = denials
        self.client = RawClient()
        self.over = asyncio.Event()
        #: When the server was heard of last, on the loop's clock, which is `time.monotonic`.
        self.heard_at = asyncio.get_running_loop().time()
        self._prefix = ""
        self._inbox_denied = False
        self._pending: dict[str, tuple[Exchange, int]] = {}
        self._last_token = 0
        self._taps: dict[Subscription, Callable[[NatsfsError], None]] = {}
        #: What was published last for the sake of a subscription, and whom its denial concerns.
        self._courtesies: dict[Callable[[NatsfsError], None], str] = {}

    @classmethod
    async def open(
        cls,
        address: Address,
        login: Login,
        config: ServerConfig,
        denials: Denials,
        timeout: float,
    ) -> Line:
        """Connect within *timeout* seconds.

        Errors: `ConnectFailed`, also when the credentials may not subscribe to the inbox.
        """
        line = cls(address, denials)
        await connect(line.client, address, login, config, timeout, line._on_error, line._on_closed)
        try:
            async with asyncio.timeout(timeout):
                await line._open_inbox()
        except (TimeoutError, nats.errors.Error) as error:
            await line.close()
            raise ConnectFailed(f"{address} broke off or fell silent after the login") from error
        except BaseException:
            await line.close()
            raise
        return line

    async def _open_inbox(self) -> None:
        self._prefix = self.client.new_inbox()
        await self.client.tap(f"{self._prefix}.*", self._answer)
        # nats-py writes a ping ahead of what waits to be sent: only the second one follows the
        # subscription, and a refusal of that comes before its pong.
        await self.client.flush(_NEVER)
        await self.client.flush(_NEVER)
        if self._inbox_denied:
            raise ConnectFailed(
                f"{self.address} does not allow these credentials to subscribe to "
                f"{self._prefix}.*: set the inbox prefix that they may use"
            )

    # -- requests -------------------------------------------------------------------------------

    async def send(
        self, requests: Sequence[Request], *, streamed: bool, timeout: float
    ) -> list[Answer]:
        """Send all *requests* and wait for their answers.

        The wait ends when nothing has arrived for *timeout* seconds: a deadline belongs to
        progress, not to size.  Requests still open then have `RequestTimeout` as their answer.
        """
        exchange = Exchange(requests, streamed=streamed)
        tokens: list[str] = []
        try:
            for index, request in enumerate(requests):
                reply = ""
                if request.answered:
                    tokens.append(self._expect(exchange, index))
                    reply = f"{self._prefix}.{tokens[-1]}"
                await self._publish(request, reply, exchange, index)
            await _settle(exchange, timeout)
        finally:
            for token in tokens:
                self._pending.pop(token, None)
        return exchange.answers(timeout)

    def _expect(self, exchange: Exchange, index: int) -> str:
        self._last_token += 1
        token = str(self._last_token)
        self._pending[token] = (exchange, index)
        return token

    async def _publish(self, request: Request, reply: str, exchange: Exchange, index: int) -> None:
        if self.over.is_set():
            return exchange.fail(index, AnswerLost(f"connection lost: {request.subject}"))
        size = len(request.data) + sum(len(k) + len(v) + 4 for k, v in request.headers.items())
        if size > self.client.max_payload:
            what = f"message of {size} bytes: the server takes {self.client.max_payload}"
            return exchange.fail(index, InvalidArgument(what))
        try:
            headers = dict(request.headers) or None
            await self.client.publish(request.subject, bytes(request.data), reply, headers)
        except (nats.errors.Error, OSError) as error:
            exchange.fail(index, AnswerLost(f"connection lost: {error}"))
        return None

    def _answer(self, message: Message) -> None:
        waiting = self._pending.get(message.subject.rpartition(".")[2])
        if waiting is not None:
            exchange, index = waiting
            exchange.receive(index, message)

    # -- subscriptions --------------------------------------------------------------------------

    async def subscribe(
        self, subject: str, sink: Sink, failed: Callable[[NatsfsError], None]
    ) -> Subscription:
        """Hand every message on *subject* to *sink*; *failed* is told why when they end."""
        subscription = await self.client.tap(subject, sink)
        self._taps[subscription] = failed
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End what `subscribe` began; nothing happens when the connection has ended before."""
        failed = self._taps.pop(subscription, None)
        if failed is not None:
            self._courtesies.pop(failed, None)
        with suppress(nats.errors.Error):
            await self.client.untap(subscription)

    async def publish(self, subject: str, failed: Callable[[NatsfsError], None]) -> None:
        """Send an empty message; no answer is expected, and none is missed when it is lost.
        *failed* is told when it is denied."""
        self._courtesies[failed] = subject
        with suppress(nats.errors.Error, OSError):
            await self.client.publish(subject)

    # -- the end --------------------------------------------------------------------------------

    async def _on_error(self, error: Exception) -> None:
        denied = DENIED.search(str(error).lower())
        if denied is not None:
            self._deny(*denied.groups())
        else:
            log.debug("%s: %s", self.address, error)
        if isinstance(error, nats.errors.StaleConnectionError):
            self.over.set()

    async def _on_closed(self) -> None:
        self.over.set()

    def _deny(self, kind: str, subject: str) -> None:
        """Fail what a permissions violation is about: the server sends no other answer.

        nats-py has put the subject into lower case (protocol.md 2.10).
        """
        log.debug("%s denies %s to %s", self.address, kind, subject)
        if kind == "subscription":
            self._inbox_denied |= subject == f"{self._prefix}.*".lower()
            for subscription, failed in list(self._taps.items()):
                if subscription.subject.lower() == subject:
                    failed(self._denials.error(self.address, kind, subscription.subject))
            return
        for failed, published in list(self._courtesies.items()):
            if published.lower() == subject:
                failed(self._denials.error(self.address, kind, published))
        error: NatsfsError | None = None
        for exchange, index in list(self._pending.values()):
            wanted = exchange.requests[index].subject
            if wanted.lower() == subject:
                error = error or self._denials.error(self.address, kind, wanted)
                exchange.fail(index, error)

    async def ended(self) -> None:
        """Wait until the connection is dead: closed, or silent for too long."""
        silent, heard = 0, -1
        ping = self._ping()
        try:
            while self.client.is_connected and self.client.reads and silent < LIVENESS_LIMIT:
                if await _within(LIVENESS_INTERVAL, self.over):
                    return
                received = self.client.stats["in_msgs"]
                silent = 0 if ping.done() or received != heard else silent + 1
                if received != heard:
                    self._note_heard()
                heard = received
                if ping.done():
                    ping = self._ping()
        finally:
            ping.cancel()

    def _ping(self) -> asyncio.Task[None]:
        """Ask the server for a sign of life, and note when it comes."""

        def ended(ping: asyncio.Task[None]) -> None:
            # An error says no more than that the connection is gone.
            if not ping.cancelled() and ping.exception() is None:
                self._note_heard()

        ping = asyncio.create_task(self.client.flush(_NEVER))
        ping.add_done_callback(ended)
        return ping

    def _note_heard(self) -> None:
        self.heard_at = asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Fail everything under way and abandon the client with what it has not sent."""
        self.over.set()
        for exchange, index in list(self._pending.values()):
            subject = exchange.requests[index].subject
            exchange.fail(index, AnswerLost(f"connection lost, no answer from {subject}"))
        self._pending.clear()
        for failed in list(self._taps.values()):
            failed(AnswerLost("connection lost"))
        self._taps.clear()
        await discard(self.client)


async def _settle(exchange: Exchange, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    while not exchange.complete.done():
        left = exchange.progress + timeout - loop.time()
        if left <= 0:
            return
        await asyncio.wait({exchange.complete}, timeout=left)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
