"""The data plane: requests on connections of their own, spoken by trio without a detour.

A request through the session crosses to asyncio's thread and back, which costs about 1 ms and
several copies of what is in it.  Here it is one write and one read on a socket in trio's own
thread.  `receiver` and `outbox` are the two directions of the NATS protocol without I/O,
`transport` is the socket, `handshake` logs in, `exchange` and `link` match answers to requests,
`budget` and `natsfs.store.buffers` bound the memory for them, and `pool` has several links for
several tasks.  `feed` brings what a consumer delivers.

What is rare stays with the session: other subscriptions, the choice of the server, logging in.  And
while no link can be had (just after a start, while the server is away, where it does not allow so
many connections) the session carries the requests too.

Concurrency: any number of tasks may use `Links`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import trio

from natsfs.config import ServerConfig
from natsfs.errors import ConnectFailed, NatsfsError
from natsfs.store.buffers import joined
from natsfs.store.link.feed import open_feed
from natsfs.store.link.pool import Pool
from natsfs.store.session import Answer, Message, Request, Session, Subscription

__all__ = ["Links", "joined", "open_links"]

log = logging.getLogger(__name__)

#: Bytes of requests and of their answers, where these are known, from which on they go by a link
#: for bulk: sending so much takes as long as a small request's round trip.
BULK_BYTES = 64 * 1024


class Links:
    """Serves what a session serves, its requests faster.  Made by `open_links`."""

    def __init__(self, session: Session, pool: Pool) -> None:
        self.session = session
        self._pool = pool

    # -- requests ---------------------------------------------------------------------------------

    async def request(self, request: Request, *, timeout: float | None = None) -> Message:
        """`Session.request`."""
        return (await self._one(request, streamed=False, timeout=timeout))[0]

    async def collect(self, request: Request, *, timeout: float | None = None) -> list[Message]:
        """`Session.collect`.  The payloads may be memoryviews of buffers that are used again when
        nobody looks at them any more.  Where *request* says how many bytes to expect, all payloads
        lie in one (`joined`)."""
        return await self._one(request, streamed=True, timeout=timeout)

    async def exchange(
        self, requests: Sequence[Request], *, timeout: float | None = None
    ) -> list[Answer]:
        """`Session.exchange`.  All *requests* go by one link, so the server takes them in order."""
        size = sum(len(request.data) + request.answer_bytes for request in requests)
        link = self._pool.choose(bulk=size >= BULK_BYTES)
        if link is None:
            return await self.session.exchange(requests, timeout=timeout)
        return await link.send(requests, streamed=False, timeout=self._limit(timeout))

    async def _one(
        self, request: Request, *, streamed: bool, timeout: float | None
    ) -> list[Message]:
        link = self._pool.choose(bulk=streamed or len(request.data) >= BULK_BYTES)
        if link is None and streamed:
            return await self.session.collect(request, timeout=timeout)
        if link is None:
            return [await self.session.request(request, timeout=timeout)]
        limit = self._limit(timeout)
        (answer,) = await link.send([request], streamed=streamed, timeout=limit)
        if isinstance(answer, NatsfsError):
            raise answer
        return answer

    def _limit(self, timeout: float | None) -> float:
        return self.config.timeout if timeout is None else timeout

    @property
    def count(self) -> int:
        """How many links are open, as far as is known.  With none the session serves requests."""
        return self._pool.count

    # -- the session's ----------------------------------------------------------------------------

    @property
    def config(self) -> ServerConfig:
        """`Session.config`."""
        return self.session.config

    @property
    def patient(self) -> bool:
        """`Session.patient`."""
        return self.session.patient

    @property
    def connected(self) -> bool:
        """`Session.connected`."""
        return self.session.connected

    @property
    def losses(self) -> int:
        """`Session.losses`, those of links included."""
        return self.session.losses + self._pool.losses

    @property
    def url(self) -> str | None:
        """`Session.url`."""
        return self.session.url

    @property
    def server_version(self) -> tuple[int, int, int] | None:
        """`Session.server_version`."""
        return self.session.server_version

    @property
    def max_payload(self) -> int:
        """`Session.max_payload`."""
        return self.session.max_payload

    async def changed(self) -> None:
        """`Session.changed`."""
        await self.session.changed()

    def subscribe(self, subject: str) -> AbstractAsyncContextManager[Subscription]:
        """`Session.subscribe`."""
        return self.session.subscribe(subject)

    @asynccontextmanager
    async def feed(self) -> AsyncIterator[tuple[str, Subscription]]:
        """`Session.feed`, by a connection of its own where one can be had."""
        async with AsyncExitStack() as stack:
            yield await self._open_feed(stack)

    async def _open_feed(self, stack: AsyncExitStack) -> tuple[str, Subscription]:
        access = self.session.access
        if access is not None:
            opening = open_feed(access, self.config.connect_timeout, self._pool.nursery)
            try:
                feed = await stack.enter_async_context(opening)
            except ConnectFailed as error:
                log.info("metas come by the session: %s", error)
            else:
                return feed.subject, feed.subscription
        return await stack.enter_async_context(self.session.feed())

    def new_inbox(self) -> str:
        """`Session.new_inbox`."""
        return self.session.new_inbox()


@asynccontextmanager
async def open_links(session: Session) -> AsyncIterator[Links]:
    """Links beside *session*, which must outlive them.  Requests under way at the end fail with
    `AnswerLost`.

    An error of the body comes out as it is, not in a group: the tasks in here raise none.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        pool = Pool(session, nursery)
        nursery.start_soon(pool.follow)
        try:
            yield Links(session, pool)
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
