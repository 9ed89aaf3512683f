"""Metadata, rename, delete and links: the contract that every store keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio

from natsfs.errors import (
    ExistsError,
    InvalidArgument,
    NoSpaceError,
    NotFoundError,
)
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.model import BucketConfig, Link, ObjectMeta
from tests.contract.foreign import Foreign
from tests.contract.objects import CHUNK, FULL_META, chunks_of, content, content_of, get, names, put

# -- metadata and rename --------------------------------------------------------------------------


async def test_update_meta_keeps_the_rest(store: ObjectStore) -> None:
    """M5: changing one thing keeps every other, bytes and unknown fields included."""
    old = await put(store, "a", content(2 * CHUNK), FULL_META)
    new = await store.update_meta("a", description="another")
    assert content_of(new) == content_of(replace(old, description="another", revision=new.revision))
    assert new.revision > old.revision
    newer = await store.update_meta("a", metadata={"k": "v"}, headers={})
    assert (newer.metadata, newer.headers, newer.extra) == ({"k": "v"}, {}, FULL_META.extra)
    assert await get(store, "a") == content(2 * CHUNK)
    assert content_of(await store.get_info("a")) == content_of(newer)


async def test_concurrent_updates_are_all_kept(store: ObjectStore) -> None:
    """M5: updates of different things at once do not drop each other."""
    await put(store, "a", b"data")
    async with trio.open_nursery() as nursery:

        async def describe() -> None:
            await store.update_meta("a", description="described")

        async def label() -> None:
            await store.update_meta("a", metadata={"k": "v"})

        async def head() -> None:
            await store.update_meta("a", headers={"h": ("1", "2")})

        for change in (describe, label, head):
            nursery.start_soon(change)
    info = await store.get_info("a")
    assert (info.description, info.metadata, info.headers) == (
        "described",
        {"k": "v"},
        {"h": ("1", "2")},
    )


async def test_rename(store: ObjectStore) -> None:
    """A2: a rename keeps the version and leaves a tombstone."""
    old = await put(store, "a", content(2 * CHUNK), FULL_META)
    new = await store.rename("a", "dir/b")
    assert (new.name, new.nuid, new.metadata, new.extra) == (
        "dir/b",
        old.nuid,
        old.metadata,
        old.extra,
    )
    assert await get(store, "dir/b") == content(2 * CHUNK)
    assert await names(store) == ["dir/b"]
    assert (await store.get_info("a", show_deleted=True)).deleted


async def test_rename_onto_existing(store: ObjectStore) -> None:
    """A rename does not replace an object."""
    await put(store, "a", b"1")
    await put(store, "b", b"2")
    with pytest.raises(ExistsError):
        await store.rename("a", "b")
    assert [await get(store, name) for name in "ab"] == [b"1", b"2"]


async def test_rename_onto_deleted(store: ObjectStore) -> None:
    """The name of a deleted object is free."""
    await put(store, "a", b"1")
    await put(store, "b", b"2")
    await store.delete("b")
    await store.rename("a", "b")
    assert await get(store, "b") == b"1"
    assert await names(store) == ["b"]


async def test_rename_and_update(store: ObjectStore) -> None:
    """One update may rename and change at once; renaming to the same name only changes."""
    await put(store, "a", b"1")
    await store.update_meta("a", new_name="b", description="moved")
    await store.update_meta("b", new_name="b", metadata={"k": "v"})
    info = await store.get_info("b")
    assert (info.description, info.metadata) == ("moved", {"k": "v"})
    assert await names(store) == ["b"]


# -- delete ---------------------------------------------------------------------------------------


async def test_delete(store: ObjectStore, foreign: Foreign) -> None:
    """K9: a delete leaves a tombstone of the version and frees its chunks."""
    old = await put(store, "a", content(2 * CHUNK))
    await store.delete("a")
    with pytest.raises(NotFoundError):
        await store.get_info("a")
    grave = await store.get_info("a", show_deleted=True)
    assert (grave.deleted, grave.nuid, grave.size, grave.digest) == (True, old.nuid, 0, "")
    assert await names(store) == []
    assert await names(store, show_deleted=True) == ["a"]
    assert await foreign.messages(store.bucket, chunks_of(old)) == []
    with pytest.raises(NotFoundError):
        await store.delete("a")
    await put(store, "a", b"again")
    assert await get(store, "a") == b"again"


async def test_delete_in_a_full_bucket(
    manager: ObjectStoreManager, new_bucket: Callable[[], str]
) -> None:
    """A6: a bucket too full for a tombstone still deletes; a refused put leaves nothing."""
    store = await manager.create(BucketConfig(new_bucket(), max_bytes=100_000))
    await put(store, "large", content(20 * CHUNK))
    for size in (10 * CHUNK, CHUNK, 0):
        await fill(store, size)
    messages = (await store.status()).messages
    with pytest.raises(NoSpaceError):
        await put(store, "more", content(10 * CHUNK))
    assert (await store.status()).messages == messages
    await store.delete("large")
    with pytest.raises(NotFoundError):
        await store.get_info("large")
    await put(store, "small", b"fits again")


async def fill(store: ObjectStore, size: int) -> None:
    """Put objects of *size* bytes until the bucket refuses one."""
    for number in range(2000):
        try:
            await put(store, f"{size}-{number}", content(size))
        except NoSpaceError:
            return
    pytest.fail("the bucket never fills")


async def test_purge_chunks(store: ObjectStore) -> None:
    """Purging tells how many chunks there were, and takes nothing that is not plainly a nuid."""
    info = await put(store, "a", content(2 * CHUNK + 1))
    for nuid in (">", "*", "", "a.b", "a b"):
        with pytest.raises(InvalidArgument):
            await store.purge_chunks(nuid)
    assert await store.purge_chunks("unknown") == 0
    assert await get(store, "a") == content(2 * CHUNK + 1)
    assert await store.purge_chunks(info.nuid) == 3


# -- links ----------------------------------------------------------------------------------------


async def test_link(store: ObjectStore) -> None:
    """K2: a link has no bytes of its own and is read through."""
    target = await put(store, "target", content(2 * CHUNK))
    link = await store.add_link("link", target, ObjectMeta(description="to it"))
    assert link.link == Link(store.bucket, "target")
    stored = await store.get_info("link")
    assert content_of(stored) == content_of(link)
    assert (stored.size, stored.chunks, stored.digest, stored.deleted) == (0, 0, "", False)
    assert stored.nuid
    assert await get(store, "link") == content(2 * CHUNK)
    assert bytes(await store.get_range("link", CHUNK - 1, 2)) == content(2 * CHUNK)[CHUNK - 1 :][:2]
    assert await store.resolve(stored) == await store.get_info("target")


async def test_link_follows_its_target(store: ObjectStore) -> None:
    """K2: a link names an object, not a version; without it, it dangles."""
    await store.add_link("link", await put(store, "target", b"old"))
    await put(store, "target", b"new")
    assert await get(store, "link") == b"new"
    await store.delete("target")
    with pytest.raises(NotFoundError):
        await get(store, "link")


async def test_link_refusals(store: ObjectStore) -> None:
    """A link goes neither to a deleted object, nor to a link, nor over an object."""
    target = await put(store, "target", b"data")
    link = await store.add_link("link", target)
    with pytest.raises(InvalidArgument):
        await store.add_link("second", link)
    with pytest.raises(ExistsError):
        await store.add_link("target", await put(store, "other", b""))
    with pytest.raises(ExistsError):
        await store.add_bucket_link("target", "bucket")
    await store.delete("target")
    grave = await store.get_info("target", show_deleted=True)
    with pytest.raises(NotFoundError):
        await store.add_link("third", grave)
    assert await names(store) == ["link", "other"]


async def test_link_replaces_link_and_tombstone(store: ObjectStore) -> None:
    """A link may take the name of another link or of a deleted object."""
    first, second = await put(store, "1", b"1"), await put(store, "2", b"2")
    await store.add_link("link", first)
    await store.add_link("link", second)
    assert await get(store, "link") == b"2"
    await store.delete("1")
    await store.add_link("1", second)
    assert await get(store, "1") == b"2"


async def test_links_out_of_the_bucket(store: ObjectStore) -> None:
    """K3: links to buckets and into other buckets are stored, and not followed."""
    target = replace(await put(store, "target", b"data"), bucket="elsewhere")
    assert (await store.add_link("far", target)).link == Link("elsewhere", "target")
    assert (await store.add_bucket_link("bucket", "elsewhere")).link == Link("elsewhere")
    for name in ("far", "bucket"):
        with pytest.raises(InvalidArgument):
            await get(store, name)
    await store.delete("bucket")
    assert await names(store) == ["target", "far"]


async def test_link_to_a_link(store: ObjectStore) -> None:
    """A link to a link, which only a race can make, is not followed."""
    target = await put(store, "target", b"data")
    await store.add_link("link", target)
    await store.delete("target")
    await store.add_link("target", await put(store, "other", b"other"))
    with pytest.raises(InvalidArgument):
        await get(store, "link")
