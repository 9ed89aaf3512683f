"""Which buckets there are: listing their streams, and following what is created and deleted.

The server tells of a stream's creation and deletion by advisories.  Those are hints: whatever
arrives makes the stream be asked for, so that their order does not matter.  What an advisory may
have missed (a broken connection) is found by listing again.  Where the credentials may not hear
advisories, or the API is another account's, whose advisories stay there, the list is made again
every `RELIST` seconds.

Concurrency: a `BucketsWatcher` serves one iterator in one task.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import trio

from natsfs.errors import (
    BucketNotFoundError,
    ConnectionLost,
    JetStreamUnavailable,
    PermissionsError,
    RequestTimeout,
    ServerRefused,
)
from natsfs.progress import Progress, unheard
from natsfs.store.jetstream.api import Api
from natsfs.store.model import (
    BucketCreated,
    BucketDeleted,
    BucketEvent,
    BucketsListed,
    BucketStatus,
)
from natsfs.store.session import NoResponders, Subscription
from natsfs.store.streams import parse_status
from natsfs.store.wire import bucket_of, stream_name

log = logging.getLogger(__name__)

#: What the server publishes in the account of a stream (seen on 2.15.1; the last token is the
#: stream's name, and a wildcard can only stand for the whole of it).
ADVISORIES = (
    "$JS.EVENT.ADVISORY.STREAM.CREATED.*",
    "$JS.EVENT.ADVISORY.STREAM.DELETED.*",
)

#: Seconds between lists where nothing is pushed: a list costs the server a look at each stream.
RELIST = 30.0

#: Seconds between two attempts to begin again while the server is away.
RESTART_DELAY = 0.25

#: As for the watch of one bucket: before the first list is told these are the caller's to know.
_INTERRUPTIONS = (
    ConnectionLost,
    JetStreamUnavailable,
    NoResponders,
    RequestTimeout,
    ServerRefused,
)


@dataclass(slots=True)
class BucketList:
    """What STREAM.LIST told: the buckets *found*, and the *missing* streams, which exist without
    anybody who could describe them now (a cluster without their leader)."""

    found: dict[str, BucketStatus] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


async def list_buckets(api: Api, progress: Progress = unheard) -> BucketList:
    """Every bucket that the user may see.  One whose description cannot be read is logged and left
    out.  *progress* is told how many streams are listed of how many: a page has 256.

    Errors: those of `Api.ask`."""
    listed = BucketList()
    offset = 0
    progress(0, 0)
    while True:
        page = await api.ask("the list of buckets", "STREAM.LIST", {"offset": offset})
        streams = page.get("streams") or []
        for info in streams:
            if bucket_of(info["config"]["name"]) is not None:
                _note(listed, info)
        listed.missing.update(page.get("missing") or ())
        offset += len(streams)
        total = page.get("total", 0)
        progress(offset, max(offset, total))
        if not streams or offset >= total:
            return listed


def _note(listed: BucketList, info: dict[str, object]) -> None:
    try:
        status = parse_status(info)
    except ServerRefused as error:
        log.warning("a bucket is left out of the list: %s", error)
    else:
        listed.found[status.bucket] = status


class BucketsWatcher:
    """Follows which buckets there are.  *progress* is told how far the first list is."""

    def __init__(self, api: Api, progress: Progress = unheard) -> None:
        # On the connection that the advisories come by: a list is then never older than they are.
        self._api = api.control
        #: When each bucket that was told of was created.
        self._known: dict[str, int] = {}
        self._progress = progress
        self._denied = False
        self._incomplete = False

    async def events(self) -> AsyncGenerator[BucketEvent, None]:
        """`ObjectStoreManager.watch`."""
        begun = False
        while True:
            try:
                subjects = () if self._denied else map(self._api.event, ADVISORIES)
                async with self._api.session.subscribe(*subjects) as advisories:
                    for event in await self._differences():
                        yield event
                    if not begun:
                        begun = True
                        yield BucketsListed()
                    while (buckets := await self._next(advisories)) is not None:
                        for bucket in buckets:
                            for event in await self._look(bucket):
                                yield event
                continue
            except _INTERRUPTIONS as error:
                if not begun:
                    raise
                log.info("the buckets are listed again: %s", error)
            await trio.sleep(RESTART_DELAY)

    async def _next(self, advisories: Subscription) -> list[str] | None:
        """The buckets that advisories tell of, or None when it is time to list again."""
        config = self._api.session.config
        pushed = not (self._denied or self._incomplete or config.api_prefix or config.domain)
        with trio.move_on_after(math.inf if pushed else RELIST):
            try:
                messages = await advisories.receive()
            except PermissionsError as error:
                self._denied = True
                log.info("buckets are listed every %.0f s to follow them: %s", RELIST, error)
                await trio.sleep(RELIST)
            else:
                named = (bucket_of(message.subject.rpartition(".")[2]) for message in messages)
                return [bucket for bucket in dict.fromkeys(named) if bucket is not None]
        return None

    async def _differences(self) -> list[BucketEvent]:
        """What a list shows that has not been told."""
        listed = await list_buckets(self._api, self._progress)
        self._progress = unheard
        self._incomplete = bool(listed.missing)
        told: list[BucketEvent] = []
        for bucket in self._known.keys() - listed.found.keys():
            # Pages of a list that is changing may leave something out.
            if stream_name(bucket) not in listed.missing and not await self._exists(bucket):
                told += self._gone(bucket)
        for status in sorted(listed.found.values(), key=lambda status: status.created_ns):
            told += self._there(status)
        return told

    async def _look(self, bucket: str) -> list[BucketEvent]:
        """What became of *bucket*, of which an advisory told."""
        try:
            status = await self._ask(bucket)
        except BucketNotFoundError:
            return self._gone(bucket)
        except PermissionsError:
            # Somebody who may only list.
            return await self._differences()
        return self._there(status)

    async def _exists(self, bucket: str) -> bool:
        try:
            await self._ask(bucket)
        except (BucketNotFoundError, PermissionsError):
            return False
        return True

    async def _ask(self, bucket: str) -> BucketStatus:
        verb = f"STREAM.INFO.{stream_name(bucket)}"
        return parse_status(await self._api.ask(f"bucket {bucket!r}", verb))

    def _there(self, status: BucketStatus) -> list[BucketEvent]:
        if self._known.get(status.bucket) == status.created_ns:
            return []
        told = [*self._gone(status.bucket), BucketCreated(status)]
        self._known[status.bucket] = status.created_ns
        return told

    def _gone(self, bucket: str) -> list[BucketEvent]:
        created_ns = self._known.pop(bucket, None)
        return [] if created_ns is None else [BucketDeleted(bucket, created_ns)]
