"""Links: the session's requests on connections of their own, and what may go wrong with those."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing

from natsfs.config import ServerConfig
from natsfs.errors import ConnectFailed, ConnectionLost, InvalidArgument, RequestTimeout
from natsfs.server import Server
from natsfs.store import buffers
from natsfs.store.buffers import Arena
from natsfs.store.link import Links, feed, link, open_links
from natsfs.store.protocol import get_sequence
from natsfs.store.session import AnswerLost, NoResponders, Request, Subscription, open_session
from tests.contract.linked import (
    CHUNK,
    INFO,
    StartServer,
    batch,
    check_batch,
    create_stream,
    freeze,
    linked,
    silent,
    until,
)

pytestmark = pytest.mark.server

LOST = pytest.mark.expects_log("lost the connection to")


# -- the session's promises -----------------------------------------------------------------------


async def test_request_errors(nats_server: Server, only_links: Callable[[], None]) -> None:
    """Nobody there, no answer, and too large are three errors, as with a session."""
    async with linked(nats_server.url) as links, silent(links) as unanswered:
        only_links()
        with pytest.raises(NoResponders):
            await links.request(Request("nobody.here"))
        with pytest.raises(RequestTimeout):
            await links.request(unanswered, timeout=0.1)
        with pytest.raises(InvalidArgument):
            await links.request(Request("silent", bytes(links.max_payload + 1)))
        with pytest.raises(InvalidArgument):
            await links.request(Request("silent", b"", {"K": "a\r\nb"}))


async def test_exchange_keeps_order(nats_server: Server, only_links: Callable[[], None]) -> None:
    """Each request of an exchange has its own answer or error, in its place."""
    async with linked(nats_server.url) as links:
        only_links()
        good, bad, none = await links.exchange([INFO, Request("nobody.here"), INFO])
        assert isinstance(good, list)
        assert isinstance(bad, NoResponders)
        assert isinstance(none, list)
        assert await links.exchange([]) == []


async def test_no_memory_for_an_answer(
    nats_server: Server, only_links: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request for whose answer there is no memory fails by itself: the link goes on, with what is
    under way."""
    async with linked(nats_server.url) as links, silent(links) as unanswered:
        only_links()
        await create_stream(links, "tight", 1)
        subject, chunk = "$JS.API.DIRECT.GET.tight", get_sequence(1)

        def full(size: int) -> Arena:
            raise MemoryError(f"no {size} bytes for a buffer")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_timeout, links, unanswered)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with monkeypatch.context() as patch:
                patch.setattr(buffers, "Arena", full)
                with pytest.raises(MemoryError):
                    await links.request(Request(subject, chunk, answer_bytes=CHUNK))
            answer = await links.request(Request(subject, chunk, answer_bytes=CHUNK))
            assert answer.data == bytes([0]) * CHUNK
            assert links.losses == 0


async def expect_timeout(links: Links, request: Request) -> None:
    with pytest.raises(RequestTimeout):
        await links.request(request, timeout=1.0)


@pytest.mark.since((2, 11))
async def test_bulk(nats_server: Server, only_links: Callable[[], None]) -> None:
    """Batches larger than any buffer arrive whole and in order, several at a time."""
    async with linked(nats_server.url) as links:
        only_links()
        await create_stream(links, "bulk", 200)
        async with trio.open_nursery() as nursery:

            async def fetch(count: int) -> None:
                check_batch(await links.collect(batch("bulk", count)), count)

            for count in (200, 150, 1, 100, 50, 200):
                nursery.start_soon(fetch, count)
        assert links.count > 1


@pytest.mark.since((2, 11))
async def test_cancelled_request(nats_server: Server, only_links: Callable[[], None]) -> None:
    """Cancelling ends a request at once, in whatever it was doing, and leaves the links usable."""
    async with linked(nats_server.url) as links:
        only_links()
        await create_stream(links, "cancelled", 64)
        opened = links.count
        upload = [Request("cancelled.c", bytes(CHUNK)) for _ in range(100)]
        for seconds in (0.0, 0.001, 0.002, 0.005, 0.01):
            with trio.move_on_after(seconds):
                await links.collect(batch("cancelled", 64))
            with trio.move_on_after(seconds):
                await links.exchange(upload)
        check_batch(await links.collect(batch("cancelled", 64)), 64)
        await links.request(INFO)
        assert links.count >= opened


async def test_an_unanswered_request_blocks_no_other(nats_server: Server) -> None:
    """While one waits for its answer, others get theirs."""
    async with linked(nats_server.url) as links, silent(links) as unanswered:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(RequestTimeout):
                    await links.collect(unanswered, timeout=0.5)

            for _ in range(5):
                nursery.start_soon(wait)
            for _ in range(20):
                await links.request(INFO, timeout=0.5)
                await links.exchange([Request("nobody", bytes(CHUNK))], timeout=0.5)
        assert links.count


