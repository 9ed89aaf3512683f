"""Every store that the contract suite is for, opened inside the test's trio run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import NoReturn

import pytest

from natsfs.config import ServerConfig
from natsfs.server import Server, start_server
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.link import open_links
from natsfs.store.memory import MemoryManager
from natsfs.store.model import BucketConfig
from natsfs.store.session import Session, open_session
from tests.contract.foreign import Foreign, MemoryForeign, SocketForeign
from tests.contract.linked import StartServer
from tests.in_trio import Resource

STORES = ["memory", pytest.param("jetstream", marks=pytest.mark.server)]


@pytest.fixture(params=STORES)
def backend(request: pytest.FixtureRequest) -> Server | MemoryManager:
    """Where the buckets are."""
    if request.param == "memory":
        return MemoryManager()
    server: Server = request.getfixturevalue("nats_server")
    return server


@pytest.fixture
def manager(backend: Server | MemoryManager) -> Resource[ObjectStoreManager]:
    async def enter(stack: AsyncExitStack) -> ObjectStoreManager:
        if isinstance(backend, MemoryManager):
            return backend
        config = ServerConfig(urls=(backend.url,), timeout=20.0)
        session = await stack.enter_async_context(open_session(config))
        return JetStreamManager(await stack.enter_async_context(open_links(session)))

    return Resource(enter)


@pytest.fixture
def new_bucket() -> Callable[[], str]:
    """Names of buckets that no other test has."""
    return lambda: f"test-{uuid.uuid4().hex}"


@pytest.fixture
def store(
    manager: Resource[ObjectStoreManager], new_bucket: Callable[[], str]
) -> Resource[ObjectStore]:
    """A fresh bucket."""

    async def enter(stack: AsyncExitStack) -> ObjectStore:
        opened = await manager.open(stack)
        return await opened.create(BucketConfig(new_bucket()))

    return Resource(enter)


@pytest.fixture
def foreign(backend: Server | MemoryManager) -> Resource[Foreign]:
    """Another client of the same buckets."""

    async def enter(stack: AsyncExitStack) -> Foreign:
        if isinstance(backend, MemoryManager):
            return MemoryForeign(backend)
        return stack.enter_context(closing(SocketForeign(backend.port)))

    return Resource(enter)


@pytest.fixture
def start(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[StartServer]:
    """Start a server of one's own with a piece of configuration."""
    started: list[Server] = []
    binary = pytestconfig.getoption("--server")

    def start(extra_config: str) -> Server:
        store = tmp_path / f"store{len(started)}"
        started.append(start_server(store, extra_config=extra_config, binary=binary))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def only_links(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, the session serves no request any more."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the session was asked")

    def only_links() -> None:
        for method in ("request", "collect", "exchange"):
            monkeypatch.setattr(Session, method, refuse)

    return only_links
