"""Objects: the contract that every store keeps."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio

from natsfs.errors import (
    InvalidArgument,
    NameTooLongError,
    NotFoundError,
    WrongRevision,
)
from natsfs.store.base import ObjectStore, tombstone
from natsfs.store.model import MetaWrite, ObjectInfo, ObjectMeta
from natsfs.store.wire import EMPTY_DIGEST, parse_digest
from tests.contract.foreign import Foreign
from tests.contract.objects import (
    CHUNK,
    FULL_META,
    SMALL,
    Buffer,
    Source,
    chunks_of,
    content,
    content_of,
    get,
    names,
    put,
    upload,
)

# -- put and get ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 7])
async def test_put_get(store: ObjectStore, size: int) -> None:
    """What was put is what get gives, at every border of a chunk."""
    info = await put(store, "a", content(size))
    assert await get(store, "a") == content(size)
    assert (info.size, info.chunks) == (size, -(-size // CHUNK))
    assert parse_digest(info.digest) == hashlib.sha256(content(size)).digest()


async def test_put_returns_what_get_info_gives(store: ObjectStore) -> None:
    """M6: a put keeps all that the writer says, and returns it as it is stored."""
    before = time.time_ns()
    info = await put(store, "dir/a", b"data", FULL_META)
    stored = await store.get_info("dir/a")
    assert content_of(info) == content_of(stored)
    assert (stored.description, stored.headers, stored.metadata, stored.extra) == (
        FULL_META.description,
        FULL_META.headers,
        FULL_META.metadata,
        FULL_META.extra,
    )
    assert (stored.bucket, stored.max_chunk_size) == (store.bucket, CHUNK)
    assert stored.revision == (await store.status()).last_revision
    for seen in (info, stored):
        assert abs(seen.time_ns - before) < 60_000_000_000


async def test_times_of_what_was_written(store: ObjectStore) -> None:
    """M3: a write returns when it must have been stored; what the server says is in the meta."""
    await store.status()
    before = time.time_ns()
    info = await put(store, "a", b"data")
    (changed,) = await store.commit([MetaWrite(replace(info, description="x"), info.revision)])
    assert before <= info.time_ns <= changed.time_ns <= time.time_ns()
    assert before <= (await store.get_info("a")).time_ns <= time.time_ns()


async def test_empty_object(store: ObjectStore, foreign: Foreign) -> None:
    """An object without bytes has the digest of nothing and no chunk."""
    info = await put(store, "empty", b"")
    assert (info.size, info.chunks, info.digest) == (0, 0, EMPTY_DIGEST)
    assert await foreign.messages(store.bucket, chunks_of(info)) == []
    assert bytes(await store.read(info, 0, 10)) == b""


async def test_default_chunk_size(store: ObjectStore, foreign: Foreign) -> None:
    """An object has chunks of 128 KiB unless its writer says otherwise."""
    info = await put(store, "a", content(300 * 1024), ObjectMeta())
    stored = await foreign.messages(store.bucket, chunks_of(info))
    assert [len(data) for _, data in stored] == [128 * 1024, 128 * 1024, 44 * 1024]


async def test_pieces_of_any_size(store: ObjectStore, foreign: Foreign) -> None:
    """Pieces of the source may be empty, longer than a chunk, and any kind of buffer."""
    data = content(3 * CHUNK + 10)
    pieces: list[Buffer] = [
        b"",
        data[:1],
        bytearray(data[1:7]),
        memoryview(data)[7 : 2 * CHUNK + 5],
        b"",
    ]
    info = await store.put("a", Source(*pieces, data[2 * CHUNK + 5 :]), SMALL)
    stored = await foreign.messages(store.bucket, chunks_of(info))
    assert [len(piece) for _, piece in stored] == [CHUNK, CHUNK, CHUNK, 10]
    assert await get(store, "a") == data


async def test_reused_buffer(store: ObjectStore) -> None:
    """A source may fill one buffer again and again: a piece is taken before the next is asked."""

    async def refilled() -> AsyncIterator[bytearray]:
        buffer = bytearray(CHUNK)
        for number in range(20):
            buffer[:] = bytes([number]) * CHUNK
            yield buffer

    await store.put("a", refilled(), SMALL)
    assert await get(store, "a") == b"".join(bytes([n]) * CHUNK for n in range(20))


async def test_small_versions_together(store: ObjectStore) -> None:
    """R2, R5: of small versions that are read together each brings its own bytes, whatever becomes
    of the others; what has more than one chunk, or is not there, may be left out."""
    data = [content(size) for size in (1, CHUNK - 1, CHUNK, 3 * CHUNK)]
    infos = [await put(store, str(number), one) for number, one in enumerate(data)]
    purged = await put(store, "purged", b"purged")
    await store.purge_chunks(purged.nuid)
    longer = replace(infos[0], size=2)
    found = await store.read_small([*infos[:2], purged, longer, *infos[2:], infos[0]])
    assert [found[n] for n in (0, 1, 4, 6)] == [data[0], data[1], data[2], data[0]]
    assert found[2:4] == [None, None]
    assert found[5] in (None, data[3])
    assert await store.read_small([]) == []


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, 0),
        (0, 1),
        (CHUNK - 1, 1),
        (CHUNK - 1, 2),
        (CHUNK, CHUNK),
        (CHUNK + 1, CHUNK),
        (0, 4 * CHUNK + 5),
        (4 * CHUNK, 5),
        (4 * CHUNK + 4, 10),
        (4 * CHUNK + 5, 1),
        (10**12, 5),
    ],
)
async def test_range(store: ObjectStore, start: int, length: int) -> None:
    """R2: any range, cut at the end of the object."""
    data = content(4 * CHUNK + 5)
    await put(store, "a", data)
    assert bytes(await store.get_range("a", start, length)) == data[start : start + length]


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1)])
async def test_negative_range(store: ObjectStore, start: int, length: int) -> None:
    """A range of negative numbers is refused."""
    await put(store, "a", b"data")
    with pytest.raises(InvalidArgument):
        await store.get_range("a", start, length)


async def test_several_windows(store: ObjectStore) -> None:
    """An object larger than the window of get comes whole and verified."""
    data = content(5 * 1024 * 1024 + 3)
    await put(store, "a", data, ObjectMeta())
    assert await get(store, "a") == data


async def test_put_replaces(store: ObjectStore, foreign: Foreign) -> None:
    """A put replaces the object whole and frees the chunks of the old version."""
    old = await put(store, "a", content(3 * CHUNK))
    new = await put(store, "a", b"new")
    assert new.nuid != old.nuid
    assert await get(store, "a") == b"new"
    assert await foreign.messages(store.bucket, chunks_of(old)) == []
    assert await names(store) == ["a"]


async def test_upload_keeps_the_old_version(store: ObjectStore) -> None:
    """R1: a version that an upload replaced is read as long as its chunks are there."""
    old = await put(store, "a", content(3 * CHUNK))
    await upload(store, "a", b"new")
    assert bytes(await store.read(old, 0, old.size)) == content(3 * CHUNK)
    assert await store.purge_chunks(old.nuid) == 3


async def test_missing(store: ObjectStore) -> None:
    """A name that nobody stored is not found by any call."""
    with pytest.raises(NotFoundError):
        await store.get_info("a")
    with pytest.raises(NotFoundError):
        await get(store, "a")
    with pytest.raises(NotFoundError):
        await store.get_range("a", 0, 1)
    with pytest.raises(NotFoundError):
        await store.update_meta("a", description="x")
    with pytest.raises(NotFoundError):
        await store.rename("a", "b")
    with pytest.raises(NotFoundError):
        await store.delete("a")
    with pytest.raises(NotFoundError):
        await store.get_info_at(f"$O.{store.bucket}.M.YQ==")


class SourceError(Exception):
    """What a program's own source raises."""