async def test_many_small_requests_at_once(nats_server: Server) -> None:
    """A thousand tasks share one link, and each gets its own answer."""
    async with linked(nats_server.url) as links:
        await create_stream(links, "small")
        sequences: list[int] = []

        async def store(number: int) -> None:
            answer = await links.request(Request("small.x", str(number).encode()))
            sequences.append(json.loads(bytes(answer.data))["seq"])

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(store, number)
        assert sorted(sequences) == list(range(1, 1001))


@pytest.mark.parametrize("by_link", [True, False])
async def test_messages_without_an_answer(nats_server: Server, *, by_link: bool) -> None:
    """A2: of messages that are sent together only those bring an answer that ask for one; an error
    of this side is told of all."""
    async with linked(nats_server.url) as links:
        stream = f"quiet{by_link}"
        await create_stream(links, stream)
        plane = links if by_link else links.session
        quiet = Request(f"{stream}.x", b"1", answered=False)
        first, last = await plane.exchange([quiet, Request(f"{stream}.x", b"2")])
        assert first == []
        assert isinstance(last, list)
        assert json.loads(bytes(last[0].data))["seq"] == 2
        too_large = replace(quiet, data=bytes(links.max_payload + 1))
        first, last = await plane.exchange([too_large, Request(f"{stream}.x", b"3")])
        assert isinstance(first, InvalidArgument)
        assert isinstance(last, list)
        assert json.loads(bytes(last[0].data))["seq"] == 3
        assert await plane.exchange([quiet]) == [[]]


async def test_a_body_that_fails(nats_server: Server) -> None:
    """An error of whoever uses links comes out as it is."""
    with pytest.raises(RequestTimeout):
        async with linked(nats_server.url):
            raise RequestTimeout("the user's")


async def test_end_with_requests_under_way(nats_server: Server) -> None:
    """Requests that are under way when links are closed end with them."""
    answers: list[Exception] = []

    async def ask(links: Links) -> None:
        try:
            await links.request(Request("silent"), timeout=30)
        except AnswerLost as error:
            answers.append(error)

    config = ServerConfig(urls=(nats_server.url,), timeout=5.0)
    async with (
        open_session(config) as session,
        session.subscribe("silent") as subscription,
        trio.open_nursery() as nursery,
        open_links(session) as links,
    ):
        await until(lambda: links.count > 0)
        await session.request(INFO)
        nursery.start_soon(ask, links)
        await subscription.receive()
    assert len(answers) == 1


# -- breaking and coming back ---------------------------------------------------------------------


@pytest.mark.since((2, 11))
@LOST
async def test_server_killed_in_a_transfer(start: StartServer) -> None:
    """A5: a crash in the middle of a batch fails it at once; links are there again with the
    server."""
    server = start("")
    async with linked(server.url, timeout=20.0) as links:
        await create_stream(links, "s", 256)
        freeze(server)
        async with trio.open_nursery() as nursery:

            async def fetch() -> None:
                with pytest.raises(AnswerLost):
                    await links.collect(batch("s", 256))

            async def store() -> None:
                answers = await links.exchange([Request("s.c", bytes(CHUNK))] * 256)
                assert all(isinstance(answer, AnswerLost) for answer in answers)

            nursery.start_soon(fetch)
            nursery.start_soon(store)
            await trio.testing.wait_all_tasks_blocked(0.05)
            server.kill()
        await until(lambda: not links.count)
        server.restart()
        await until(lambda: links.connected)
        await until(lambda: links.count > 0)
        check_batch(await links.collect(batch("s", 100)), 100)


