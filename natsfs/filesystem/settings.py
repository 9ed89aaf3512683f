"""Settings of the bucket that change while it is mounted: sealed, batches, TTL, made anew.

Concurrency: `follow` may be called at any time; what it finds is applied without another await.
"""

from __future__ import annotations

import logging

from natsfs.filesystem.state import Mounted
from natsfs.store.model import BucketStatus

log = logging.getLogger(__name__)


def became_read_only(mounted: Mounted, reason: str) -> None:
    """From now on changes are refused at their start, so that no program writes what cannot be
    stored (A6)."""
    if mounted.read_only is None:
        log.warning("bucket %s can only be read from now on: %s", mounted.store.bucket, reason)
        mounted.read_only = reason


async def look_at_permissions(mounted: Mounted) -> None:
    """Refuse changes at their start where the credentials allow none."""
    if mounted.read_only is None:
        mounted.read_only = mounted.refusal = await mounted.store.refusal()
        if mounted.refusal is not None:
            log.info(
                "bucket %s is mounted read-only: the credentials may store nothing in it",
                mounted.store.bucket,
            )


async def look_again(mounted: Mounted) -> None:
    """The credentials may be allowed something else by now.  Takes effect with the next
    `follow`."""
    if not mounted.read_only_mount:
        mounted.refusal = await mounted.store.refusal()


def follow(mounted: Mounted, status: BucketStatus) -> None:
    """Take over the settings in *status*, which has just been asked for."""
    before, had_batches = mounted.read_only, mounted.atomic
    mounted.adopt(status)
    reason = mounted.read_only
    if reason is not None and before is None:
        mounted.read_only = None
        became_read_only(mounted, reason)
    elif before is not None and reason is None:
        log.warning("bucket %s can be written from now on", mounted.store.bucket)
    if mounted.atomic and not had_batches:
        log.info("bucket %s takes atomic batches now", status.bucket)
    mounted.reader.move_to(status.identity)
