"""Keeps the catalogue true: by the watch of all buckets, and by looking for one that seems gone.

Concurrency: `run` is one task; `look_for` may be called by any.
"""

from __future__ import annotations

import logging

import trio

from natsfs.buckets.catalogue import Catalogue
from natsfs.errors import BucketNotFoundError, NatsfsError
from natsfs.progress import Progress, unheard
from natsfs.store.base import ObjectStoreManager
from natsfs.store.model import BucketCreated, BucketDeleted, BucketEvent, BucketsListed

log = logging.getLogger(__name__)

#: Seconds before following the buckets is tried again after it failed.
RETRY = 1.0


class Following:
    """Follows the buckets of *manager*."""

    def __init__(self, manager: ObjectStoreManager, catalogue: Catalogue) -> None:
        self._manager = manager
        self._catalogue = catalogue

    async def run(
        self,
        listing: Progress = unheard,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep the catalogue true until cancelled; "started" when it is complete.  *listing* is
        told how far it is until then.

        Errors: whatever the first watch raises before that; later ones are logged and the watch is
        made again.
        """
        started = False
        while True:
            seen: set[str] = set()
            try:
                async with self._manager.watch(unheard if started else listing) as events:
                    async for event in events:
                        self._take(event, seen)
                        if isinstance(event, BucketsListed) and not started:
                            started = True
                            task_status.started()
            except NatsfsError as error:
                if not started:
                    raise
                log.warning("the buckets cannot be followed: %s", error)
            await trio.sleep(RETRY)

    async def look_for(self, name: str) -> None:
        """The bucket *name* seems to be gone: find out before anybody tells."""
        try:
            status = await (await self._manager.bind(name)).status()
        except BucketNotFoundError:
            if name in self._catalogue:
                self._catalogue.remove(name, self._catalogue[name].created_ns)
        except NatsfsError as error:
            log.debug("whether bucket %s is still there is unknown: %s", name, error)
        else:
            self._catalogue.add(status)

    def _take(self, event: BucketEvent, seen: set[str]) -> None:
        match event:
            case BucketCreated(status):
                seen.add(status.bucket)
                self._catalogue.add(status)
            case BucketDeleted(bucket, created_ns):
                self._catalogue.remove(bucket, created_ns)
            case BucketsListed():
                for bucket in set(self._catalogue.names()) - seen:
                    self._catalogue.remove(bucket, self._catalogue[bucket].created_ns)
