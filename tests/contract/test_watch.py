"""Watches: the contract that every store keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import trio

from natsfs.errors import BucketNotFoundError
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.model import (
    BucketConfig,
    CaughtUp,
    Malformed,
    MetaWrite,
    Restarted,
    Resumed,
    Survey,
    Updated,
    WatchEvent,
)
from tests.contract.foreign import Foreign
from tests.contract.objects import content_of, names, put

#: Seconds within which a watch shows a change on loopback, with much to spare.
SOON = 10.0


async def next_of(events: AsyncIterator[WatchEvent]) -> WatchEvent:
    with trio.fail_after(SOON):
        return await anext(events)


async def until_caught_up(events: AsyncIterator[WatchEvent]) -> list[WatchEvent]:
    """The events up to and with `CaughtUp`."""
    seen: list[WatchEvent] = []
    while not (seen and isinstance(seen[-1], CaughtUp)):
        seen.append(await next_of(events))
    return seen


async def next_name(events: AsyncIterator[WatchEvent]) -> str:
    event = await next_of(events)
    assert isinstance(event, Updated)
    return event.info.name


async def test_watch_of_an_empty_bucket(store: ObjectStore) -> None:
    """A watch says where it starts and that it has caught up, even with nothing to show."""
    async with store.watch() as events:
        seen = await until_caught_up(events)
    assert seen == [Restarted((await store.status()).created_ns), CaughtUp(0)]


async def test_initial_events(store: ObjectStore) -> None:
    """A1: a watch begins with every object once, tombstones included, oldest change first."""
    await put(store, "a", b"1")
    await put(store, "b", b"2")
    await put(store, "c", b"3")
    await put(store, "a", b"4")
    await store.delete("b")
    async with store.watch() as events:
        seen = await until_caught_up(events)
    expected = [await store.get_info(name, show_deleted=True) for name in "cab"]
    assert seen[0] == Restarted((await store.status()).created_ns)
    assert seen[1:-1] == [Updated(info) for info in expected]
    last = seen[-1]
    assert isinstance(last, CaughtUp)
    assert expected[-1].revision <= last.revision <= (await store.status()).last_revision


async def test_live_events(store: ObjectStore) -> None:
    """A1: every change is shown as it comes: put, metadata, rename, link, delete."""
    async with store.watch() as events:
        await until_caught_up(events)
        stored = await put(store, "a", b"data")
        event = await next_of(events)
        assert isinstance(event, Updated)
        assert content_of(event.info) == content_of(stored)
        assert event.info == await store.get_info("a")
        await store.update_meta("a", description="described")
        assert await next_name(events) == "a"
        await store.rename("a", "b")
        assert [await next_name(events), await next_name(events)] == ["b", "a"]
        await store.add_link("link", await store.get_info("b"))
        assert await next_name(events) == "link"
        await store.delete("link")
        event = await next_of(events)
        assert isinstance(event, Updated)
        assert (event.info.name, event.info.deleted) == ("link", True)


async def test_changes_between_snapshot_and_live(store: ObjectStore) -> None:
    """A1: a change made while the watch still shows the start is not lost."""
    for number in range(20):
        await put(store, f"old-{number}", b"")
    async with store.watch() as events:
        assert isinstance(await next_of(events), Restarted)
        await put(store, "new", b"data")
        while await next_of(events) != Updated(await store.get_info("new")):
            pass


async def test_several_watches(store: ObjectStore) -> None:
    """Watches do not take each other's events, and one that ends leaves the others alone."""
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(store.watch()) for _ in range(3)]
        async with store.watch() as ending:
            await until_caught_up(ending)
        for events in watches:
            await until_caught_up(events)
        await put(store, "a", b"data")
        assert [await next_name(events) for events in watches] == ["a", "a", "a"]


async def test_listing_during_a_watch(store: ObjectStore) -> None:
    """A listing, which is a watch cut short, does not disturb another."""
    await put(store, "a", b"")
    async with store.watch() as events:
        await until_caught_up(events)
        assert await names(store) == ["a"]
        await put(store, "b", b"")
        assert await next_name(events) == "b"


async def test_malformed_events(store: ObjectStore, foreign: Foreign) -> None:
    """A meta that nobody understands is an event of its own, and the watch goes on."""
    bad = f"$O.{store.bucket}.M.YmFk"
    first = await foreign.publish(store.bucket, bad, b"not JSON")
    await put(store, "good", b"")
    async with store.watch() as events:
        seen = await until_caught_up(events)
        malformed = [event for event in seen if isinstance(event, Malformed)]
        assert [(event.subject, event.revision) for event in malformed] == [(bad, first)]
        assert malformed[0].reason
        second = await foreign.publish(store.bucket, bad, b"[]", rollup=True)
        event = await next_of(events)
        assert isinstance(event, Malformed)
        assert (event.subject, event.revision) == (bad, second)
        await put(store, "better", b"")
        assert await next_name(events) == "better"


