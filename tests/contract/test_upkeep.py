"""Garbage and damage in a bucket, found and dealt with on every store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from natsfs.filesystem.attributes import CLAIM_KEY
from natsfs.store.base import ObjectStore
from natsfs.store.model import Link, MetaWrite, ObjectInfo
from natsfs.store.wire import chunk_subject, meta_subject, new_nuid
from natsfs.upkeep.checking import Checker, Verdict
from natsfs.upkeep.garbage import Ages, Collector, Garbage
from tests.contract.foreign import Foreign
from tests.contract.objects import CHUNK, chunks_of, content, get, names, put

#: Everything is old enough.
NOW = Ages(chunks=0, tombstones=0, claims=0)


def untold(done: int, total: int) -> None:
    """Nobody looks."""
    assert 0 <= done <= total


async def collect(store: ObjectStore, ages: Ages = NOW, *, remove: bool = True) -> Garbage:
    return await Collector(store, ages).run(remove=remove)


async def check(
    store: ObjectStore,
    covers: Callable[[str], bool] = lambda name: True,
    *,
    data: bool = True,
    repair: bool = False,
) -> Verdict:
    return await Checker(store, covers, data=data).run(repair=repair)


async def orphan(store: ObjectStore, foreign: Foreign, *chunks: bytes) -> str:
    nuid = new_nuid()
    for chunk in chunks:
        await foreign.publish(store.bucket, chunk_subject(store.bucket, nuid), chunk)
    return nuid


# -- garbage --------------------------------------------------------------------------------------


async def test_chunks_without_an_object(store: ObjectStore, foreign: Foreign) -> None:
    """W6: what a dead writer left is found, and freed only when that is asked for; objects keep
    their bytes."""
    await put(store, "a", content(3 * CHUNK))
    left = {await orphan(store, foreign, b"x" * 10, b"x" * 10, b"y") for _ in range(20)}
    for remove in (False, True):
        found = await collect(store, remove=remove)
        assert {chunks.nuid for chunks in found.chunks} == left
        assert found.size == 20 * 21
    assert (await collect(store)).chunks == []
    assert await get(store, "a") == content(3 * CHUNK)


async def test_young_chunks(store: ObjectStore, foreign: Foreign) -> None:
    """W6: bytes that somebody may be writing just now are left alone."""
    nuid = await orphan(store, foreign, b"x")
    found = await collect(store, Ages())
    assert (found.chunks, found.young) == ([], 1)
    assert nuid in await store.count_chunks()


async def test_just_deleted(store: ObjectStore, foreign: Foreign) -> None:
    """W6: the bytes of an object deleted a moment ago stay for those who still read them, however
    old they are themselves."""
    info = await put(store, "a", content(CHUNK))
    await store.commit([MetaWrite(replace(info, deleted=True, chunks=0, size=0), info.revision)])
    found = await collect(store, Ages(chunks=3600, tombstones=0))
    assert (found.chunks, found.young) == ([], 1)
    assert info.nuid in await store.count_chunks()


async def test_tombstones(store: ObjectStore) -> None:
    """K9: records of deleted objects go when they are old, and no others."""
    for name in ("a", "b"):
        await put(store, name, b"x")
    await store.delete("a")
    assert [i.name for i in (await collect(store, Ages())).tombstones] == []
    assert [i.name for i in (await collect(store)).tombstones] == ["a"]
    assert [info.name for info in await store.list(show_deleted=True)] == ["b"]


async def test_reservations(store: ObjectStore) -> None:
    """A3: the reservation of a dead mount goes, that of a living one stays."""
    subject = meta_subject(store.bucket, "lock")
    claim = ObjectInfo("lock", store.bucket, subject, deleted=True, metadata={CLAIM_KEY: "a mount"})
    await store.commit([MetaWrite(claim, 0)])
    young = await collect(store, Ages(chunks=0, tombstones=0))
    assert (young.claims, young.tombstones) == ([], [])
    assert [info.name for info in (await collect(store)).claims] == ["lock"]
    assert await store.list(show_deleted=True) == []


async def test_unreadable_metas_protect_chunks(store: ObjectStore, foreign: Foreign) -> None:
    """W6: a meta that cannot be understood may own any chunks, so none are freed."""
    nuid = await orphan(store, foreign, b"x")
    subject = meta_subject(store.bucket, "broken")
    await foreign.publish(store.bucket, subject, b"{", rollup=True)
    found = await collect(store)
    assert (found.chunks, found.unowned, found.unreadable) == ([], 1, [subject])
    assert nuid in await store.count_chunks()


# -- damage ---------------------------------------------------------------------------------------


async def test_nothing_wrong(store: ObjectStore) -> None:
    """R3: a sound bucket is read once, and is found to be sound."""
    info = await put(store, "a", content(3 * CHUNK + 1))
    await put(store, "empty", b"")
    await store.add_link("link", info)
    verdict = await check(store)
    assert (verdict.objects, verdict.size, verdict.problems) == (3, 3 * CHUNK + 1, [])


@pytest.mark.parametrize("data", [True, False])
async def test_missing_chunk(store: ObjectStore, foreign: Foreign, data: bool) -> None:
    """R1: an object that has lost a chunk is named, even without reading; another is not."""
    broken = await put(store, "broken", content(3 * CHUNK))
    await put(store, "sound", content(3 * CHUNK))
    sequences = [seq for seq, _ in await foreign.messages(store.bucket, chunks_of(broken))]
    await foreign.remove(store.bucket, sequences[1])
    verdict = await check(store, data=data)
    assert [(p.kind, p.name) for p in verdict.problems] == [("chunks", "broken")]


async def test_wrong_digest(store: ObjectStore, foreign: Foreign) -> None:
    """R3: bytes that are not those of the digest are found by reading them."""
    info = await put(store, "a", content(CHUNK))
    await foreign.purge(store.bucket, chunks_of(info))
    await foreign.publish(store.bucket, chunks_of(info), bytes(CHUNK))
    assert (await check(store, data=False)).problems == []
    assert [p.kind for p in (await check(store)).problems] == ["digest"]


async def test_repair_moves_aside(store: ObjectStore, foreign: Foreign) -> None:
    """R3: repair deletes nothing: what is damaged gets another name, what is sound keeps its."""
    for name in ("d/broken", "sound"):
        await put(store, name, content(CHUNK))
    broken = await store.get_info("d/broken")
    await foreign.purge(store.bucket, chunks_of(broken))
    verdict = await check(store, repair=True)
    assert [p.moved_to for p in verdict.problems] == ["lost+found/d/broken"]
    assert sorted(await names(store)) == ["lost+found/d/broken", "sound"]
    assert (await store.get_info("lost+found/d/broken")).nuid == broken.nuid
    # Again, with that name taken by an object of its own.
    await put(store, "d/broken", content(CHUNK))
    again = await store.get_info("d/broken")
    await foreign.purge(store.bucket, chunks_of(again))
    verdict = await check(store, lambda name: name == "d/broken", repair=True)
    assert [p.moved_to for p in verdict.problems] == [f"lost+found/{again.nuid}"]


async def test_unreadable_meta(store: ObjectStore, foreign: Foreign) -> None:
    """E: a meta that cannot be understood is named with the reason."""
    subject = meta_subject(store.bucket, "broken")
    await foreign.publish(store.bucket, subject, b"{", rollup=True)
    verdict = await check(store)
    assert [(p.kind, p.name) for p in verdict.problems] == [("unreadable", subject)]
    assert verdict.problems[0].text


async def test_shared_version(store: ObjectStore) -> None:
    """A2: an interrupted rename leaves two names of one version; that is said."""
    info = await put(store, "a", content(CHUNK))
    await store.commit([MetaWrite(replace(info, name="b", subject=""), 0)])
    assert [(p.kind, p.name) for p in (await check(store)).problems] == [("shared", "b")]


async def test_hard_link_to_nothing(store: ObjectStore) -> None:
    """K7: a hard link whose object is gone is damage; a symbolic link to nothing is none."""
    for name, metadata in (("hard", {"hardlink": "true"}), ("soft", {})):
        info = ObjectInfo(
            name, store.bucket, "", link=Link(store.bucket, "gone"), metadata=metadata
        )
        await store.commit([MetaWrite(info, 0)])
    assert [(p.kind, p.name) for p in (await check(store)).problems] == [("link", "hard")]


async def test_below_a_prefix(store: ObjectStore, foreign: Foreign) -> None:
    """R3: only what was asked for is checked; versions without an object are counted."""
    for name in ("a/1", "b/1"):
        await put(store, name, content(CHUNK))
    await orphan(store, foreign, b"x")
    verdict = await check(store, lambda name: name.startswith("a/"))
    assert (verdict.objects, verdict.size, verdict.unowned) == (1, CHUNK, 1)
