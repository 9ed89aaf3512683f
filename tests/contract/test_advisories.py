"""What stores tell besides the watch, and what they count."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from natsfs.store.base import ObjectStore, tombstone
from natsfs.store.model import Advisory, MetaWrite, Reconfigured, Removed
from tests.contract.foreign import Foreign
from tests.contract.objects import Source

#: Seconds until the server must have told.
DEADLINE = 10.0


async def told(advisories: AsyncIterator[Advisory], wanted: Advisory) -> None:
    """Wait for *wanted*; others may come before it."""
    with trio.fail_after(DEADLINE):
        async for advisory in advisories:
            if advisory == wanted:
                return


async def test_removals_are_told(store: ObjectStore, foreign: Foreign) -> None:
    """A6: the purge of a meta and the deletion of its message are told; that of chunks is not."""
    one, two = [await store.upload(name, Source(b"data")) for name in "ab"]
    async with store.advisories() as advisories:
        await store.purge_chunks(one.nuid)
        await foreign.purge(store.bucket, one.subject)
        await told(advisories, Removed(one.subject))
        await foreign.remove(store.bucket, two.revision)
        await told(advisories, Removed(revision=two.revision))


async def test_settings_are_told(store: ObjectStore) -> None:
    """A6: a seal is told."""
    async with store.advisories() as advisories:
        await store.seal()
        await told(advisories, Reconfigured())


async def test_metas_are_counted(store: ObjectStore, foreign: Foreign) -> None:
    """A6: metas and tombstones are counted, chunks are not, and what is purged is not any more."""
    assert await store.count_metas() == 0
    infos = [await store.upload(name, Source(b"data")) for name in "abc"]
    await store.commit([MetaWrite(tombstone(infos[0]), infos[0].revision)])
    assert await store.count_metas() == 3
    await foreign.purge(store.bucket, infos[1].subject)
    assert await store.count_metas() == 2


async def test_first_revision(store: ObjectStore, foreign: Foreign) -> None:
    """A6: the status says before which revision nothing is left."""
    infos = [await store.upload(name, Source(b"data")) for name in "abc"]
    for info in infos[:2]:
        await store.purge_chunks(info.nuid)
        await foreign.purge(store.bucket, info.subject)
    status = await store.status()
    assert infos[1].revision < status.first_revision <= infos[2].revision


@pytest.mark.since((2, 10))
async def test_clock(store: ObjectStore) -> None:
    """A6: the status says what the server's clock is."""
    info = await store.upload("a", Source(b"data"))
    assert (await store.status()).asked_ns >= info.time_ns


@pytest.mark.since((2, 11))
async def test_lives_of_messages(store: ObjectStore) -> None:
    """A6: the life that a meta was written with is told by every way of reading it."""
    info = await store.upload("f", Source(b"data"))
    assert info.ttl == 0
    (limited,) = await store.commit([MetaWrite(info, info.revision, ttl=100)])
    assert limited.ttl == 100
    assert (await store.get_info("f")).ttl == 100
    assert [found.ttl for found in await store.list()] == [100]
