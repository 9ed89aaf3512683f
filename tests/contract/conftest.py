"""Every store that the contract suite is for, opened inside the test's trio run."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack, closing

import pytest

from natsfs.config import ServerConfig
from natsfs.server import Server
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.memory import MemoryManager
from natsfs.store.model import BucketConfig
from natsfs.store.session import open_session
from tests.contract.foreign import Foreign, MemoryForeign, SocketForeign
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
        return JetStreamManager(await stack.enter_async_context(open_session(config)))

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