async def test_error_of_the_source(store: ObjectStore) -> None:
    """W2: an upload whose source fails leaves the old version and no chunk, and tells why."""

    async def failing() -> AsyncIterator[bytes]:
        yield content(3 * CHUNK)
        raise SourceError

    await put(store, "a", b"old")
    before = await store.status()
    with pytest.raises(SourceError):
        await store.put("a", failing(), SMALL)
    assert await get(store, "a") == b"old"
    assert (await store.status()).messages == before.messages


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a/b/c",
        "/absolute",
        "trailing/",
        "a//b",
        "..",
        ".",
        " ",
        "two words",
        "line\nbreak",
        "nul\0byte",
        "*",
        ">",
        "a.b.*.>",
        "ab?",
        "ab~",
        "é",
        "日本語",
        "💥",
        "\u202ereversed",
        "x" * 2000,
        '"quoted\\"',
    ],
)
async def test_hostile_names(store: ObjectStore, name: str) -> None:
    """N1: a name may be any text."""
    await put(store, name, b"data")
    assert (await store.get_info(name)).name == name
    assert await names(store) == [name]
    await store.rename(name, "plain")
    await store.rename("plain", name)
    assert await get(store, name) == b"data"
    await store.delete(name)
    assert await names(store) == []


async def test_similar_names(store: ObjectStore) -> None:
    """N6: names are compared byte for byte."""
    similar = ["a", "A", "a/", "a/a", "é", "e\u0301"]
    for name in similar:
        await put(store, name, name.encode())
    assert await names(store) == similar
    assert [await get(store, name) for name in similar] == [name.encode() for name in similar]


