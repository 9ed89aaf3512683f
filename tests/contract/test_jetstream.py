"""What only the JetStream store has to cope with: a network, a server that goes away, other clients
with habits of their own, permissions."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import pytest
import trio
from nats.js.api import ObjectMeta as NatsPyMeta

from natsfs.config import ServerConfig
from natsfs.errors import (
    BucketNotFoundError,
    ChunkMissing,
    ConnectionLost,
    JetStreamUnavailable,
    NatsfsError,
    NotSent,
    PermissionsError,
    ReadOnlyError,
    RequestTimeout,
    WrongRevision,
)
from natsfs.server import Server, start_server
from natsfs.store.base import ObjectStore
from natsfs.store.jetstream import JetStreamManager, JetStreamStore, chunks
from natsfs.store.jetstream.api import Api
from natsfs.store.link import open_links
from natsfs.store.model import (
    BucketConfig,
    CaughtUp,
    MetaWrite,
    ObjectInfo,
    ObjectMeta,
    Restarted,
    Updated,
    WatchEvent,
)
from natsfs.store.session import Answer, Request, open_session
from natsfs.store.session.client import Message
from natsfs.store.wire import chunk_subject
from tests.contract.foreign import SocketForeign
from tests.contract.objects import CHUNK, SMALL, Source, chunks_of, content, content_of, get, put
from tests.faults import proxy as proxies
from tests.faults.proxy import Fate, Once, Proxy, nothing
from tests.in_trio import Resource

pytestmark = pytest.mark.server

LOST = pytest.mark.expects_log("lost the connection to")

NewBucket = Callable[[], str]


@asynccontextmanager
async def connected(url: str, timeout: float = 20.0, **settings: Any) -> AsyncIterator[Api]:
    config = ServerConfig(urls=(url,), timeout=timeout, **settings)
    async with open_session(config) as session, open_links(session) as links:
        yield Api(links)


@pytest.fixture
def proxy(nats_server: Server) -> Iterator[Proxy]:
    proxy = Proxy(nats_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may stop."""
    server = start_server(tmp_path / "store")
    yield server
    server.kill()


@pytest.fixture
def direct(nats_server: Server, new_bucket: NewBucket) -> Resource[JetStreamStore]:
    """A fresh bucket, by a connection that nothing disturbs."""

    async def enter(stack: AsyncExitStack) -> JetStreamStore:
        api = await stack.enter_async_context(connected(nats_server.url))
        return await JetStreamManager(api.session).create(BucketConfig(new_bucket()))

    return Resource(enter)


@pytest.fixture
def disturbed(direct: Resource[JetStreamStore], proxy: Proxy) -> Resource[JetStreamStore]:
    """The same bucket through the proxy, with little patience."""

    async def enter(stack: AsyncExitStack) -> JetStreamStore:
        bucket = (await direct.open(stack)).bucket
        api = await stack.enter_async_context(connected(proxy.url, timeout=4.0))
        return await JetStreamManager(api.session).bind(bucket)

    return Resource(enter)


def is_ack(frame: bytes) -> bool:
    return b'{"stream":"OBJ_' in frame and b'"seq"' in frame


async def messages_of(server: Server, bucket: str, subject: str) -> int:
    foreign = SocketForeign(server.port)
    try:
        return len(await foreign.messages(bucket, subject))
    finally:
        foreign.close()


# -- lost messages --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 5 * CHUNK, 600 * CHUNK])
async def test_lost_acknowledgement(
    direct: JetStreamStore, disturbed: JetStreamStore, proxy: Proxy, size: int
) -> None:
    """W1: a put whose last acknowledgement is lost is found to be stored, once."""
    proxy.down = lost = Once(is_ack)
    info = await put(disturbed, "a", content(size))
    assert lost.done.is_set()
    assert content_of(await direct.get_info("a")) == content_of(info)
    assert await get(direct, "a") == content(size)
    assert (await direct.status()).messages == info.chunks + 1


