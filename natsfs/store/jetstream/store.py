"""One bucket over JetStream: `ObjectStore` put together from its parts.

Concurrency: any number of tasks may use a store at once.  Its own state is a bounded memory of
chunk layouts, which belong to immutable versions, and the last status (see `bucket`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

from natsfs.errors import (
    InvalidArgument,
    NotFoundError,
    PermissionsError,
    ReadOnlyError,
    ServerRefused,
)
from natsfs.progress import Progress, unheard
from natsfs.store.base import ObjectStore
from natsfs.store.jetstream.advisories import listen
from natsfs.store.jetstream.api import Api
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.jetstream.census import count_chunks, count_metas, inspect_chunks
from natsfs.store.jetstream.commit import Committer
from natsfs.store.jetstream.draft import JetStreamDraft
from natsfs.store.jetstream.reader import ChunkReader
from natsfs.store.jetstream.watch import Watcher
from natsfs.store.model import (
    AccountLimits,
    Advisory,
    BucketStatus,
    ChunkSet,
    MetaWrite,
    ObjectInfo,
    Survey,
    Upgrade,
    WatchEvent,
)
from natsfs.store.primitives import Data, Draft
from natsfs.store.streams import FEATURES_SINCE, lacking, parse_account
from natsfs.store.wire import chunk_subject, meta_subject

#: The first servers whose consumers of a stream with replicas deliver everything.  With 2.9.10,
#: while the leader changed and 80 metas were written, one of 40 names stayed unseen in most runs;
#: with 2.10.26 and later in none.
WHOLE_CONSUMERS = (2, 10, 0)


class JetStreamStore(ObjectStore):
    """A bucket on a server.  Made by `JetStreamManager`."""

    def __init__(self, api: Api, status: BucketStatus) -> None:
        self._api = api
        self._bucket = Bucket(api, status)
        self._committer = Committer(self._bucket)
        self._reader = ChunkReader(self._bucket)

    @property
    def bucket(self) -> str:
        return self._bucket.name

    @property
    def identity(self) -> str:
        return self._bucket.identity

    @property
    def timeout(self) -> float:
        return self._api.timeout

    @property
    def patient(self) -> bool:
        return self._api.session.patient

    def draft(self, name: str, *, max_chunk_size: int = 0) -> Draft:
        self._bucket.check_writable()
        return JetStreamDraft(self._bucket, self._committer, self._reader, name, max_chunk_size)

    async def commit(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        self._bucket.check_writable()
        return await self._committer.commit(writes)

    async def refusal(self) -> str | None:
        return await self._committer.refusal()

    async def purge_chunks(self, nuid: str) -> int:
        self._bucket.check_writable()
        return await self._committer.purge(chunk_subject(self.bucket, nuid))

    async def count_chunks(self, progress: Progress = unheard) -> Mapping[str, int]:
        return await count_chunks(self._bucket, progress)

    async def inspect_chunks(self, nuid: str) -> ChunkSet:
        return await inspect_chunks(self._bucket, nuid)

    async def purge_meta(self, subject: str, revision: int) -> int:
        self._bucket.check_writable()
        return await self._committer.purge(subject, revision)

    async def get_info(self, name: str, *, show_deleted: bool = False) -> ObjectInfo:
        subject = meta_subject(self._bucket.subjects, name)
        try:
            info = await self._bucket.last_info(subject)
        except NotFoundError:
            info = None
        if info is None or (info.deleted and not show_deleted):
            raise NotFoundError(f"no object {name!r} in bucket {self.bucket!r}")
        return info

    async def get_info_at(self, subject: str) -> ObjectInfo:
        return await self._bucket.last_info(subject)

    async def read(self, info: ObjectInfo, start: int, stop: int) -> bytes | bytearray | memoryview:
        return await self._reader.read(info, start, stop)

    async def read_small(self, infos: Sequence[ObjectInfo]) -> list[Data | None]:
        return await self._reader.read_small(infos)

    @asynccontextmanager
    async def watch(self, after: int = 0) -> AsyncGenerator[AsyncIterator[WatchEvent], None]:
        async with aclosing(Watcher(self._bucket, after).events()) as events:
            yield events

    @asynccontextmanager
    async def advisories(self) -> AsyncGenerator[AsyncIterator[Advisory], None]:
        async with listen(self._bucket) as advisories:
            yield advisories

    async def survey(self, revision: int = 1) -> Survey | None:
        return await self._bucket.survey(revision)

    @property
    def watch_may_skip(self) -> bool:
        version = self._api.session.server_version
        old = version is not None and version < WHOLE_CONSUMERS
        return old and self._bucket.status.replicas > 1

    async def count_metas(self) -> int | None:
        counted = await super().count_metas()
        return await count_metas(self._bucket) if counted is None else counted

    async def status(self) -> BucketStatus:
        return await self._bucket.refresh()

    async def seal(self) -> None:
        what, stream = f"bucket {self.bucket!r}", self._bucket.stream
        info = await self._api.ask(what, f"STREAM.INFO.{stream}")
        if not info["config"].get("sealed"):
            config = {**info["config"], "sealed": True}
            await self._api.ask(what, f"STREAM.UPDATE.{stream}", config)

    async def upgrade(self, *, dry_run: bool = False) -> Upgrade:
        what, stream = f"bucket {self.bucket!r}", self._bucket.stream
        config = (await self._api.ask(what, f"STREAM.INFO.{stream}"))["config"]
        self._bucket.check_writable()
        wanted = lacking(config)
        if config.get("sealed"):
            raise ReadOnlyError(f"{what} is sealed: nothing about it can be changed")
        if dry_run:
            return self._planned(wanted)
        refused: dict[str, str] = {}
        for feature in wanted:
            # One by one: a server refuses all for the sake of one that it does not know.  The rest
            # of its own configuration goes back as it came, unknown fields included.
            try:
                updated = {**config, feature: True}
                answer = await self._api.ask(what, f"STREAM.UPDATE.{stream}", updated)
                config = answer["config"]
            except (ServerRefused, InvalidArgument) as error:
                refused[feature] = str(error)
            else:
                if feature in lacking(config):
                    # Servers before 2.12 ignore what they do not know.
                    refused[feature] = "the server does not offer it"
        await self._bucket.refresh()
        return Upgrade(tuple(f for f in wanted if f not in refused), refused)

    def _planned(self, wanted: Sequence[str]) -> Upgrade:
        """What of *wanted* the server that the session is connected to knows."""
        version = self._api.session.server_version
        since = {feature: FEATURES_SINCE.get(feature, (0, 0, 0)) for feature in wanted}
        unknown = [f for f in wanted if version is not None and version < since[f]]
        shown = ".".join(map(str, version or ()))
        return Upgrade(
            tuple(feature for feature in wanted if feature not in unknown),
            dict.fromkeys(unknown, f"nats-server {shown} does not offer it"),
        )

    async def account(self) -> AccountLimits:
        return await account_limits(self._api)


async def account_limits(api: Api) -> AccountLimits:
    """The storage of the session's account, without limits where the credentials may not ask for
    it.  Errors: those of `Api.ask`."""
    try:
        return parse_account(await api.ask("the account", "INFO"))
    except PermissionsError:
        return AccountLimits(0, -1, 0, -1)