async def test_longest_name(store: ObjectStore) -> None:
    """N4: a name is refused before the server would drop the connection over it."""
    longest = "é" * ((2890 - len(store.bucket)) // 2)
    await put(store, longest, b"data")
    assert await get(store, longest) == b"data"
    await store.delete(longest)
    too_long = "é" * 1450
    with pytest.raises(NameTooLongError):
        await put(store, too_long, b"data")
    with pytest.raises(NameTooLongError):
        await store.get_info(too_long)
    await put(store, "a", b"data")
    with pytest.raises(NameTooLongError):
        await store.rename("a", too_long)
    assert await get(store, "a") == b"data"


@pytest.mark.parametrize("name", ["", "lone \ud800 surrogate"])
async def test_impossible_names(store: ObjectStore, name: str) -> None:
    """A name that is empty or no Unicode text is refused."""
    with pytest.raises(InvalidArgument):
        await put(store, name, b"data")
    with pytest.raises(InvalidArgument):
        await store.get_info(name)
    await put(store, "a", b"data")
    with pytest.raises(InvalidArgument):
        await store.rename("a", name)
    assert await names(store) == ["a"]


# -- compare-and-set ------------------------------------------------------------------------------


async def test_exclusive_upload(store: ObjectStore) -> None:
    """A3: of two uploads that expect nothing, the second loses and leaves no chunk."""
    first = await upload(store, "a", b"first", expected=0)
    before = await store.status()
    with pytest.raises(WrongRevision) as caught:
        await upload(store, "a", content(3 * CHUNK), expected=0)
    assert (caught.value.name, caught.value.expected) == ("a", 0)
    assert caught.value.actual in (None, first.revision)
    assert await get(store, "a") == b"first"
    assert (await store.status()).messages == before.messages


async def test_upload_expecting_a_revision(store: ObjectStore) -> None:
    """A4: an upload that expects a revision succeeds on it and loses on any other."""
    first = await upload(store, "a", b"first")
    second = await upload(store, "a", b"second", expected=first.revision)
    with pytest.raises(WrongRevision):
        await upload(store, "a", b"third", expected=first.revision)
    assert (await store.get_info("a")).nuid == second.nuid


async def test_one_exclusive_upload_of_many(store: ObjectStore) -> None:
    """A3: of many uploads at once that expect nothing, exactly one succeeds."""
    won: list[bytes] = []

    async def compete(data: bytes) -> None:
        try:
            await upload(store, "a", data, expected=0)
        except WrongRevision:
            return
        won.append(data)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(compete, bytes([number]) * CHUNK)
    assert [await get(store, "a")] == won


async def test_tombstone_counts_as_a_message(store: ObjectStore) -> None:
    """Expecting nothing fails over a tombstone: its own revision is to be expected there."""
    await put(store, "a", b"data")
    await store.delete("a")
    with pytest.raises(WrongRevision):
        await upload(store, "a", b"new", expected=0)
    grave = await store.get_info("a", show_deleted=True)
    await upload(store, "a", b"new", expected=grave.revision)
    assert await get(store, "a") == b"new"


async def test_commit_returns_infos_as_stored(store: ObjectStore) -> None:
    """Infos come back in the order of the writes, with their revisions."""
    first, second = await put(store, "a", b"1"), await put(store, "b", b"2")
    writes = [
        MetaWrite(replace(first, description="x"), first.revision),
        MetaWrite(replace(second, description="y"), None),
        MetaWrite(ObjectInfo("c", store.bucket, ""), 0),
    ]
    infos = await store.commit(writes)
    assert [info.description for info in infos] == ["x", "y", ""]
    assert infos[0].revision < infos[1].revision < infos[2].revision
    for info in infos:
        assert content_of(await store.get_info_at(info.subject)) == content_of(info)
    assert infos[2].digest == EMPTY_DIGEST
    assert infos[2].nuid
    assert await get(store, "a") == b"1"


async def test_commit_of_nothing(store: ObjectStore) -> None:
    """No writes, no message."""
    assert await store.commit([]) == ()
    assert (await store.status()).messages == 0


async def test_commit_is_all_or_nothing(store: ObjectStore) -> None:
    """A2: where the bucket allows atomic batches, one lost compare-and-set stores nothing."""
    if not (await store.status()).allow_atomic:
        pytest.skip("the bucket has no atomic batches")
    first, second = await put(store, "a", b"1"), await put(store, "b", b"2")
    before = await store.status()
    with pytest.raises(WrongRevision) as caught:
        await store.commit(
            [
                MetaWrite(replace(first, description="x"), first.revision),
                MetaWrite(replace(second, description="y"), second.revision - 1),
            ]
        )
    assert caught.value.name == "b"
    assert await store.status() == before
    assert await store.get_info("a") == replace(first, time_ns=(await store.get_info("a")).time_ns)


async def test_message_ttl(store: ObjectStore) -> None:
    """A meta with a time to live is gone after it."""
    if not (await store.status()).allow_msg_ttl:
        pytest.skip("the bucket has no message TTLs")
    info = await put(store, "a", b"")
    await store.commit([MetaWrite(tombstone(info), info.revision, ttl=1)])
    with trio.fail_after(20):
        while await names(store, show_deleted=True):
            await trio.lowlevel.checkpoint()
    with pytest.raises(NotFoundError):
        await store.get_info("a", show_deleted=True)