async def test_lost_acknowledgement_of_a_commit(
    direct: JetStreamStore, disturbed: JetStreamStore, proxy: Proxy
) -> None:
    """M5: a change of metadata whose answer is lost has happened once, and says so."""
    old = await put(direct, "a", b"data")
    proxy.down = Once(is_ack)
    (new,) = await disturbed.commit([MetaWrite(replace(old, description="x"), old.revision)])
    assert new.revision == old.revision + 1
    assert content_of(await direct.get_info("a")) == content_of(new)


async def test_lost_acknowledgement_of_a_rename(
    direct: JetStreamStore, disturbed: JetStreamStore, proxy: Proxy
) -> None:
    """A2: a rename whose answer is lost has happened once, and says so."""
    await put(direct, "a", b"data")
    proxy.down = lost = Once(is_ack)
    moved = await disturbed.rename("a", "b")
    assert lost.done.is_set()
    assert content_of(await direct.get_info("b")) == content_of(moved)
    assert [info.name for info in await direct.list()] == ["b"]


@pytest.mark.since((2, 12))
async def test_batch_that_lost_a_message(
    direct: JetStreamStore, disturbed: JetStreamStore, proxy: Proxy
) -> None:
    """A2: an atomic batch of which the server has dropped a message is sent again, whole."""
    proxy.up = lost = Once(lambda frame: b"Nats-Batch-Sequence: 2\r\n" in frame)
    infos = await disturbed.commit(
        [MetaWrite(ObjectInfo(name, disturbed.bucket, ""), 0) for name in ("a", "b", "c")]
    )
    assert lost.done.is_set()
    assert [info.name for info in await direct.list()] == ["a", "b", "c"]
    assert (await direct.status()).messages == 3
    assert [info.revision for info in infos] == [1, 2, 3]


async def test_lost_answer_and_a_foreign_change(
    direct: JetStreamStore, disturbed: JetStreamStore, proxy: Proxy
) -> None:
    """A4: a change that never reached the server and meanwhile lost its race is refused."""
    old = await put(direct, "a", b"data")
    token = old.subject.encode()
    proxy.up = lost = Once(lambda frame: frame.startswith(b"HPUB " + token))
    async with trio.open_nursery() as nursery:

        async def change() -> None:
            with pytest.raises(WrongRevision):
                await disturbed.commit([MetaWrite(replace(old, description="x"), old.revision)])

        nursery.start_soon(change)
        while not lost.done.is_set():
            await trio.lowlevel.checkpoint()
        await direct.update_meta("a", description="foreign")
    assert (await direct.get_info("a")).description == "foreign"


@pytest.mark.parametrize("size", [5 * CHUNK, 600 * CHUNK])
async def test_lost_chunk(
    direct: JetStreamStore, disturbed: JetStreamStore, proxy: Proxy, size: int
) -> None:
    """W2: a chunk that the server dropped while it took the next ones is put back in its place."""
    proxy.up = lost = Once(lambda frame: b"Nats-Msg-Id: " in frame and b".3\r\n" in frame)
    info = await put(disturbed, "a", content(size))
    assert lost.done.is_set()
    assert await get(direct, "a") == content(size)
    assert (await direct.status()).messages == info.chunks + 1


async def test_lost_chunk_and_a_lost_deletion(
    direct: JetStreamStore, disturbed: JetStreamStore, proxy: Proxy
) -> None:
    """W2, A5: a chunk that came too early, and was deleted by a request whose answer is lost, is
    gone when it is to be deleted again, and is sent again like all others."""
    lost = Once(lambda frame: b"Nats-Msg-Id: " in frame and b".3\r\n" in frame)
    deletion = proxies.Answer(lambda frame: b"STREAM.MSG.DELETE." in frame, Fate.LOSE)
    proxy.up = lambda frame: Fate.LOSE if lost(frame) is Fate.LOSE else deletion.request(frame)
    proxy.down = deletion.answer
    info = await put(disturbed, "a", content(600 * CHUNK))
    assert deletion.done.is_set()
    assert await get(direct, "a") == content(600 * CHUNK)
    assert (await direct.status()).messages == info.chunks + 1


