"""What foreign clients left in the bucket: the contract that every store keeps."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from itertools import accumulate

import pytest

from natsfs.errors import (
    ChunkMissing,
    DigestMismatch,
    MalformedMeta,
    NotFoundError,
    StaleVersion,
)
from natsfs.store.base import ObjectStore
from natsfs.store.model import Link, MetaWrite, ObjectInfo
from natsfs.store.wire import render_digest
from tests.contract.foreign import Foreign
from tests.contract.objects import (
    CHUNK,
    SMALL,
    Source,
    chunks_of,
    content,
    content_of,
    get,
    meta_json,
    names,
    put,
    upload,
)


async def put_meta(foreign: Foreign, store: ObjectStore, name: str, payload: bytes) -> str:
    """Publish a meta as Go would address it; returns the subject."""
    token = base64.urlsafe_b64encode(name.encode()).decode()
    subject = f"$O.{store.bucket}.M.{token}"
    await foreign.publish(store.bucket, subject, payload, rollup=True)
    return subject


# -- versions that change under a reader ---------------------------------------------------------


async def test_replaced_and_purged(store: ObjectStore, foreign: Foreign) -> None:
    """R1: a version that was replaced and purged is stale."""
    old = await put(store, "a", content(3 * CHUNK))
    await upload(store, "a", content(4 * CHUNK))
    await foreign.purge(store.bucket, chunks_of(old))
    with pytest.raises(StaleVersion):
        await store.read(old, 0, old.size)
    with pytest.raises(StaleVersion):
        await store.read(old, 2 * CHUNK, 2 * CHUNK + 1)


async def test_deleted_and_purged(store: ObjectStore, foreign: Foreign) -> None:
    """R1: a version whose name was deleted, or purged away, is stale."""
    for name in ("deleted", "purged"):
        info = await put(store, name, content(CHUNK))
        if name == "deleted":
            await store.delete(name)
        else:
            await foreign.purge(store.bucket, info.subject)
            await foreign.purge(store.bucket, chunks_of(info))
        with pytest.raises(StaleVersion):
            await store.read(info, 0, info.size)


async def test_chunks_missing(store: ObjectStore, foreign: Foreign) -> None:
    """The chunks of a current version, purged: this is damage, not staleness."""
    info = await put(store, "a", content(3 * CHUNK))
    await foreign.purge(store.bucket, chunks_of(info))
    with pytest.raises(ChunkMissing):
        await store.read(info, CHUNK, 2 * CHUNK)
    with pytest.raises(ChunkMissing):
        await get(store, "a")


@pytest.mark.parametrize("lost", [0, 2, 4])
async def test_one_chunk_missing(store: ObjectStore, foreign: Foreign, lost: int) -> None:
    """One chunk that an operator deleted is missed, not skipped."""
    info = await put(store, "a", content(5 * CHUNK))
    sequence, _ = (await foreign.messages(store.bucket, chunks_of(info)))[lost]
    await foreign.remove(store.bucket, sequence)
    with pytest.raises(ChunkMissing):
        await get(store, "a")
    with pytest.raises(ChunkMissing):
        await store.read(info, lost * CHUNK, lost * CHUNK + 1)


# -- chunks of any shape -------------------------------------------------------------------------


async def put_chunks(
    foreign: Foreign, store: ObjectStore, name: str, sizes: list[int], **fields: object
) -> ObjectInfo:
    """An object as a foreign client wrote it, in chunks of *sizes*."""
    data, nuid = content(sum(sizes)), f"nuid-{name}"
    for start, size in zip(accumulate(sizes, initial=0), sizes, strict=False):
        subject = f"$O.{store.bucket}.C.{nuid}"
        await foreign.publish(store.bucket, subject, data[start : start + size])
    usual = {
        "nuid": nuid,
        "size": len(data),
        "chunks": len(sizes),
        "options": {"max_chunk_size": CHUNK},
    }
    await put_meta(foreign, store, name, meta_json(name, **(usual | fields)))
    return await store.get_info(name)


@pytest.mark.parametrize(
    "sizes",
    [
        [CHUNK, 10, CHUNK, 1, 500, CHUNK, 3],
        [1] * 30,
        [CHUNK, 0, CHUNK, 0, 0, 7],
        [10, CHUNK],
        [2 * CHUNK, CHUNK, 5],
        [CHUNK - 1, CHUNK, 1],
    ],
    ids=str,
)
async def test_irregular_chunks(store: ObjectStore, foreign: Foreign, sizes: list[int]) -> None:
    """R5: chunks of any size and number are read, whatever the meta says of them."""
    info = await put_chunks(foreign, store, "a", sizes)
    data = content(sum(sizes))
    borders = sorted({0, *accumulate(sizes), len(data) + 1})
    for start in borders:
        for stop in (start + 1, start + CHUNK, len(data)):
            assert bytes(await store.read(info, start, stop)) == data[start:stop]
    assert await get(store, "a") == data


@pytest.mark.parametrize("sizes", [[10], [CHUNK, CHUNK, 1], [0]], ids=str)
async def test_digest_mismatch(store: ObjectStore, foreign: Foreign, sizes: list[int]) -> None:
    """R3: bytes that are not those of the digest are found out, by the last read."""
    await put_chunks(foreign, store, "a", sizes, digest=render_digest(bytes(32)))
    with pytest.raises(DigestMismatch):
        await get(store, "a")
    promised = hashlib.sha256(content(sum(sizes))).hexdigest()
    await put_chunks(foreign, store, "b", sizes, digest=f"sha-256={promised}")
    assert await get(store, "b") == content(sum(sizes))


async def test_empty_chunk_at_the_end(store: ObjectStore, foreign: Foreign) -> None:
    """R5: the empty chunk that .NET adds, and does not count, does no harm."""
    whole = await put_chunks(foreign, store, "whole", [CHUNK, CHUNK, 0], chunks=2)
    assert bytes(await store.read(whole, CHUNK - 1, 2 * CHUNK)) == content(2 * CHUNK)[CHUNK - 1 :]
    empty = await put_chunks(foreign, store, "empty", [0], chunks=None, size=None)
    assert (empty.size, empty.chunks) == (0, 0)
    assert await get(store, "empty") == b""


@pytest.mark.parametrize("options", [None, {}, {"max_chunk_size": None}, {"max_chunk_size": 7}])
async def test_chunk_size_unknown(
    store: ObjectStore, foreign: Foreign, options: dict[str, object] | None
) -> None:
    """R5: a meta whose chunk size is absent or wrong is read all the same."""
    info = await put_chunks(foreign, store, "a", [CHUNK, CHUNK, 10], options=options)
    for start, stop in ((0, 1), (CHUNK - 1, CHUNK + 1), (2 * CHUNK, 2 * CHUNK + 10)):
        assert bytes(await store.read(info, start, stop)) == content(2 * CHUNK + 10)[start:stop]


async def test_interleaved_writers(store: ObjectStore, foreign: Foreign) -> None:
    """R5: two objects whose chunks lie between each other are read apart."""
    both = {nuid: [nuid.encode() * CHUNK for _ in range(3)] for nuid in "xy"}
    for pieces in zip(*both.values(), strict=True):
        for nuid, piece in zip(both, pieces, strict=True):
            await foreign.publish(store.bucket, f"$O.{store.bucket}.C.{nuid}", piece)
    for nuid in both:
        options = {"max_chunk_size": CHUNK}
        payload = meta_json(nuid, nuid=nuid, size=3 * CHUNK, chunks=3, options=options)
        await put_meta(foreign, store, nuid, payload)
    for nuid, chunks in both.items():
        info = await store.get_info(nuid)
        assert bytes(await store.read(info, CHUNK - 1, CHUNK + 1)) == nuid.encode() * 2
        assert await get(store, nuid) == b"".join(chunks)


# -- metas of any shape --------------------------------------------------------------------------

ODD_FIELDS = [
    {"headers": None},
    {"headers": {"k": "plain string"}},
    {"headers": {}, "metadata": {}, "description": None, "digest": None, "deleted": None},
    {"mtime": ""},
    {"mtime": "yesterday"},
    {"mtime": 5},
    {"bucket": None},
    {"bucket": "another"},
    {"size": None, "chunks": None},
    {"options": None},
    {"options": {"link": None, "max_chunk_size": None}},
    {"digest": "sha-256=nonsense"},
    {"revision": 3, "unknown": [1]},
]


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=str)
async def test_odd_metas(store: ObjectStore, foreign: Foreign, fields: dict[str, object]) -> None:
    """A meta that a client wrote in its own way is listed, read, changed, replaced and deleted."""
    payload = json.dumps(json.loads(meta_json("odd")) | fields).encode()
    await put_meta(foreign, store, "odd", payload)
    info = await store.get_info("odd")
    assert (info.name, info.bucket, info.size) == ("odd", store.bucket, 0)
    assert await store.list() == [info]
    assert await get(store, "odd") == b""
    changed = await store.update_meta("odd", description="changed")
    assert content_of(changed) == content_of(await store.get_info("odd"))
    await put(store, "odd", b"data")
    await store.delete("odd")
    assert await names(store) == []


async def test_unknown_fields_survive(store: ObjectStore, foreign: Foreign) -> None:
    """M6: fields that natsfs does not know are still there after every change of the meta."""
    link = {"bucket": "other", "name": "x", "hops": 3}
    options = {"max_chunk_size": CHUNK, "compression": {"codec": "zstd"}, "link": link}
    payload = meta_json("a", options=options, revision=7, vendor={"a": [1.5, None, "é"]})
    await put_meta(foreign, store, "a", payload)
    await store.update_meta("a", description="changed")
    renamed = await store.rename("a", "b")
    ((_, stored),) = await foreign.messages(store.bucket, renamed.subject)
    fields = json.loads(stored)
    assert (fields["name"], fields["description"]) == ("b", "changed")
    assert (fields["revision"], fields["vendor"]) == (7, {"a": [1.5, None, "é"]})
    assert fields["options"] == options


async def test_link_of_nats_js(store: ObjectStore, foreign: Foreign) -> None:
    """K2: a link without nuid, size and chunks, whose bucket is its target's, is a link."""
    await put(store, "target", b"data")
    options = {"link": {"bucket": store.bucket, "name": "target"}}
    payload = meta_json("l", nuid=None, size=None, chunks=None, bucket="x", options=options)
    await put_meta(foreign, store, "l", payload)
    info = await store.get_info("l")
    assert (info.link, info.bucket) == (Link(store.bucket, "target"), store.bucket)
    assert await get(store, "l") == b"data"
    changed = await store.update_meta("l", description="changed")
    assert changed.nuid
    await store.delete("l")
    assert await names(store) == ["target"]


