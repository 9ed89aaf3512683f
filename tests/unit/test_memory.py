"""The knobs of the in-memory store; that it is a store is what tests/contract shows."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from natsfs.errors import (
    ConnectionLost,
    NatsfsError,
    QuotaExceededError,
    ServerRefused,
    WrongRevision,
)
from natsfs.store.memory import MemoryManager, MemoryStore
from natsfs.store.model import (
    BucketConfig,
    CaughtUp,
    MetaWrite,
    ObjectInfo,
    Restarted,
    Updated,
)


class Bytes:
    """An upload's source of one piece."""

    def __init__(self, data: bytes) -> None:
        self._pieces = [data]

    def __aiter__(self) -> Bytes:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


async def a_store() -> tuple[MemoryManager, MemoryStore]:
    manager = MemoryManager()
    return manager, await manager.create(BucketConfig("b"))


async def test_fail() -> None:
    """A failure is raised by the primitive and the name that it is for, and nothing happens."""
    manager, store = await a_store()
    asked: list[tuple[str, str]] = []

    def fail(operation: str, name: str) -> NatsfsError | None:
        asked.append((operation, name))
        return ConnectionLost("cut") if (operation, name) == ("upload", "a") else None

    manager.fail = fail
    with pytest.raises(ConnectionLost):
        await store.upload("a", Bytes(b"data"))
    assert (await store.status()).messages == 0
    await store.put("c", Bytes(b"data"))
    upload = [("upload", "c"), ("place", "c")]
    assert asked == [("upload", "a"), ("status", "b"), ("get_info", "c"), *upload]


async def test_delay() -> None:
    """Every primitive takes the delay; tasks wait for it side by side."""
    manager, store = await a_store()
    await store.put("a", Bytes(b"data"))
    manager.delay = math.inf
    with trio.move_on_after(0) as scope:
        await store.get_info("a")
    assert scope.cancelled_caught
    manager.delay = 0
    await store.get_info("a")


async def test_every_primitive_is_a_checkpoint() -> None:
    """Without a delay, too, a primitive lets others run."""
    _, store = await a_store()
    with trio.testing.assert_checkpoints():
        await store.status()


async def test_quota() -> None:
    """E: the account's limit is EDQUOT, for a put and for the reservation of a bucket."""
    manager, store = await a_store()
    manager.storage_limit = 2000
    with pytest.raises(QuotaExceededError):
        await store.put("a", Bytes(bytes(3000)))
    assert (await store.status()).messages == 0
    with pytest.raises(QuotaExceededError):
        await manager.create(BucketConfig("c", max_bytes=5000))
    await store.put("a", Bytes(bytes(1000)))
    assert (await store.account()).storage_limit == 2000
    await store.delete("a")


async def test_delete_over_quota() -> None:
    """A6: an account that is full refuses a tombstone, until the chunks are freed."""
    manager, store = await a_store()
    await store.put("a", Bytes(bytes(3000)))
    manager.storage_limit = (await store.account()).storage_used
    await store.delete("a")
    assert await store.list() == []


async def test_without_atomic_batches() -> None:
    """A2: on older servers a commit stores one after the other, up to the first that fails."""
    manager, store = await a_store()
    manager.allow_atomic = False
    assert not (await store.status()).allow_atomic
    a, b = ObjectInfo("a", "b", ""), ObjectInfo("b", "b", "")
    with pytest.raises(WrongRevision):
        await store.commit([MetaWrite(a, 0), MetaWrite(b, 5)])
    assert [info.name for info in await store.list()] == ["a"]


async def test_batch_with_a_subject_twice() -> None:
    """A batch that rolls a subject up twice is refused whole, as nats-server does."""
    _, store = await a_store()
    twice = MetaWrite(ObjectInfo("a", "b", ""))
    with pytest.raises(ServerRefused):
        await store.commit([twice, twice])
    assert await store.list() == []


async def test_interrupted_watch() -> None:
    """A5: after a gap a watch starts again, with what the bucket holds then, and goes on."""
    _, store = await a_store()
    await store.put("a", Bytes(b""))
    async with store.watch() as events:
        for _ in range(3):
            await anext(events)
        store.stream.interrupt()
        await store.put("b", Bytes(b""))
        seen = [await anext(events) for _ in range(4)]
        assert isinstance(seen[0], Restarted)
        assert [event.info.name for event in seen if isinstance(event, Updated)] == ["a", "b"]
        assert seen[-1] == CaughtUp((await store.status()).last_revision)
        await store.put("c", Bytes(b""))
        event = await anext(events)
        assert isinstance(event, Updated)
        assert event.info.name == "c"