async def test_a_commit_of_a_draft_without_an_answer(
    direct: JetStreamStore, disturbed: JetStreamStore, proxy: Proxy
) -> None:
    """W1, W2: a draft whose commit may have happened keeps its chunks when it is given up, and may
    be committed once more."""

    async def place(version: ObjectInfo, lost: WrongRevision | None) -> list[MetaWrite]:
        return [MetaWrite(version)]

    drafts = [disturbed.draft(name) for name in "ab"]
    proxy.down = is_ack
    for name, draft in zip("ab", drafts, strict=True):
        await draft.write(content(3 * CHUNK))
        with pytest.raises(RequestTimeout):
            await draft.commit(name, place)
        assert draft.uncertain
    proxy.down = nothing
    await drafts[0].abandon()
    await drafts[1].commit("b", place)
    for name in "ab":
        assert await get(direct, name) == content(3 * CHUNK)


async def test_a_draft_that_was_taken_for_garbage(
    direct: JetStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W1: a commit does not promise bytes that somebody freed while the writer slept."""
    monkeypatch.setattr(chunks, "OLD", 0.0)
    draft = direct.draft("a")
    await draft.write(content(6 * 1024 * 1024))
    await direct.purge_chunks(draft.nuid)
    await draft.write(content(1024))

    async def place(version: ObjectInfo, lost: WrongRevision | None) -> list[MetaWrite]:
        return [MetaWrite(version)]

    with pytest.raises(ChunkMissing, match="of 49 chunks that were sent are gone"):
        await draft.commit("a", place)
    assert await direct.list() == []
    await draft.abandon()


@LOST
async def test_cut_while_the_answer_is_under_way(
    direct: JetStreamStore, disturbed: JetStreamStore, proxy: Proxy
) -> None:
    """A5: a connection that breaks with the answer on it costs no second message and no error."""
    proxy.down = lost = Once(is_ack)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, disturbed, "a", content(600 * CHUNK))
        while not lost.done.is_set():
            await trio.lowlevel.checkpoint()
        proxy.cut()
    assert await get(direct, "a") == content(600 * CHUNK)
    assert (await direct.status()).messages == 601


@LOST
async def test_no_connection_within_the_time_out(disturbed: JetStreamStore, proxy: Proxy) -> None:
    """A5: without a server, a call fails when its time-out is over."""
    proxy.close()
    begin = trio.current_time()
    with pytest.raises(ConnectionLost):
        await disturbed.get_info("a")
    assert trio.current_time() - begin < 8


@LOST
@pytest.mark.parametrize("size", [1000, 3 * CHUNK])
async def test_a_commit_that_was_not_sent(
    disturbed: JetStreamStore, proxy: Proxy, size: int
) -> None:
    """W2, A5: without a server, whoever commits hears that it has not happened, and a draft frees
    its chunks when it is given up."""

    async def place(version: ObjectInfo, lost: WrongRevision | None) -> list[MetaWrite]:
        return [MetaWrite(version)]

    info = await put(disturbed, "a", b"a")
    draft = disturbed.draft("b")
    await draft.write(content(size))
    proxy.close()
    while disturbed._bucket.api.session.connected:
        await trio.lowlevel.checkpoint()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises_not_sent, lambda: draft.commit("b", place))
        nursery.start_soon(raises_not_sent, lambda: disturbed.commit([MetaWrite(info)]))
    assert not draft.uncertain


async def raises_not_sent(commit: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(NotSent):
        await commit()


@LOST
async def test_a_commit_that_may_have_been_sent(disturbed: JetStreamStore, proxy: Proxy) -> None:
    """W2, A5: where the answer was lost, and then the server, nobody says that it was not sent."""
    info = await put(disturbed, "a", b"a")
    proxy.down = lost = Once(is_ack)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(may_have_been_sent, lambda: disturbed.commit([MetaWrite(info)]))
        while not lost.done.is_set():
            await trio.lowlevel.checkpoint()
        proxy.close()


async def may_have_been_sent(commit: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(NatsfsError) as caught:
        await commit()
    assert not isinstance(caught.value, NotSent)


async def test_a_chunk_that_is_on_its_way_for_ever(
    direct: JetStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A5: a chunk that a leader says it has and has lost goes under another id, once."""
    session = direct._bucket.api.session
    exchange = session.exchange
    lost: list[str] = []
    monkeypatch.setattr(chunks, "ON_ITS_WAY", 0.05)

    async def exchanged(requests: Sequence[Request], *, timeout: float) -> list[Answer]:
        ids = [request.headers.get("Nats-Msg-Id", "") for request in requests]
        if not lost and len(requests) > 1:
            lost.append(ids[1])
        passed = [r for r, id_ in zip(requests, ids, strict=True) if id_ not in lost]
        answers = iter(await exchange(passed, timeout=timeout))
        text = b'{"error":{"code":409,"err_code":10158,"description":"in process"}}'
        said = [Message("", "", b"", text)]
        return [said if id_ in lost else next(answers) for id_ in ids]

    monkeypatch.setattr(session, "exchange", exchanged)
    body = bytes(range(250)) * 40
    info = await put(direct, "a", body)
    assert lost
    assert await get(direct, "a") == body
    assert info.chunks == len(body) // info.max_chunk_size


# -- a server that goes away ----------------------------------------------------------------------


async def next_until(
    events: AsyncIterator[WatchEvent], wanted: Callable[[WatchEvent], bool]
) -> list[WatchEvent]:
    found: list[WatchEvent] = []
    async for event in events:
        found.append(event)
        if wanted(event):
            break
    return found


@LOST
async def test_restart_during_an_upload(own_server: Server) -> None:
    """A5, W1: an upload survives the server's crash and restart with its bytes in order."""
    piece = content(1024 * 1024)
    digest = hashlib.sha256()

    async def source() -> AsyncIterator[bytes]:
        for number in range(12):
            if number == 6:
                await trio.to_thread.run_sync(own_server.kill)
                await trio.to_thread.run_sync(own_server.restart)
            data = bytes([number]) + piece
            digest.update(data)
            yield data

    async with connected(own_server.url) as api:
        store = await JetStreamManager(api.session).create(BucketConfig("b"))
        info = await store.upload("a", source(), ObjectMeta())
        assert hashlib.sha256(await get(store, "a")).digest() == digest.digest()
        assert (await store.status()).messages == info.chunks + 1


@LOST
async def test_restart_during_a_window(own_server: Server) -> None:
    """A5, W1: a server that dies with chunks on their way does not end the upload."""
    async with connected(own_server.url) as api:
        store = await JetStreamManager(api.session).create(BucketConfig("b"))
        data = random.Random(0).randbytes(24 * 1024 * 1024)

        async def crash() -> None:
            while (await store.status()).messages < 40:
                await trio.lowlevel.checkpoint()
            await trio.to_thread.run_sync(own_server.kill)
            await trio.to_thread.run_sync(own_server.restart)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            info = await store.put("a", Source(data), ObjectMeta())
        assert await get(store, "a") == data
        assert (await store.status()).messages == info.chunks + 1


@LOST
async def test_restart_during_a_watch(own_server: Server) -> None:
    """A5: after a restart of the server the watch tells everything again and goes on."""
    async with connected(own_server.url) as api:
        store = await JetStreamManager(api.session).create(BucketConfig("b"))
        await put(store, "a", b"1")
        async with store.watch() as events:
            await next_until(events, lambda e: isinstance(e, CaughtUp))
            await trio.to_thread.run_sync(own_server.kill)
            await trio.to_thread.run_sync(own_server.restart)
            again = await next_until(events, lambda e: isinstance(e, CaughtUp))
            assert isinstance(again[0], Restarted)
            assert [e.info.name for e in again if isinstance(e, Updated)] == ["a"]
            await put(store, "b", b"2")
            news = await next_until(events, lambda e: isinstance(e, Updated))
            assert [e.info.name for e in news if isinstance(e, Updated)] == ["b"]


async def test_bucket_created_anew_during_a_watch(
    direct: JetStreamStore, nats_server: Server
) -> None:
    """A6: a bucket that was deleted and created again is told apart by its time of creation."""
    async with connected(nats_server.url) as api, direct.watch() as events:
        manager = JetStreamManager(api.session)
        first = await next_until(events, lambda e: isinstance(e, CaughtUp))
        await manager.delete(direct.bucket)
        await put(await manager.create(BucketConfig(direct.bucket)), "new", b"")
        second = await next_until(events, lambda e: isinstance(e, CaughtUp))
        assert isinstance(first[0], Restarted)
        assert isinstance(second[0], Restarted)
        assert second[0].created_ns > first[0].created_ns
        assert [e.info.name for e in second if isinstance(e, Updated)] == ["new"]


async def test_put_into_a_deleted_bucket(direct: JetStreamStore, nats_server: Server) -> None:
    """A6: a put into a bucket that is gone fails at once, not after the time-out."""
    async with connected(nats_server.url) as api:
        await JetStreamManager(api.session).delete(direct.bucket)
    begin = trio.current_time()
    with pytest.raises(BucketNotFoundError):
        await put(direct, "a", b"data")
    assert trio.current_time() - begin < 5


# -- other configurations -------------------------------------------------------------------------


async def update_stream(url: str, bucket: str, **changes: object) -> None:
    async with connected(url) as api:
        info = await api.ask("test", f"STREAM.INFO.OBJ_{bucket}")
        await api.ask("test", f"STREAM.UPDATE.OBJ_{bucket}", {**info["config"], **changes})


@pytest.mark.parametrize("bound_before", [True, False])
async def test_without_direct_get(
    direct: JetStreamStore, nats_server: Server, *, bound_before: bool
) -> None:
    """R2: a bucket that does not allow direct gets is read through its leader."""
    data = content(7 * CHUNK + 3)
    await put(direct, "a", data)
    await update_stream(nats_server.url, direct.bucket, allow_direct=False, mirror_direct=False)
    async with connected(nats_server.url) as api:
        store = direct if bound_before else await JetStreamManager(api.session).bind(direct.bucket)
        assert await get(store, "a") == data
        assert bytes(await store.get_range("a", 2 * CHUNK - 1, 2)) == data[2 * CHUNK - 1 :][:2]


async def test_atomic_batches_switched_off(direct: JetStreamStore, nats_server: Server) -> None:
    """A2: a bucket whose atomic batches were switched off commits in order."""
    await put(direct, "a", b"data")
    await update_stream(nats_server.url, direct.bucket, allow_atomic=False)
    await direct.rename("a", "b")
    assert [info.name for info in await direct.list()] == ["b"]
    assert not (await direct.status()).allow_atomic


@pytest.mark.since((2, 12))  # older mirrors stop at what was written on conditions
async def test_mirror(direct: JetStreamStore, nats_server: Server, new_bucket: NewBucket) -> None:
    """A6: a mirror under another name is read by the names of its origin, and is read-only."""
    await put(direct, "a", content(3 * CHUNK))
    mirror = new_bucket()
    # Without rollups the mirrors of servers up to 2.12 stop at the first meta.
    config = {
        "name": f"OBJ_{mirror}",
        "mirror": {"name": f"OBJ_{direct.bucket}"},
        "allow_rollup_hdrs": True,
    }
    async with connected(nats_server.url) as api:
        await api.ask("test", f"STREAM.CREATE.OBJ_{mirror}", config)
        store = await JetStreamManager(api.session).bind(mirror)
        while (await store.status()).messages < 4:
            await trio.lowlevel.checkpoint()
        assert [info.name for info in await store.list()] == ["a"]
        assert await get(store, "a") == content(3 * CHUNK)
        with pytest.raises(ReadOnlyError):
            await put(store, "b", b"")


async def test_domain(tmp_path: Path) -> None:
    """A server in a JetStream domain is used through the domain's API."""
    server = start_server(tmp_path, jetstream=False, extra_config=domain_config(tmp_path))
    try:
        async with connected(server.url, domain="hub") as api:
            store = await JetStreamManager(api.session).create(BucketConfig("b"))
            await put(store, "a", content(3 * CHUNK))
            assert await get(store, "a") == content(3 * CHUNK)
    finally:
        server.kill()


def domain_config(directory: Path) -> str:
    return f'jetstream {{ domain: hub, store_dir: "{directory}/js" }}'


async def test_server_without_jetstream(tmp_path: Path) -> None:
    """A server without JetStream is named as such, at once."""
    server = start_server(tmp_path, jetstream=False)
    try:
        async with connected(server.url) as api:
            begin = trio.current_time()
            with pytest.raises(JetStreamUnavailable, match="has no JetStream"):
                await JetStreamManager(api.session).list()
            assert trio.current_time() - begin < 5
    finally:
        server.kill()


READER = """
authorization {
  users: [
    { user: admin, password: admin }
    { user: reader, password: reader, permissions: {
        subscribe: "_INBOX.>"
        publish: ["$JS.API.STREAM.INFO.*", "$JS.API.DIRECT.GET.>", "$JS.API.STREAM.MSG.GET.*",
                  "$JS.API.CONSUMER.CREATE.OBJ_b.*.$O.b.M.>", "$JS.API.CONSUMER.DELETE.OBJ_b.*",
                  "$JS.FC.>"] } }
  ]
}
"""


async def test_permissions(tmp_path: Path) -> None:
    """E: credentials that may only read can read all, and a write fails at once with EACCES."""
    server = start_server(tmp_path, extra_config=READER)
    url = server.url.replace("//", "//reader:reader@")
    try:
        async with connected(server.url, user="admin", password="admin") as api:
            store = await JetStreamManager(api.session).create(BucketConfig("b"))
            await put(store, "Läse", content(3 * CHUNK))
        async with connected(url) as api:
            store = await JetStreamManager(api.session).bind("b")
            assert [info.name for info in await store.list()] == ["Läse"]
            assert await get(store, "Läse") == content(3 * CHUNK)
            begin = trio.current_time()
            for size in (0, 10, 600 * CHUNK):
                with pytest.raises(PermissionsError):
                    await put(store, "b", content(size))
            with pytest.raises(PermissionsError):
                await store.purge_chunks("N" * 22)
            assert trio.current_time() - begin < 5
    finally:
        server.kill()


# -- other clients --------------------------------------------------------------------------------


async def with_nats_py(url: str, bucket: str, use: Callable[[Any], Awaitable[object]]) -> object:
    """Run *use* on nats-py's own object store, in a thread with an asyncio loop."""

    async def main() -> object:
        client = await nats.connect(url)
        try:
            return await use(await client.jetstream().object_store(bucket))
        finally:
            await client.close()

    return await trio.to_thread.run_sync(lambda: asyncio.run(main()))


@pytest.mark.parametrize("size", [0, 5, 300_000])
async def test_written_here_read_by_nats_py(
    direct: JetStreamStore, nats_server: Server, size: int
) -> None:
    """What natsfs stores, nats-py gets byte by byte."""
    await direct.put("dir/ä b", Source(content(size)), ObjectMeta(description="d"))

    async def fetch(store: Any) -> object:
        result = await store.get("dir/ä b")
        return result.data, result.info.description

    assert await with_nats_py(nats_server.url, direct.bucket, fetch) == (content(size), "d")


@pytest.mark.parametrize("size", [0, 5, 300_000])
async def test_written_by_nats_py_read_here(
    direct: JetStreamStore, nats_server: Server, size: int
) -> None:
    """What nats-py stores, natsfs gets, and replaces without leaving chunks behind."""

    async def store_it(store: Any) -> object:
        meta = NatsPyMeta(name="ignored", headers={"k": "v"})
        return await store.put("dir/ä b", content(size), meta=meta)

    await with_nats_py(nats_server.url, direct.bucket, store_it)
    info = await direct.get_info("dir/ä b")
    assert await get(direct, "dir/ä b") == content(size)
    await put(direct, "dir/ä b", b"new")
    assert await messages_of(nats_server, direct.bucket, chunks_of(info)) == 0


async def test_deleted_by_nats_py(direct: JetStreamStore, nats_server: Server) -> None:
    """K9: an object that nats-py deleted is gone, and its name can be used again."""
    await put(direct, "a", b"data")
    await with_nats_py(nats_server.url, direct.bucket, lambda store: store.delete("a"))
    assert await direct.list() == []
    await put(direct, "a", b"again")
    assert await get(direct, "a") == b"again"


async def test_two_writers_interleaved(direct: JetStreamStore, nats_server: Server) -> None:
    """R5: chunks between which another writer's lie are all found, without the other's."""
    nuids = ["A" * 22, "B" * 22]
    foreign = SocketForeign(nats_server.port)
    for number in range(20):
        for nuid in nuids:
            subject = chunk_subject(direct.bucket, nuid)
            await foreign.publish(direct.bucket, subject, f"{nuid[0]}{number:09}".encode())
    foreign.close()
    template = await put(direct, "x", b"")
    for nuid in nuids:
        info = replace(
            template, name=nuid[0], subject="", nuid=nuid, size=200, chunks=20, max_chunk_size=10
        )
        info = replace(info, digest="")
        await direct.commit([MetaWrite(info)])
        expected = b"".join(f"{nuid[0]}{number:09}".encode() for number in range(20))
        assert await get(direct, nuid[0]) == expected
        assert bytes(await direct.get_range(nuid[0], 15, 10)) == expected[15:25]


async def test_many_small_puts_at_once(direct: JetStreamStore, nats_server: Server) -> None:
    """W1: puts of two connections that break into each other's chains are all stored whole."""
    async with connected(nats_server.url) as api:
        other = await JetStreamManager(api.session).bind(direct.bucket)

        async def write(store: ObjectStore, prefix: str) -> None:
            for number in range(40):
                await put(store, f"{prefix}{number}", f"{prefix}{number}".encode() * CHUNK)

        async with trio.open_nursery() as nursery:
            for prefix in "ab":
                nursery.start_soon(write, direct, prefix)
            for prefix in "cd":
                nursery.start_soon(write, other, prefix)
        listed = await direct.list()
        assert len(listed) == 160
        for info in listed:
            assert await get(other, info.name) == info.name.encode() * CHUNK
    assert (await direct.status()).messages == 160 + sum(info.chunks for info in listed)


async def test_chunks_no_larger_than_the_server_takes(tmp_path: Path) -> None:
    """A chunk size beyond the server's limit is cut to it."""
    server = start_server(tmp_path, extra_config="max_payload: 64KB")
    try:
        async with connected(server.url) as api:
            store = await JetStreamManager(api.session).create(BucketConfig("b"))
            info = await store.put("a", Source(content(200_000)), ObjectMeta())
            assert info.chunks == -(-200_000 // info.max_chunk_size)
            assert await get(store, "a") == content(200_000)
            small = await store.put("b", Source(content(10)), SMALL)
            assert small.max_chunk_size == CHUNK
    finally:
        server.kill()
