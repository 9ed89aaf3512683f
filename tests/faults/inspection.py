"""What a bucket holds, as nats-py sees it: the second opinion on what a mount has done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import nats
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

T = TypeVar("T")

#: Seconds for one answer on a machine that other tests load.
TIMEOUT = 20.0


@dataclass
class Contents:
    """The objects of a bucket by name, each read in full and checked against its digest, and the
    number of stored chunks that belong to none of them or are there twice."""

    objects: dict[str, bytes] = field(default_factory=dict)
    stray: int = 0


def contents(url: str, bucket: str) -> Contents:
    """Everything in *bucket*.  Errors: those of nats-py, also for an object that is damaged."""
    return _ask(url, lambda stream: _contents(stream, bucket))


def purge(url: str, bucket: str, subject: str) -> None:
    """Drop all messages on *subject*, as an administrator may: no message tells of it."""

    async def work(stream: JetStreamContext) -> None:
        await stream.purge_stream(f"OBJ_{bucket}", subject=subject)

    _ask(url, work)


async def _contents(stream: JetStreamContext, bucket: str) -> Contents:
    store, found, expected = await stream.object_store(bucket), Contents(), Counter[str]()
    try:
        infos = await store.list(ignore_deletes=True)
    except NotFoundError:
        infos = []
    for info in infos:
        expected[f"$O.{bucket}.C.{info.nuid}"] += info.chunks or 0
        found.objects[info.name] = (await store.get(info.name)).data or b"" if info.size else b""
    state = await stream.stream_info(f"OBJ_{bucket}", subjects_filter=f"$O.{bucket}.C.>")
    found.stray = (Counter(state.state.subjects or {}) - expected).total()
    return found


def _ask(url: str, question: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    async def work() -> T:
        connection = await nats.connect(url, allow_reconnect=False, connect_timeout=int(TIMEOUT))
        try:
            return await question(connection.jetstream(timeout=TIMEOUT))
        finally:
            await connection.close()

    return asyncio.run(work())