async def test_two_metas_on_a_subject(store: ObjectStore, foreign: Foreign) -> None:
    """Of two metas on one subject, which nats.js leaves, the last counts everywhere."""
    info = await put(store, "a", b"data")
    fields = json.loads((await foreign.messages(store.bucket, info.subject))[0][1])
    again = json.dumps(fields | {"description": "second"}).encode()
    revision = await foreign.publish(store.bucket, info.subject, again)
    assert len(await foreign.messages(store.bucket, info.subject)) == 2
    seen = await store.get_info("a")
    assert (seen.description, seen.revision) == ("second", revision)
    assert await store.list() == [seen]
    await store.update_meta("a", metadata={"k": "v"})
    assert len(await foreign.messages(store.bucket, info.subject)) == 1


async def test_foreign_subjects(store: ObjectStore, foreign: Foreign) -> None:
    """An object on a subject that its name does not encode to is changed where it is."""
    subject = f"$O.{store.bucket}.M.not_the_encoding"
    await foreign.publish(store.bucket, subject, meta_json("ab?"))
    (info,) = await store.list()
    assert (info.name, info.subject) == ("ab?", subject)
    with pytest.raises(NotFoundError):
        await store.get_info("ab?")
    assert await store.get_info_at(subject) == info
    await store.commit([MetaWrite(replace(info, description="here"), info.revision)])
    changed = await store.get_info_at(subject)
    assert changed.description == "here"
    stored = await store.upload(
        "ab?", Source(b"data"), SMALL, subject=subject, expected=changed.revision
    )
    assert stored.subject == subject
    assert await store.list() == [await store.get_info_at(subject)]


