"""Following the buckets of a real server: lost connections, and users who may not hear or ask."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from natsfs.config import ServerConfig
from natsfs.server import Server
from natsfs.store.jetstream import JetStreamManager, listing
from natsfs.store.model import (
    BucketConfig,
    BucketCreated,
    BucketDeleted,
    BucketEvent,
    BucketsListed,
)
from natsfs.store.session import open_session
from tests.contract.linked import StartServer
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.server

NewBucket = Callable[[], str]

#: Users of one account: all rights; no right to hear advisories; to list and nothing else.
USERS = """
authorization { users: [
    { user: all, password: all }
    { user: deaf, password: deaf, permissions: { subscribe: "_INBOX.>" } }
    { user: lister, password: lister, permissions: {
        publish: "$JS.API.STREAM.LIST"
        subscribe: [ "_INBOX.>", "$JS.EVENT.ADVISORY.STREAM.*.*" ] } }
] }
"""


@pytest.fixture
def proxy(nats_server: Server) -> Iterator[Proxy]:
    proxy = Proxy(nats_server.port)
    yield proxy
    proxy.close()


@asynccontextmanager
async def managing(url: str, user: str = "") -> AsyncIterator[JetStreamManager]:
    """The buckets of a server, as *user*."""
    config = ServerConfig(urls=(url,), user=user or None, password=user or None, timeout=10.0)
    async with open_session(config) as session:
        yield JetStreamManager(session)


async def told(events: AsyncIterator[BucketEvent]) -> BucketEvent:
    with trio.fail_after(20):
        return await anext(events)


async def listed(events: AsyncIterator[BucketEvent]) -> None:
    """Go on to the end of the first list."""
    while not isinstance(await told(events), BucketsListed):
        pass


@asynccontextmanager
async def watching(
    url: str, user: str
) -> AsyncIterator[tuple[JetStreamManager, AsyncIterator[BucketEvent]]]:
    """A manager with all rights, and what *user* is told from now on."""
    async with (
        managing(url, "all") as owner,
        managing(url, user) as manager,
        manager.watch() as events,
    ):
        await listed(events)
        yield owner, events


@pytest.mark.expects_log("lost the connection")
async def test_a_lost_connection(nats_server: Server, proxy: Proxy, new_bucket: NewBucket) -> None:
    """B1: what was created and deleted while nobody listened is told afterwards, and nothing
    else."""
    gone, kept, new = new_bucket(), new_bucket(), new_bucket()
    async with managing(nats_server.url) as direct, managing(proxy.url) as disturbed:
        before = await (await direct.create(BucketConfig(gone))).status()
        await direct.create(BucketConfig(kept))
        async with disturbed.watch() as events:
            await listed(events)
            proxy.down = lambda frame: b"ADVISORY" in frame
            await direct.delete(gone)
            after = await (await direct.create(BucketConfig(new))).status()
            proxy.cut()
            assert await told(events) == BucketDeleted(gone, before.created_ns)
            assert await told(events) == BucketCreated(after)


async def test_who_may_not_hear(
    start: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """B1: a user who may not hear advisories learns of buckets by a list now and then, and the log
    says so once."""
    monkeypatch.setattr(listing, "RELIST", 0.05)
    caplog.set_level(logging.INFO)
    url = start(USERS).url
    async with watching(url, "deaf") as (owner, events):
        for _ in range(2):
            status = await (await owner.create(BucketConfig("b"))).status()
            assert await told(events) == BucketCreated(status)
            await owner.delete("b")
            assert await told(events) == BucketDeleted("b", status.created_ns)
    assert len([text for text in caplog.messages if "to follow them" in text]) == 1


async def test_who_may_only_list(start: StartServer) -> None:
    """B1: a bucket that the user may list, and not ask for, is told of all the same."""
    url = start(USERS).url
    async with watching(url, "lister") as (owner, events):
        status = await (await owner.create(BucketConfig("b"))).status()
        assert await told(events) == BucketCreated(status)
        await owner.delete("b")
        assert await told(events) == BucketDeleted("b", status.created_ns)
