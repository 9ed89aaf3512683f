"""Chunks and tombstones as such, whether or not an object owns them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from natsfs.errors import InvalidArgument, NotFoundError
from natsfs.store.base import ObjectStore
from natsfs.store.model import ChunkSet
from natsfs.store.wire import chunk_subject, new_nuid
from tests.contract.foreign import Foreign
from tests.contract.objects import CHUNK, content, put


async def test_count_chunks(store: ObjectStore, foreign: Foreign) -> None:
    """W6: every version with chunks is counted, one without an object, too; metas are not."""
    assert dict(await store.count_chunks()) == {}
    info = await put(store, "a", content(3 * CHUNK))
    await put(store, "empty", b"")
    orphan = new_nuid()
    await foreign.publish(store.bucket, chunk_subject(store.bucket, orphan), b"x")
    told: list[tuple[int, int]] = []
    counts = await store.count_chunks(lambda done, total: told.append((done, total)))
    assert dict(counts) == {info.nuid: 3, orphan: 1}
    assert told == [(0, 0), (2, 2)]
    await store.delete("a")
    assert dict(await store.count_chunks()) == {orphan: 1}


@pytest.mark.parametrize("size", [1, CHUNK, 3 * CHUNK + 1])
async def test_inspect_chunks(store: ObjectStore, size: int) -> None:
    """W6: number, bytes and age of a version's chunks."""
    before = time.time_ns()
    info = await put(store, "a", content(size))
    found = await store.inspect_chunks(info.nuid)
    assert found == ChunkSet(info.nuid, info.chunks, size, found.time_ns)
    assert abs(found.time_ns - before) < 60_000_000_000


async def test_inspect_nothing(store: ObjectStore) -> None:
    """W6: a version without chunks is told from a name that is none."""
    with pytest.raises(NotFoundError):
        await store.inspect_chunks(new_nuid())
    with pytest.raises(InvalidArgument):
        await store.inspect_chunks(">")


async def test_purge_meta(store: ObjectStore) -> None:
    """K9: a tombstone goes without a trace, and what was written after it stays."""
    await put(store, "a", b"1")
    await put(store, "ab", b"1")
    await store.delete("a")
    grave = await store.get_info("a", show_deleted=True)
    assert await store.purge_meta(grave.subject, grave.revision) == 1
    with pytest.raises(NotFoundError):
        await store.get_info("a", show_deleted=True)
    again = await put(store, "a", b"2")
    assert await store.purge_meta(again.subject, grave.revision) == 0
    assert await store.get_info("a") == replace(again, time_ns=(await store.get_info("a")).time_ns)
    assert (await store.get_info("ab")).name == "ab"
