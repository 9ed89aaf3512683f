"""What contract tests put into buckets, and how they look at what is there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from natsfs.store.base import ObjectStore
from natsfs.store.model import ObjectInfo, ObjectMeta

Buffer = bytes | bytearray | memoryview

#: A chunk size that makes objects of many chunks cheap.
CHUNK = 1000
SMALL = ObjectMeta(max_chunk_size=CHUNK)

#: Everything that a writer can say of an object.
FULL_META = ObjectMeta(
    description="a description",
    headers={"Content-Type": ("text/plain", "charset=utf-8")},
    metadata={"mode": "0100644", "schlüssel": "wert"},
    max_chunk_size=CHUNK,
    extra={"vendor": {"list": [1, None, "x"]}},
)


class Source:
    """An upload's source.  No generator: an upload that is refused half-way leaves it where it is,
    and a generator would want closing."""

    def __init__(self, *pieces: Buffer) -> None:
        self._pieces = iter(pieces)

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Buffer:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


def content(size: int) -> bytes:
    """*size* bytes of which no two chunks are equal."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


async def put(store: ObjectStore, name: str, data: bytes, meta: ObjectMeta = SMALL) -> ObjectInfo:
    return await store.put(name, Source(data), meta)


async def upload(
    store: ObjectStore, name: str, data: bytes, *, expected: int | None = None
) -> ObjectInfo:
    return await store.upload(name, Source(data), SMALL, expected=expected)


async def get(store: ObjectStore, name: str) -> bytes:
    return b"".join([bytes(piece) async for piece in store.get(name)])


async def names(store: ObjectStore, *, show_deleted: bool = False) -> list[str]:
    return [info.name for info in await store.list(show_deleted=show_deleted)]


def chunks_of(info: ObjectInfo) -> str:
    """The chunk subject, spelled out here so that a mistake in `wire` shows."""
    return f"$O.{info.bucket}.C.{info.nuid}"


def meta_json(name: str, **fields: Any) -> bytes:
    """A meta message as a foreign client could write it; None leaves a field out."""
    usual = {"name": name, "bucket": "b", "nuid": "N" * 22, "size": 0, "chunks": 0}
    return json.dumps({k: v for k, v in (usual | fields).items() if v is not None}).encode()


def content_of(info: ObjectInfo) -> ObjectInfo:
    """*info* without what a write cannot know of itself to the nanosecond."""
    return replace(info, time_ns=0)
