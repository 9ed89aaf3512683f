"""Buckets and their manager: the contract that every store keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from natsfs.errors import (
    BucketNotFoundError,
    ExistsError,
    InvalidArgument,
    NatsfsError,
    ReadOnlyError,
)
from natsfs.store.base import ObjectStore, ObjectStoreManager, tombstone
from natsfs.store.model import (
    BucketConfig,
    BucketCreated,
    BucketDeleted,
    BucketEvent,
    BucketsListed,
    MetaWrite,
    ObjectInfo,
)
from tests.contract.objects import CHUNK, content, get, names, put, upload

BAD_NAMES = ["", "a b", "a.b", "a/b", "*", ">", "é", "a\n", "x" * 252]

NewBucket = Callable[[], str]


@pytest.mark.since((2, 10))
async def test_create(manager: ObjectStoreManager, new_bucket: NewBucket) -> None:
    """Every setting of a bucket is in its status."""
    config = BucketConfig(
        new_bucket(),
        description="what it is for",
        ttl=3600.5,
        max_bytes=10_000_000,
        storage="memory",
        compression=True,
        metadata={"owner": "tests", "ключ": "значение"},
    )
    store = await manager.create(config)
    status = await store.status()
    assert store.bucket == config.bucket
    assert (status.bucket, status.stream) == (config.bucket, f"OBJ_{config.bucket}")
    assert (status.description, status.ttl) == (config.description, config.ttl)
    assert (status.max_bytes, status.storage, status.replicas) == (10_000_000, "memory", 1)
    assert (status.sealed, status.compression, status.mirror) == (False, True, None)
    assert status.metadata == config.metadata
    assert (status.size, status.messages, status.last_revision) == (0, 0, 0)
    assert status.allow_direct


async def test_defaults(store: ObjectStore) -> None:
    """A bucket without settings has no limits and lies on disk."""
    status = await store.status()
    assert (status.ttl, status.max_bytes, status.storage) == (None, -1, "file")
    assert (status.description, status.compression, status.metadata) == ("", False, {})


async def test_create_twice(manager: ObjectStoreManager, new_bucket: NewBucket) -> None:
    """Creating what exists is refused, with the same settings and with others."""
    config = BucketConfig(new_bucket())
    await manager.create(config)
    for again in (config, replace(config, description="other"), replace(config, storage="memory")):
        with pytest.raises(ExistsError):
            await manager.create(again)


async def test_one_create_of_many(manager: ObjectStoreManager, new_bucket: NewBucket) -> None:
    """A3: of many creations at once, exactly one succeeds."""
    config, won = BucketConfig(new_bucket()), []

    async def compete() -> None:
        try:
            won.append(await manager.create(config))
        except ExistsError:
            return

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(compete)
    assert len(won) == 1


@pytest.mark.parametrize("bucket", BAD_NAMES)
async def test_bad_names(manager: ObjectStoreManager, bucket: str) -> None:
    """B2: names that no client takes are refused."""
    with pytest.raises(InvalidArgument):
        await manager.create(BucketConfig(bucket))
    with pytest.raises(InvalidArgument):
        await manager.bind(bucket)


@pytest.mark.parametrize(
    "change",
    [{"storage": "tape"}, {"replicas": 0}, {"replicas": 7}, {"max_bytes": -7}, {"ttl": -1.0}],
    ids=str,
)
async def test_bad_settings(
    manager: ObjectStoreManager, new_bucket: NewBucket, change: dict[str, object]
) -> None:
    """Settings out of their bounds are refused, and no bucket is left."""
    bucket = new_bucket()
    with pytest.raises(InvalidArgument):
        await manager.create(replace(BucketConfig(bucket), **change))  # type: ignore[arg-type]
    with pytest.raises(BucketNotFoundError):
        await manager.bind(bucket)


async def test_bind(manager: ObjectStoreManager, store: ObjectStore) -> None:
    """Two stores of one bucket see the same objects."""
    await put(store, "a", b"data")
    other = await manager.bind(store.bucket)
    assert other.bucket == store.bucket
    assert await get(other, "a") == b"data"


async def test_missing_bucket(manager: ObjectStoreManager, new_bucket: NewBucket) -> None:
    """What does not exist can be neither bound nor deleted."""
    with pytest.raises(BucketNotFoundError):
        await manager.bind(new_bucket())
    with pytest.raises(BucketNotFoundError):
        await manager.delete(new_bucket())


async def test_delete_bucket(manager: ObjectStoreManager, store: ObjectStore) -> None:
    """A6: after its deletion every call on a bucket says that it is gone."""
    info = await put(store, "a", content(3 * CHUNK))
    await manager.delete(store.bucket)
    for call in [*reads(store, info), *writes(store, info)]:
        with pytest.raises(BucketNotFoundError):
            await call()
    with pytest.raises(BucketNotFoundError):
        await manager.bind(store.bucket)


async def test_recreated_bucket(manager: ObjectStoreManager, store: ObjectStore) -> None:
    """A6: a bucket made again under the same name is empty and tells itself from the old one."""
    before = await store.status()
    await put(store, "a", b"data")
    await manager.delete(store.bucket)
    again = await manager.create(BucketConfig(store.bucket))
    assert await names(again) == []
    assert (await again.status()).created_ns != before.created_ns


async def test_list_buckets(manager: ObjectStoreManager, new_bucket: NewBucket) -> None:
    """B1: the buckets are listed by name, as their status says."""
    stores = [await manager.create(BucketConfig(new_bucket())) for _ in range(3)]
    await put(stores[0], "a", b"data")
    told: list[tuple[int, int]] = []
    listed = await manager.list(lambda done, total: told.append((done, total)))
    assert told[0] == (0, 0)
    assert told[-1][0] == told[-1][1] >= len(listed)
    assert [status.bucket for status in listed] == sorted(status.bucket for status in listed)
    for store in stores:
        assert await store.status() in listed
    await manager.delete(stores[1].bucket)
    assert stores[1].bucket not in [status.bucket for status in await manager.list()]


async def test_status_counts(store: ObjectStore) -> None:
    """M8: the status shows what is stored now."""
    await put(store, "a", content(3 * CHUNK))
    first = await store.status()
    assert first.messages == 4
    assert first.last_revision == (await store.get_info("a")).revision
    assert first.size > 3 * CHUNK
    await store.delete("a")
    second = await store.status()
    assert (second.messages, second.last_revision) == (1, first.last_revision + 1)
    assert second.size < first.size


async def test_account(store: ObjectStore) -> None:
    """M8: the account counts what its buckets hold."""
    await put(store, "a", content(10 * CHUNK))
    limits = await store.account()
    assert limits.storage_used >= 10 * CHUNK
    assert limits.storage_limit == -1 or limits.storage_limit >= limits.storage_used


async def test_bucket_ttl(manager: ObjectStoreManager, new_bucket: NewBucket) -> None:
    """A6: objects of a bucket with a time to live are gone after it."""
    store = await manager.create(BucketConfig(new_bucket(), ttl=1.0))
    await put(store, "a", b"data")
    with trio.fail_after(20):
        while (await store.status()).messages:
            await trio.lowlevel.checkpoint()
    assert await names(store, show_deleted=True) == []


# -- sealing --------------------------------------------------------------------------------------


async def test_seal(store: ObjectStore) -> None:
    """A6: a sealed bucket is read as before and refuses every change."""
    info = await put(store, "a", content(3 * CHUNK))
    await store.seal()
    await store.seal()
    assert (await store.status()).sealed
    assert await get(store, "a") == content(3 * CHUNK)
    assert await names(store) == ["a"]
    for call in reads(store, info):
        await call()
    for call in writes(store, info):
        with pytest.raises(ReadOnlyError):
            await call()
    assert await get(store, "a") == content(3 * CHUNK)


Call = Callable[[], Awaitable[object]]


def reads(store: ObjectStore, info: ObjectInfo) -> list[Call]:
    """Every call that only looks."""
    return [
        lambda: store.get_info("a"),
        lambda: store.get_info_at(info.subject),
        lambda: store.read(info, 0, 10),
        lambda: store.get_range("a", 0, 10),
        store.status,
        store.list,
    ]


def writes(store: ObjectStore, info: ObjectInfo) -> list[Call]:
    """Every call that changes something."""
    return [
        lambda: put(store, "b", b"data"),
        lambda: put(store, "b", b""),
        lambda: upload(store, "a", content(2 * CHUNK), expected=info.revision),
        lambda: store.commit([MetaWrite(tombstone(info), info.revision)]),
        lambda: store.purge_chunks(info.nuid),
        lambda: store.update_meta("a", description="x"),
        lambda: store.rename("a", "b"),
        lambda: store.delete("a"),
        lambda: store.add_link("b", info),
        lambda: store.add_bucket_link("b", "elsewhere"),
    ]


async def test_errors_are_natsfs_errors(store: ObjectStore) -> None:
    """Whatever is asked for, a store raises errors of natsfs and no others."""
    alien = ObjectInfo("x", store.bucket, f"$O.{store.bucket}.M.eA==", nuid="unknown", size=5)
    with pytest.raises(NatsfsError):
        await store.read(alien, 0, 5)
    assert bytes(await store.read(replace(alien, size=0), 0, 5)) == b""


# -- watching which there are ---------------------------------------------------------------------


async def told(
    events: AsyncIterator[BucketEvent], wanted: Callable[[BucketEvent], bool]
) -> BucketEvent:
    """The next event that is *wanted*; other tests share the server."""
    while True:
        event = await anext(events)
        if wanted(event):
            return event


def about(bucket: str) -> Callable[[BucketEvent], bool]:
    """Whether an event is about *bucket*."""

    def is_about(event: BucketEvent) -> bool:
        match event:
            case BucketCreated(status):
                return status.bucket == bucket
            case BucketDeleted(name):
                return name == bucket
        return False

    return is_about


async def test_watch_begins_with_a_list(manager: ObjectStoreManager, store: ObjectStore) -> None:
    """B1: a watch of the buckets begins with those that there are."""
    seen = []
    counted: list[tuple[int, int]] = []
    async with manager.watch(lambda done, total: counted.append((done, total))) as events:
        async for event in events:
            if isinstance(event, BucketsListed):
                break
            seen.append(event)
    assert BucketCreated(await store.status()) in seen
    assert all(isinstance(event, BucketCreated) for event in seen)
    assert counted[-1][0] == counted[-1][1] >= len(seen)


async def test_watch_buckets(manager: ObjectStoreManager, new_bucket: NewBucket) -> None:
    """B1: creation and deletion are told as they happen."""
    bucket = new_bucket()
    async with manager.watch() as events:
        await told(events, lambda event: isinstance(event, BucketsListed))
        for _ in range(2):
            status = await (await manager.create(BucketConfig(bucket))).status()
            assert await told(events, about(bucket)) == BucketCreated(status)
            await manager.delete(bucket)
            assert await told(events, about(bucket)) == BucketDeleted(bucket, status.created_ns)


async def test_watch_recreation(manager: ObjectStoreManager, store: ObjectStore) -> None:
    """B1: a bucket that was deleted and made again is told as another one."""
    before = await store.status()
    async with manager.watch() as events:
        await told(events, lambda event: isinstance(event, BucketsListed))
        await manager.delete(store.bucket)
        after = await (await manager.create(BucketConfig(store.bucket))).status()
        gone = await told(events, about(store.bucket))
        assert gone == BucketDeleted(store.bucket, before.created_ns)
        assert await told(events, about(store.bucket)) == BucketCreated(after)


async def test_opened(manager: ObjectStoreManager, store: ObjectStore) -> None:
    """B1: a bucket is opened by its description; one that is gone says so when it is used."""
    status = await store.status()
    await put(store, "a", b"data")
    opened = manager.opened(status)
    assert opened.bucket == store.bucket
    assert await get(opened, "a") == b"data"
    await manager.delete(store.bucket)
    for gone in (opened, manager.opened(status)):
        with pytest.raises(BucketNotFoundError):
            await gone.get_info("a")


async def test_account_of_all(manager: ObjectStoreManager, store: ObjectStore) -> None:
    """M8: the account can be asked without a bucket."""
    await put(store, "a", content(10 * CHUNK))
    assert (await manager.account()).storage_used >= 10 * CHUNK
