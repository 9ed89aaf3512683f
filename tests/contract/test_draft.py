"""Drafts, versions that are stored while their bytes come: what every store keeps to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import trio

from natsfs.errors import InvalidArgument, NoSpaceError, StaleVersion, WrongRevision
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.model import BucketConfig, MetaWrite, ObjectInfo
from natsfs.store.primitives import Draft
from natsfs.store.wire import EMPTY_DIGEST, parse_digest
from tests.contract.foreign import Foreign
from tests.contract.objects import CHUNK, content, get, names, put

#: Two windows of any store, and some.
LARGE = 9 * 1024 * 1024 + 5


class Refused(Exception):
    """What a `Place` of these tests raises."""


async def anew(version: ObjectInfo, lost: WrongRevision | None) -> list[MetaWrite]:
    """Replace whatever is there."""
    return [MetaWrite(version)]


async def refuse(version: ObjectInfo, lost: WrongRevision | None) -> list[MetaWrite]:
    raise Refused


async def write(draft: Draft, data: bytes, step: int = 100_000) -> None:
    for start in range(0, len(data), step):
        await draft.write(data[start : start + step])


def subject_of(store: ObjectStore, draft: Draft) -> str:
    """The chunk subject, spelled out here so that a mistake in `wire` shows."""
    return f"$O.{store.bucket}.C.{draft.nuid}"


@pytest.mark.parametrize("step", [70_000, 131_072, 1_000_000, LARGE])
async def test_bytes_are_stored_while_they_come(store: ObjectStore, step: int) -> None:
    """W4: chunks are acknowledged before the commit, and no more than a window is not."""
    draft, data = store.draft("a"), content(LARGE)
    await write(draft, data, step)
    assert 4 * 1024 * 1024 <= draft.acknowledged < LARGE
    assert LARGE - draft.acknowledged <= 4 * 1024 * 1024 + 128 * 1024
    assert draft.begun
    assert await names(store) == []
    (info,) = await draft.commit("a", anew)
    assert (info.nuid, info.size, info.chunks) == (draft.nuid, LARGE, 73)
    assert parse_digest(info.digest) == hashlib.sha256(data).digest()
    assert draft.acknowledged == LARGE
    assert await get(store, "a") == data


async def test_nothing_is_sent_of_little(store: ObjectStore, foreign: Foreign) -> None:
    """W4: what fills no window waits for the commit."""
    draft = store.draft("a")
    await draft.write(content(CHUNK))
    assert (draft.acknowledged, draft.begun) == (0, False)
    assert draft.stored().size == 0
    assert await foreign.messages(store.bucket, subject_of(store, draft)) == []
    await draft.commit("a", anew)
    assert await get(store, "a") == content(CHUNK)


async def test_nothing_at_all(store: ObjectStore) -> None:
    """A draft to which nothing was written becomes an empty object."""
    (info,) = await store.draft("a").commit("a", anew)
    assert (info.size, info.chunks, info.digest) == (0, 0, EMPTY_DIGEST)


async def test_the_name_is_that_of_the_commit(store: ObjectStore) -> None:
    """W5: a version gets the name that its file has in the end."""
    draft = store.draft("a")
    await draft.write(b"data")
    (info,) = await draft.commit("b", anew)
    assert (info.name, await names(store)) == ("b", ["b"])


async def test_reading_what_is_stored(store: ObjectStore) -> None:
    """W3: what is acknowledged can be read before the commit, at any time."""
    draft, data = store.draft("a", max_chunk_size=CHUNK), content(6 * CHUNK + 7)
    await write(draft, data[: 2 * CHUNK], 300)
    await draft.flush()
    first = draft.stored()
    assert (first.nuid, first.size, first.chunks) == (draft.nuid, 2 * CHUNK, 2)
    assert bytes(await store.read(first, CHUNK - 1, 10**6)) == data[CHUNK - 1 : 2 * CHUNK]
    await draft.write(data[2 * CHUNK :])
    await draft.flush()
    last = draft.stored()
    assert last.size == draft.acknowledged == 6 * CHUNK
    assert bytes(await store.read(last, 0, 10**6)) == data[: 6 * CHUNK]
    assert bytes(await store.read(first, 0, 10**6)) == data[: 2 * CHUNK]
    (info,) = await draft.commit("a", anew)
    assert bytes(await store.read(info, 0, 10**6)) == data


async def test_abandoning(store: ObjectStore, foreign: Foreign) -> None:
    """W2: a draft that is given up leaves no chunk, and what it had is gone for good."""
    await put(store, "a", b"old")
    draft = store.draft("a")
    await write(draft, content(LARGE))
    stored = draft.stored()
    await draft.abandon()
    await draft.abandon()
    assert await foreign.messages(store.bucket, subject_of(store, draft)) == []
    assert await get(store, "a") == b"old"
    with pytest.raises(StaleVersion):
        await store.read(stored, 0, 10)


@pytest.mark.parametrize("size", [0, CHUNK, LARGE])
async def test_a_commit_after_one_that_failed(store: ObjectStore, size: int) -> None:
    """W7: a draft whose commit failed still has its bytes, and can be committed."""
    draft, data = store.draft("a"), content(size)
    await write(draft, data)
    with pytest.raises(Refused):
        await draft.commit("a", refuse)
    assert not draft.uncertain
    assert await names(store) == []
    (info,) = await draft.commit("a", anew)
    assert parse_digest(info.digest) == hashlib.sha256(data).digest()
    assert await get(store, "a") == data
    assert (await store.status()).messages == info.chunks + 1


async def test_cancelled_writes(store: ObjectStore) -> None:
    """W7: a write that was cancelled has not lost anything, nor stored it twice."""
    draft, data = store.draft("a"), content(LARGE)
    for start in range(0, LARGE, 1_000_000):
        with trio.move_on_after(0.002):
            await draft.write(data[start : start + 1_000_000])
    (info,) = await draft.commit("a", anew)
    assert await get(store, "a") == data
    assert (await store.status()).messages == info.chunks + 1


async def test_refused_for_want_of_space(
    manager: ObjectStoreManager, new_bucket: Callable[[], str]
) -> None:
    """E: a draft that found the bucket full goes on when there is room again."""
    store = await manager.create(BucketConfig(new_bucket(), max_bytes=12 * 1024 * 1024))
    other = await put(store, "other", content(6 * 1024 * 1024))
    draft, data = store.draft("a"), content(LARGE)
    with pytest.raises(NoSpaceError):
        await write(draft, data, LARGE)
    await store.delete("other")
    assert other.nuid != draft.nuid
    await draft.write(b"")
    (info,) = await draft.commit("a", anew)
    assert await get(store, "a") == data
    assert (await store.status()).messages == info.chunks + 2


async def test_what_no_draft_can_be(store: ObjectStore) -> None:
    """A draft is for a name, in chunks of some size."""
    with pytest.raises(InvalidArgument):
        store.draft("")
    with pytest.raises(InvalidArgument):
        store.draft("a", max_chunk_size=-1)


async def test_many_drafts_at_once(store: ObjectStore) -> None:
    """R5: drafts whose chunks lie between one another's are all whole, also while they grow."""
    drafts = [store.draft(f"{number}", max_chunk_size=CHUNK) for number in range(4)]
    data = [content(60 * CHUNK + number) for number in range(4)]
    for start in range(0, 60 * CHUNK, 7 * CHUNK):
        for draft, whole in zip(drafts, data, strict=True):
            await draft.write(whole[start : start + 7 * CHUNK])
            await draft.flush()
            stored = draft.stored()
            assert bytes(await store.read(stored, 0, stored.size)) == whole[: stored.size]
    for number, (draft, whole) in enumerate(zip(drafts, data, strict=True)):
        await draft.write(whole[63 * CHUNK :])
        await draft.commit(f"{number}", anew)
        assert await get(store, f"{number}") == whole


async def test_chunks_behind_those_known(
    manager: ObjectStoreManager, store: ObjectStore, foreign: Foreign
) -> None:
    """R1: chunks that were sent and never acknowledged do not disturb reading what was."""
    draft, data = store.draft("a", max_chunk_size=CHUNK), content(CHUNK)
    await draft.write(data)
    await draft.flush()
    await foreign.publish(store.bucket, subject_of(store, draft), bytes(CHUNK))
    stored = draft.stored()
    other = await manager.bind(store.bucket)  # which has not written it
    for reading in (store, other):
        assert bytes(await reading.read(stored, 0, CHUNK)) == data
