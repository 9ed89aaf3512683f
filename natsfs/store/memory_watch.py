"""How the in-memory stream's messages become the events of a watch.

Concurrency: `events` waits for messages only; each snapshot is one moment.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio

from natsfs.errors import BucketNotFoundError, MalformedMeta
from natsfs.store.memory_stream import MemoryStream, Message
from natsfs.store.model import (
    CaughtUp,
    Malformed,
    ObjectInfo,
    Restarted,
    Resumed,
    Updated,
    WatchEvent,
)
from natsfs.store.wire import meta_prefix, parse_info


async def events(
    stream: MemoryStream, messages: trio.MemoryReceiveChannel[Message | None], after: int
) -> AsyncGenerator[WatchEvent, None]:
    """`ObjectStore.watch` of *stream*, whose new messages come by *messages*."""
    # Taken with the snapshot: a message may be stored while its events are being shown.
    shown = stream.last_sequence
    for event in _snapshot(stream, after):
        yield event
    async for message in messages:
        if message is None:
            shown = stream.last_sequence
            for event in _snapshot(stream):
                yield event
        elif message.sequence > shown and _is_meta(stream, message):
            yield _event(stream, message)
    raise BucketNotFoundError(f"bucket {stream.config.bucket!r} was deleted")


def parse(stream: MemoryStream, message: Message) -> ObjectInfo:
    """The meta in *message*.  Errors: `MalformedMeta`."""
    return parse_info(
        message.subject,
        message.data,
        bucket=stream.config.bucket,
        revision=message.sequence,
        time_ns=message.time_ns,
        ttl=message.ttl,
    )


def _snapshot(stream: MemoryStream, after: int = 0) -> list[WatchEvent]:
    """All of it at once: nothing can be published between its events and their end."""
    metas = [_event(stream, message) for message in stream.metas() if message.sequence > after]
    begin = Resumed if after else Restarted
    return [begin(stream.created_ns, len(metas)), *metas, CaughtUp(stream.last_sequence)]


def _is_meta(stream: MemoryStream, message: Message) -> bool:
    return message.subject.startswith(meta_prefix(stream.config.bucket))


def _event(stream: MemoryStream, message: Message) -> WatchEvent:
    try:
        return Updated(parse(stream, message), message.rollup)
    except MalformedMeta as error:
        return Malformed(message.subject, message.sequence, str(error))
