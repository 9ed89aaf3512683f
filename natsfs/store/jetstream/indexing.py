"""The index of an irregular version: sequence and length of each of its chunks.

A consumer of headers only tells both without sending the data (protocol.md 3.2): some 200 bytes a
chunk.  Interleaved writers, short chunks from pipes and lying metas are read by it.

In a cluster the consumer's server may be behind the leader; what the leader has is waited for.

Concurrency: stateless.
"""

from __future__ import annotations

from natsfs.errors import NotFoundError, ServerRefused
from natsfs.store.headers import parse_headers
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.jetstream.consumer import Consumer, ConsumerLost, consume
from natsfs.store.session import AnswerLost

_CONFIG = {"deliver_policy": "all", "headers_only": True}


async def index_chunks(bucket: Bucket, subject: str) -> list[tuple[int, int]]:
    """(sequence, length) of every message on *subject*, in order.

    Errors: those of `Api.ask`; `ConsumerLost` is turned into another attempt.
    """

    async def attempt(_timeout: float) -> list[tuple[int, int]]:
        last = await _last(bucket, subject)
        async with consume(bucket, subject, _CONFIG) as consumer:
            try:
                return await _drain(consumer, last)
            except ConsumerLost as error:
                raise AnswerLost(str(error)) from error

    return await bucket.api.persist(attempt)


async def _last(bucket: Bucket, subject: str) -> int:
    """The sequence that the index has to reach; 0 where the consumer knows all by itself."""
    if bucket.status.replicas < 2:
        return 0
    try:
        return (await bucket.api.last_on(bucket.stream, subject)).sequence
    except NotFoundError:
        return 0


async def _drain(consumer: Consumer, last: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    pending = consumer.pending
    while pending or (found[-1][0] if found else 0) < last:
        received = await consumer.receive()
        if not received and not pending:
            # Still behind after a heartbeat, or the last one was purged meanwhile.
            raise ConsumerLost(f"message {last} does not come")
        for message, delivery in received:
            found.append((delivery.stream_sequence, _length(message.block)))
            pending = delivery.pending
    return found


def _length(block: bytes) -> int:
    try:
        return int(parse_headers(block).fields["Nats-Msg-Size"])
    except (KeyError, ValueError) as error:
        raise ServerRefused("an index of chunks", 0, f"message without size: {error!r}") from error