MALFORMED = [
    b"",
    b"not JSON",
    b"[]",
    b"null",
    b'{"name": ""}',
    b'{"name": "a", "size": -1}',
    b'{"name": "a", "size": 1e400}',
    b'{"name": "a", "nuid": ">"}',
    b'{"name": "a", "x": NaN}',
    b"[" * 100_000,
    b"{" + b'"a":{' * 5000 + b"}" * 5001,
]


@pytest.mark.parametrize("payload", MALFORMED, ids=lambda payload: repr(payload[:30]))
async def test_malformed_metas(store: ObjectStore, foreign: Foreign, payload: bytes) -> None:
    """A meta that cannot be understood says so, harms no other, and can be replaced."""
    await put(store, "good", b"data")
    subject = await put_meta(foreign, store, "a", payload)
    with pytest.raises(MalformedMeta):
        await store.get_info("a")
    with pytest.raises(MalformedMeta):
        await store.get_info_at(subject)
    assert await get(store, "good") == b"data"
    await upload(store, "a", b"repaired")
    assert await get(store, "a") == b"repaired"


async def test_what_is_written(store: ObjectStore, foreign: Foreign) -> None:
    """A meta of natsfs has what every client demands: Go, Rust, Java, .NET, JS and Python."""
    info = await put(store, "a", content(CHUNK + 1))
    ((_, stored),) = await foreign.messages(store.bucket, info.subject)
    fields = json.loads(stored)
    mtime = fields.pop("mtime")
    assert mtime.endswith("Z")
    assert fields == {
        "name": "a",
        "bucket": store.bucket,
        "nuid": info.nuid,
        "size": CHUNK + 1,
        "chunks": 2,
        "digest": info.digest,
        "options": {"max_chunk_size": CHUNK},
    }
    await store.delete("a")
    ((_, stored),) = await foreign.messages(store.bucket, info.subject)
    fields = json.loads(stored)
    assert (fields["deleted"], fields["size"], fields["chunks"]) == (True, 0, 0)
    assert fields["mtime"]
    assert "digest" not in fields