async def test_last_meta_is_malformed(store: ObjectStore, foreign: Foreign) -> None:
    """The start of a watch ends, also where the last meta of the bucket is undecodable."""
    await put(store, "good", b"")
    await foreign.publish(store.bucket, f"$O.{store.bucket}.M.YmFk", b"")
    async with store.watch() as events:
        seen = await until_caught_up(events)
    assert [type(event) for event in seen] == [Restarted, Updated, Malformed, CaughtUp]


@pytest.mark.expects_log("left out of the listing")
async def test_list_leaves_malformed_out(store: ObjectStore, foreign: Foreign) -> None:
    """A listing shows what can be understood and logs the rest."""
    await put(store, "good", b"")
    await foreign.publish(store.bucket, f"$O.{store.bucket}.M.YmFk", b"\xff\x00")
    assert await names(store) == ["good"]


async def test_purges_are_not_shown(store: ObjectStore, foreign: Foreign) -> None:
    """No watch shows a purge: what a foreign rename did to the old name is to be asked."""
    info = await put(store, "old", b"data")
    async with store.watch() as events:
        await until_caught_up(events)
        await store.commit([MetaWrite(replace(info, name="new", subject=""), 0)])
        await foreign.purge(store.bucket, info.subject)
        await put(store, "other", b"")
        assert [await next_name(events), await next_name(events)] == ["new", "other"]
    assert await names(store) == ["new", "other"]


async def test_watch_of_a_deleted_bucket(
    manager: ObjectStoreManager, new_bucket: Callable[[], str]
) -> None:
    """A6: a watch ends with an error when its bucket is deleted."""
    store = await manager.create(BucketConfig(new_bucket()))
    await put(store, "a", b"")
    async with store.watch() as events:
        await until_caught_up(events)
        await manager.delete(store.bucket)
        with trio.fail_after(30), pytest.raises(BucketNotFoundError):
            await anext(events)


async def test_list_order(store: ObjectStore) -> None:
    """A listing is in the order of the last change."""
    for name in ("b", "a", "c", "b"):
        await put(store, name, b"")
    await store.delete("a")
    assert await names(store) == ["c", "b"]
    assert await names(store, show_deleted=True) == ["c", "b", "a"]


async def test_list_many(store: ObjectStore) -> None:
    """A listing is complete beyond every batch and window."""
    infos = [await put(store, f"name-{number:05}", b"") for number in range(1500)]
    listed = await store.list()
    assert list(map(content_of, listed)) == list(map(content_of, infos))


async def test_resumed(store: ObjectStore) -> None:
    """A1: a watch that goes on after a revision shows what is newer, and then every change."""
    await put(store, "a", b"1")
    await put(store, "b", b"2")
    known = await put(store, "c", b"3")
    await put(store, "a", b"4")
    await store.delete("b")
    created_ns = (await store.status()).created_ns
    async with store.watch(known.revision) as events:
        seen = await until_caught_up(events)
        assert seen[0] == Resumed(created_ns)
        expected = [await store.get_info(name, show_deleted=True) for name in "ab"]
        assert seen[1:-1] == [Updated(info) for info in expected]
        await put(store, "d", b"5")
        assert await next_name(events) == "d"
    async with store.watch((await store.status()).last_revision) as events:
        assert [type(event) for event in await until_caught_up(events)] == [Resumed, CaughtUp]


@pytest.mark.since((2, 11))
async def test_what_took_the_place_of_all_before(store: ObjectStore, foreign: Foreign) -> None:
    """A6: a watch tells metas beside which others may be left on their subject from those that are
    alone there, and a survey counts all of them."""
    await put(store, "a", b"1")
    info = await store.get_info("a")
    (_, payload), *_ = await foreign.messages(store.bucket, info.subject)
    second = await foreign.publish(store.bucket, info.subject, payload)
    async with store.watch() as events:
        _, beside, _ = await until_caught_up(events)
        assert isinstance(beside, Updated)
        assert (beside.revision, beside.sole) == (second, False)
        await put(store, "b", b"2")
        event = await next_of(events)
        assert isinstance(event, Updated)
        assert event.sole
    assert await store.survey() == Survey(3, info.revision, info.subject, info.time_ns)
    late = await store.survey(second)
    assert late is not None
    assert (late.count, late.revision, late.subject) == (2, second, info.subject)
    assert await store.survey(event.revision + 1) == Survey(0)
