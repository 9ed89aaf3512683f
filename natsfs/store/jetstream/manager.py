"""Buckets: creating, finding and deleting their streams; `listing` follows which there are.

Concurrency: stateless; the server decides who creates a bucket first.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from natsfs.errors import ServerRefused
from natsfs.progress import Progress, unheard
from natsfs.store.base import ObjectStoreManager
from natsfs.store.jetstream.api import Api, Plane
from natsfs.store.jetstream.listing import BucketsWatcher, list_buckets
from natsfs.store.jetstream.store import JetStreamStore, account_limits
from natsfs.store.model import AccountLimits, BucketConfig, BucketEvent, BucketStatus
from natsfs.store.streams import parse_status, stream_config
from natsfs.store.wire import new_nuid, stream_name

log = logging.getLogger(__name__)

#: The first servers whose mirrors do not check again what a message was published under
#: (nats-server issue 5865, PR 6961).  On earlier ones a mirror stops for good where that does not
#: hold: the name in Nats-Expected-Stream never is its own, and an expected revision is missing as
#: soon as a rollup at the origin was faster.  Exclusive creation needs these headers, and no origin
#: knows of its mirrors, so natsfs cannot do without.
MIRROR_VERSION = (2, 12, 0)

#: A field of the request is unknown to a strict server, or not valid for this one.
INVALID_JSON = 10025

#: The first servers whose streams have metadata (protocol.md 2.1).
METADATA_VERSION = (2, 10, 0)

#: `allow_atomic` and `allow_msg_ttl` for STREAM.CREATE: servers 2.12, 2.11, and older ones.
FLAGS = ((True, True), (False, True), (False, False))


class JetStreamManager(ObjectStoreManager):
    """The buckets that a session's account can see.  The caller opens and closes *session*, which
    may be one by itself or one with links (`natsfs.store.link.open_links`): slow and fast."""

    def __init__(self, session: Plane) -> None:
        self._api = Api(session)

    @property
    def patient(self) -> bool:
        return self._api.session.patient

    async def create(self, config: BucketConfig) -> JetStreamStore:
        info = await self._create(config, FLAGS, new_nuid())
        return JetStreamStore(self._api, parse_status(info))

    async def _create(
        self, config: BucketConfig, flags: Sequence[tuple[bool, bool]], creation: str
    ) -> dict[str, Any]:
        """Create with the first of *flags* that the server knows.  2.12 refuses unknown fields,
        others ignore them (protocol.md 2.7)."""
        allow_atomic, allow_msg_ttl = flags[0]
        version = self._api.session.server_version
        stream = stream_config(
            config,
            allow_atomic=allow_atomic,
            allow_msg_ttl=allow_msg_ttl,
            creation=creation,
            has_metadata=version is None or version >= METADATA_VERSION,
        )
        verb = f"STREAM.CREATE.{stream['name']}"
        try:
            return await self._api.ask(f"bucket {config.bucket!r}", verb, stream)
        except ServerRefused as error:
            if error.err_code != INVALID_JSON or len(flags) == 1:
                raise
        return await self._create(config, flags[1:], creation)

    async def bind(self, bucket: str) -> JetStreamStore:
        verb = f"STREAM.INFO.{stream_name(bucket)}"
        status = parse_status(await self._api.ask(f"bucket {bucket!r}", verb))
        version = self._api.session.server_version
        if status.mirror is not None and version is not None and version < MIRROR_VERSION:
            log.warning(
                "bucket %s is a mirror on a server before 2.12, which ends it at the first object "
                "that natsfs wrote, and without allow_rollup_hdrs at any: what it shows may be old",
                bucket,
            )
        return JetStreamStore(self._api, status)

    def opened(self, status: BucketStatus) -> JetStreamStore:
        return JetStreamStore(self._api, status)

    async def delete(self, bucket: str) -> None:
        await self._api.ask(f"bucket {bucket!r}", f"STREAM.DELETE.{stream_name(bucket)}")

    async def list(self, progress: Progress = unheard) -> list[BucketStatus]:
        found = (await list_buckets(self._api, progress)).found
        return [found[bucket] for bucket in sorted(found)]

    @asynccontextmanager
    async def watch(
        self, progress: Progress = unheard
    ) -> AsyncGenerator[AsyncIterator[BucketEvent], None]:
        async with aclosing(BucketsWatcher(self._api, progress).events()) as events:
            yield events

    async def account(self) -> AccountLimits:
        return await account_limits(self._api)
