"""Uploads whose metas are decided when the bytes are stored: what every store keeps to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from natsfs.errors import InvalidArgument, WrongRevision
from natsfs.store.base import ObjectStore
from natsfs.store.model import MetaWrite, ObjectInfo
from tests.contract.foreign import Foreign
from tests.contract.objects import CHUNK, Source, chunks_of, content, get, names, put, upload

#: Small enough for one round trip, and larger than what goes in one.
SIZES = [CHUNK // 2, 3 * CHUNK, 900 * CHUNK]


class Decisions:
    """A `Place` that expects each of *revisions* in turn, and remembers what it was asked."""

    def __init__(self, *revisions: int, beside: Sequence[MetaWrite] = ()) -> None:
        self.revisions = list(revisions)
        self.beside = beside
        self.asked: list[tuple[ObjectInfo, WrongRevision | None]] = []

    async def __call__(self, version: ObjectInfo, lost: WrongRevision | None) -> list[MetaWrite]:
        self.asked.append((version, lost))
        if not self.revisions:
            assert lost is not None
            raise lost
        info = replace(version, description=f"decision {len(self.asked)}")
        return [*self.beside, MetaWrite(info, self.revisions.pop(0))]


@pytest.mark.parametrize("size", [0, *SIZES])
async def test_deciding_again(store: ObjectStore, foreign: Foreign, size: int) -> None:
    """A4: after a lost compare-and-set the meta is decided again; the bytes stay where they are."""
    first = await upload(store, "a", b"first")
    decisions = Decisions(0, first.revision + 10**6, first.revision)
    source, data = Source(content(size)), content(size)
    (info,) = await store.upload_version("a", source, decisions, max_chunk_size=CHUNK)
    assert await get(store, "a") == data
    assert info.description == "decision 3"
    assert [version.nuid for version, _ in decisions.asked] == [info.nuid] * 3
    assert decisions.asked[0][1] is None
    for _, lost in decisions.asked[1:]:
        assert lost is not None
        assert lost.name == "a"
    assert len(await foreign.messages(store.bucket, chunks_of(info))) == info.chunks
    version = decisions.asked[0][0]
    assert (version.size, version.digest, version.chunks) == (size, info.digest, info.chunks)


@pytest.mark.parametrize("size", SIZES)
async def test_giving_up(store: ObjectStore, foreign: Foreign, size: int) -> None:
    """A4: an upload whose decider gives up leaves no chunk."""
    await put(store, "a", b"first")
    decisions = Decisions(0, 10**6)
    with pytest.raises(WrongRevision):
        await store.upload_version("a", Source(content(size)), decisions, max_chunk_size=CHUNK)
    version = decisions.asked[0][0]
    assert await foreign.messages(store.bucket, chunks_of(version)) == []
    assert await get(store, "a") == b"first"


@pytest.mark.parametrize("size", SIZES)
async def test_metas_beside_the_version(store: ObjectStore, size: int) -> None:
    """A4: another meta is stored in the same step, and the version's own comes back last."""
    old = await put(store, "a", b"first")
    kept = MetaWrite(replace(old, name="kept", subject=""), 0)
    decisions = Decisions(old.revision, beside=[kept])
    stored = await store.upload_version("a", Source(content(size)), decisions, max_chunk_size=CHUNK)
    assert [info.name for info in stored] == ["kept", "a"]
    assert (await get(store, "kept"), await get(store, "a")) == (b"first", content(size))
    assert sorted(await names(store)) == ["a", "kept"]


async def test_a_name_is_needed(store: ObjectStore) -> None:
    """A version without a name is refused."""
    with pytest.raises(InvalidArgument):
        await store.upload_version("", Source(b"data"), Decisions(0))


async def test_many_updates_at_once(store: ObjectStore) -> None:
    """M5: however many writers change one meta, none loses its change and none is refused."""
    await put(store, "a", b"data")
    seen: list[str] = []

    async def change(number: int) -> None:
        for turn in range(4):
            info = await store.update_meta("a", description=f"{number}.{turn}")
            seen.append(info.description)

    async with trio.open_nursery() as nursery:
        for number in range(24):
            nursery.start_soon(change, number)
    assert len(set(seen)) == 96
    assert (await store.get_info("a")).description in seen
