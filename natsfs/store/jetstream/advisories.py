"""Listening to what the server tells of requests, on both of the subjects where it does.

Credentials that may hear of one only have that one; the other costs a line in the log.

Concurrency: each subject has a task of its own, which lasts as long as the context.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from natsfs.errors import ConnectionLost, PermissionsError
from natsfs.store.advisories import API_REQUESTS, parse_advisory, stream_events
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.jetstream.watch import RESTART_DELAY
from natsfs.store.model import Advisory

log = logging.getLogger(__name__)


@asynccontextmanager
async def listen(bucket: Bucket) -> AsyncIterator[AsyncIterator[Advisory]]:
    """`ObjectStore.advisories`.  The subscriptions are on their way when it is entered, so what
    the same connection asks for afterwards comes after them."""
    # Unbounded: an advisory is three words, and who makes them so fast is the server's problem.
    send, receive = trio.open_memory_channel[Advisory](math.inf)
    async with trio.open_nursery() as nursery:
        denied: list[str] = []
        for subject in (API_REQUESTS, stream_events(bucket.name)):
            await nursery.start(_listen, bucket, bucket.api.event(subject), send, denied)
        yield receive
        nursery.cancel_scope.cancel()


async def _listen(
    bucket: Bucket,
    subject: str,
    send: trio.MemorySendChannel[Advisory],
    denied: list[str],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    started = False
    while True:
        try:
            async with bucket.api.control.session.subscribe(subject) as subscription:
                if not started:
                    started = True
                    task_status.started()
                while True:
                    for message in await subscription.receive():
                        advisory = parse_advisory(bucket.name, message.data)
                        if advisory is not None:
                            send.send_nowait(advisory)
        except PermissionsError as error:
            if not denied:
                log.info("what others purge shows late, credentials may not hear of it: %s", error)
            denied.append(subject)
            return
        except ConnectionLost as error:
            if not started:
                raise
            log.debug("%s: %s", subject, error)
        await trio.sleep(RESTART_DELAY)
