"""How many messages a change costs: what a client on the far side of a slow line waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace

import pytest

from natsfs.config import ServerConfig
from natsfs.server import Server
from natsfs.store.base import tombstone
from natsfs.store.jetstream import JetStreamManager, JetStreamStore
from natsfs.store.model import BucketConfig, MetaWrite
from natsfs.store.session import open_session
from tests.contract.objects import CHUNK, content, put, upload
from tests.faults.proxy import Proxy
from tests.in_trio import Resource

pytestmark = pytest.mark.server


@dataclass
class Counted:
    """A bucket, and what is published to it and to JetStream's API."""

    store: JetStreamStore
    manager: JetStreamManager
    sent: list[str] = field(default_factory=list)

    @contextmanager
    def costs(self, *verbs: str) -> Iterator[None]:
        """What is done within sends exactly these: `C` for a chunk, `M` for a meta, or the verb of
        a request to the API."""
        self.sent.clear()
        yield
        assert self.sent == list(verbs)


@pytest.fixture
def counted(nats_server: Server, new_bucket: Callable[[], str]) -> Resource[Counted]:
    async def enter(stack: AsyncExitStack) -> Counted:
        proxy = stack.enter_context(closing(Proxy(nats_server.port)))
        config = ServerConfig(urls=(proxy.url,), timeout=20.0)
        session = await stack.enter_async_context(open_session(config))
        manager = JetStreamManager(session)
        store = await manager.create(BucketConfig(new_bucket()))
        counted = Counted(store, manager)

        def note(frame: bytes) -> bool:
            command, _, rest = frame.partition(b" ")
            subject = rest.partition(b" ")[0].decode()
            if command in (b"PUB", b"HPUB"):
                verb = subject.removeprefix("$JS.API.").removeprefix(f"$O.{store.bucket}.")
                counted.sent.append(verb.removesuffix(subject.rpartition(".")[2]).rstrip("."))
            return False

        proxy.up = note
        return counted

    return Resource(enter)


async def test_upload(counted: Counted) -> None:
    """W1: an upload sends its chunks and one meta, whatever it replaces, and asks for nothing."""
    store = counted.store
    with counted.costs("C", "M"):
        await upload(store, "a", b"small", expected=0)
    with counted.costs("M"):
        await upload(store, "empty", b"")
    with counted.costs("C", "C", "C", "M"):
        await upload(store, "a", content(3 * CHUNK))


async def test_commit(counted: Counted) -> None:
    """M5, A2: a change of metadata, a deletion and a rename send their metas and nothing else."""
    store = counted.store
    info = await upload(store, "a", b"data")
    with counted.costs("M"):
        (info,) = await store.commit([MetaWrite(replace(info, description="x"), info.revision)])
    moved = replace(info, name="b", subject="")
    with counted.costs("M", "M"):
        moved, _ = await store.commit(
            [MetaWrite(moved, 0), MetaWrite(tombstone(info), info.revision)]
        )
    with counted.costs("M"):
        await store.commit([MetaWrite(tombstone(moved), moved.revision)])
    with counted.costs("STREAM.PURGE"):
        await store.purge_chunks(moved.nuid)


async def test_small_versions_together(counted: Counted) -> None:
    """R2: small versions that are read together cost one request each, and are known then."""
    store = counted.store
    infos = [await put(store, str(number), content(number + 1)) for number in range(5)]
    get = f"DIRECT.GET.OBJ_{store.bucket}".rpartition(".")[0]
    anew = await counted.manager.bind(store.bucket)
    with counted.costs(*[get] * 5):
        assert await anew.read_small(infos) == [content(number + 1) for number in range(5)]
    with counted.costs(get):
        assert await anew.read(infos[3], 1, 3) == content(4)[1:3]


async def test_put(counted: Counted) -> None:
    """A put looks for what it replaces, and frees that."""
    with counted.costs("STREAM.MSG.GET", "C", "M"):
        await put(counted.store, "a", b"one")
    with counted.costs("STREAM.MSG.GET", "C", "M", "STREAM.PURGE"):
        await put(counted.store, "a", b"two")


async def test_first_read(counted: Counted) -> None:
    """R2: who reads a version for the first time asks for both its ends at once, and these bring
    the bytes that they have; then a chunk is one request."""
    data = content(3 * CHUNK)
    info = await put(counted.store, "a", data)
    get = f"DIRECT.GET.OBJ_{counted.store.bucket}".rpartition(".")[0]
    for start, costs in ((0, 2), (2 * CHUNK + 1, 2), (CHUNK, 3)):
        anew = await counted.manager.bind(counted.store.bucket)
        with counted.costs(*[get] * costs):
            assert await anew.read(info, start, start + 1) == data[start : start + 1]
        with counted.costs(get):
            assert await anew.read(info, 0, CHUNK) == data[:CHUNK]