async def test_hung_server(start: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A5: a link whose server stands still is noticed long before its requests would time out."""
    monkeypatch.setattr(link, "LIVENESS_INTERVAL", 0.1)
    server = start("")
    async with linked(server.url, timeout=60.0) as links:
        freeze(server)
        begin = trio.current_time()
        with pytest.raises(AnswerLost):
            await links.request(INFO)
        assert trio.current_time() - begin < 5
        os.kill(server.pid, signal.SIGCONT)
        await links.request(INFO)
        await until(lambda: links.count > 0)


async def test_fatal_protocol_error(nats_server: Server) -> None:
    """A5: what makes the server hang up costs the requests under way on that link, and nothing
    more."""
    async with linked(nats_server.url) as links, silent(links) as unanswered:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(AnswerLost):
                    await links.request(unanswered, timeout=30)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with pytest.raises(AnswerLost):
                await links.request(Request("too." + "long" * 2000))
        for _ in range(3):
            await links.request(INFO)
        await until(lambda: links.count > 0)
        assert links.connected


async def test_idle_links_are_kept(
    nats_server: Server, monkeypatch: pytest.MonkeyPatch, only_links: Callable[[], None]
) -> None:
    """Links without traffic are not taken for dead ones."""
    monkeypatch.setattr(link, "LIVENESS_INTERVAL", 0.2)
    async with linked(nats_server.url) as links:
        only_links()
        with trio.move_on_after(1.5):
            await until(lambda: links.count == 0)
        await links.request(INFO)


@LOST
async def test_links_follow_the_session(start: StartServer) -> None:
    """When the session has gone to another server, so have the links."""
    first, second = start(""), start("")
    async with linked(first.url, second.url) as links:
        assert links.url == first.url
        first.kill()
        await until(lambda: links.url == second.url)
        await until(lambda: links.count > 0)
        for _ in range(3):
            await links.request(INFO)
        assert links.count == 1


@LOST
async def test_a_server_that_stays_away(start: StartServer) -> None:
    """A5: without a server, a request fails when its time-out is over."""
    server = start("")
    async with linked(server.url) as links:
        server.kill()
        await until(lambda: not links.connected and not links.count)
        begin = trio.current_time()
        with pytest.raises(ConnectionLost):
            await links.request(INFO, timeout=0.5)
        assert trio.current_time() - begin < 3


@pytest.mark.since((2, 11))
async def test_too_slow_for_the_server(start: StartServer) -> None:
    """A link that the server drops for being slow costs its requests and no more."""
    server = start('write_deadline: "50ms"\nmax_pending: 2MB')
    async with linked(server.url) as links:
        await create_stream(links, "s", 256)
        async with trio.open_nursery() as nursery:

            async def fetch() -> None:
                with pytest.raises(AnswerLost):
                    await links.collect(batch("s", 256))

            nursery.start_soon(fetch)
            await trio.testing.wait_all_tasks_blocked(0.0)
            # The whole loop stands still, as it does under a debugger or a stopped process.
            server_closes_it(server)
        check_batch(await links.collect(batch("s", 8)), 8)


def server_closes_it(server: Server) -> None:
    """Wait, without letting anything else run, until the server's log tells of a slow consumer."""
    log = server.directory / "server.log"
    deadline = time.monotonic() + 20
    while "Slow Consumer" not in log.read_text():
        assert time.monotonic() < deadline


# -- feeds ----------------------------------------------------------------------------------------


@asynccontextmanager
async def sending(links: Links, subject: str, count: int) -> AsyncIterator[None]:
    """Numbered messages to *subject* are under way, whose listener answers none of them."""
    numbers = [Request(subject, f"{n}".encode()) for n in range(count)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(links.exchange, numbers, timeout=60.0))
        yield
        nursery.cancel_scope.cancel()


async def received(fed: Subscription, count: int) -> list[bytes]:
    """The next *count* messages."""
    found: list[bytes] = []
    with trio.fail_after(20):
        while len(found) < count:
            found += [bytes(message.data) for message in await fed.receive()]
    return found


async def test_feed(nats_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent to a feed arrives whole and in order, also when its reader is slow."""
    monkeypatch.setattr(feed, "WAITING", 10)
    monkeypatch.setattr(feed, "PATIENCE", 0.05)
    async with (
        linked(nats_server.url) as links,
        links.feed() as (subject, fed),
        sending(links, subject, 5000),
    ):
        await until(lambda: fed.waiting > feed.WAITING)
        assert await received(fed, 5000) == [f"{n}".encode() for n in range(5000)]


async def test_feed_without_a_connection_for_it(
    nats_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server allows no more connections, the session brings what a feed would."""

    async def refuse(*_: object) -> None:
        raise ConnectFailed("no more connections")

    async with linked(nats_server.url) as links:
        monkeypatch.setattr(feed, "open_transport", refuse)
        async with links.feed() as (subject, fed):
            await links.session.request(INFO)  # the server has the subscription now
            async with sending(links, subject, 3):
                assert await received(fed, 3) == [b"0", b"1", b"2"]


@LOST
async def test_feed_of_a_server_that_goes(start: StartServer) -> None:
    """A feed whose connection breaks says so, after what had come."""
    server = start("")
    async with linked(server.url) as links, links.feed() as (subject, fed):
        async with sending(links, subject, 1):
            assert await received(fed, 1) == [b"0"]
        server.kill()
        with trio.fail_after(20), pytest.raises(AnswerLost):
            await fed.receive()
        await until(lambda: not links.connected)
