"""The Object Store API for trio: what natsfs, or any other program, needs from a bucket.

An implementation provides the `Primitives`; the calls of the Object Store API (ADR-20) stand here
and are built from these alone.

Every call may raise `RequestTimeout` (no answer within the store's time-out), `ConnectionLost`
(no connection came back within it), `PermissionsError` (the credentials may not) and
`BucketNotFoundError` (the stream is gone); the docstrings name the other errors.  Every call may be
cancelled; a cancelled write may or may not have happened.
"""

from __future__ import annotations

import hashlib
import logging
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

from natsfs.errors import (
    DigestMismatch,
    ExistsError,
    InvalidArgument,
    MalformedMeta,
    NoSpaceError,
    NotFoundError,
    QuotaExceededError,
    WrongRevision,
)
from natsfs.progress import Progress, unheard
from natsfs.store.contention import Contention
from natsfs.store.model import (
    NOTHING,
    AccountLimits,
    BucketConfig,
    BucketEvent,
    BucketStatus,
    CaughtUp,
    Link,
    Malformed,
    MetaWrite,
    ObjectInfo,
    ObjectMeta,
    Restarted,
    Updated,
)
from natsfs.store.primitives import Place, Primitives
from natsfs.store.wire import meta_subject, parse_digest

log = logging.getLogger(__name__)

#: How much `get` asks for at once: a window of 16 default chunks, large enough to hide a round trip
#: and small against the 64 MiB at which a server calls its reader slow (protocol.md 2.2).
GET_WINDOW = 2 * 1024 * 1024


class ObjectStore(Primitives, Protocol):
    """One bucket: the calls of the Object Store API (ADR-20), and the primitives below them.

    What a call has written comes back with an estimate of the server's time, see `commit`.
    """

    async def refusal(self) -> str | None:
        """Why these credentials can store nothing in the bucket; None where they can, or where that
        does not show.  Changes nothing."""
        return None

    async def upload_version(
        self,
        name: str,
        source: AsyncIterable[bytes | bytearray | memoryview],
        place: Place,
        *,
        max_chunk_size: int = 0,
    ) -> tuple[ObjectInfo, ...]:
        """Store the bytes of *source* as a version for *name*, then the metas that *place* decides,
        and return their infos.  Pieces of *source* may have any size, and may be changed when the
        next is asked for.

        Errors: those of `draft`, `Draft.write` and `Draft.commit`.  An error of *source* or *place*
        passes through after the chunks were purged.
        """
        draft = self.draft(name, max_chunk_size=max_chunk_size)
        try:
            async for piece in source:
                await draft.write(piece if isinstance(piece, bytes) else bytes(piece))
            return await draft.commit(name, place)
        except BaseException:
            await draft.abandon()
            raise

    async def upload(
        self,
        name: str,
        source: AsyncIterable[bytes | bytearray | memoryview],
        meta: ObjectMeta = ObjectMeta(),  # noqa: B008  (frozen)
        *,
        subject: str = "",
        expected: int | None = None,
    ) -> ObjectInfo:
        """Store the bytes of *source* as a new version of *name* and return its info.

        The version replaced keeps its chunks.  *subject* is the key of an existing object, empty
        for the standard one; *expected* as in `MetaWrite`.

        Errors: `WrongRevision` (the new chunks are purged again), `NameTooLongError`, those of
        `upload_version`.
        """
        subject = subject or meta_subject(self.bucket, name)

        async def place(version: ObjectInfo, lost: WrongRevision | None) -> list[MetaWrite]:
            if lost is not None:
                raise lost
            return [MetaWrite(described(replace(version, subject=subject), meta), expected)]

        size = meta.max_chunk_size
        return (await self.upload_version(name, source, place, max_chunk_size=size))[-1]

    async def put(
        self,
        name: str,
        source: AsyncIterable[bytes | bytearray | memoryview],
        meta: ObjectMeta = ObjectMeta(),  # noqa: B008  (frozen)
    ) -> ObjectInfo:
        """Store an object, replacing *name* whole, and free the chunks of what it replaced.

        Errors: those of `upload`.
        """
        try:
            old = await self._find(name)
        except MalformedMeta:
            # Whatever it is, it is replaced; nobody knows which chunks were its own.
            old = None
        info = await self.upload(name, source, meta, subject=old.subject if old else "")
        await self._free(old)
        return info

    async def get(self, name: str) -> AsyncIterator[bytes | bytearray | memoryview]:
        """The bytes of an object in pieces, verified against its digest at the end; object links
        are followed one hop within the bucket.

        Errors: `NotFoundError`, `InvalidArgument` (a link out of the bucket or to a link),
        `DigestMismatch` (after the last piece), those of `read`.
        """
        info = await self.resolve(await self.get_info(name))
        digest = hashlib.sha256()
        for start in range(0, info.size, GET_WINDOW):
            piece = await self.read(info, start, start + GET_WINDOW)
            digest.update(piece)
            yield piece
        check_digest(info, digest.digest())

    async def get_range(self, name: str, start: int, length: int) -> bytes | bytearray | memoryview:
        """*length* bytes of an object from *start*, fewer at its end.  Unverified: a digest covers
        whole objects only.

        Errors: those of `get` but for the digest; `InvalidArgument` for a negative number.
        """
        if start < 0 or length < 0:
            raise InvalidArgument(f"range {start}+{length} of {name!r}")
        info = await self.resolve(await self.get_info(name))
        return await self.read(info, start, start + length)

    async def resolve(self, info: ObjectInfo) -> ObjectInfo:
        """*info*, or what it links to.  Errors: `NotFoundError`, `InvalidArgument` (see `get`)."""
        if info.link is None:
            return info
        if info.link.name is None or info.link.bucket != self.bucket:
            raise InvalidArgument(f"{info.name!r} is a link out of bucket {self.bucket!r}")
        target = await self.get_info(info.link.name)
        if target.link is not None:
            raise InvalidArgument(f"{info.name!r} is a link to the link {target.name!r}")
        return target

    async def update_meta(
        self,
        name: str,
        *,
        new_name: str | None = None,
        description: str | None = None,
        headers: Mapping[str, tuple[str, ...]] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Change what is given and keep the rest, data and unknown fields included.

        A compare-and-set loop: a foreign change in between is kept, not overwritten.  A *new_name*
        renames, see `rename`.

        Errors: `NotFoundError`, `ExistsError` (*new_name* is taken), `RequestTimeout` (also when
        others were faster for as long as that), those of `commit`.
        """
        contention = Contention(self)
        while True:
            old = await self.get_info(name)
            new = replace(
                old,
                description=old.description if description is None else description,
                headers=old.headers if headers is None else headers,
                metadata=old.metadata if metadata is None else metadata,
            )
            try:
                if new_name is not None and new_name != name:
                    return await self._move(old, new, new_name)
                return (await self.commit([MetaWrite(new, old.revision)]))[0]
            except WrongRevision as error:
                await contention.lost(error)

    async def rename(self, name: str, new_name: str) -> ObjectInfo:
        """Give an object another name; its chunks stay where they are.

        Errors: `NotFoundError`, `ExistsError` (*new_name* is taken), those of `commit`.
        """
        return await self.update_meta(name, new_name=new_name)

    async def delete(self, name: str) -> None:
        """Replace an object by a tombstone and free its chunks.

        In a full bucket the chunks go first: there even a tombstone is refused (protocol.md 2.7).

        Errors: `NotFoundError`, those of `commit`.
        """
        contention = Contention(self)
        while True:
            old = await self.get_info(name)
            try:
                await self._bury(old)
            except WrongRevision as error:
                await contention.lost(error)
            else:
                await self._free(old)
                return

    async def add_link(
        self,
        name: str,
        target: ObjectInfo,
        meta: ObjectMeta = ObjectMeta(),  # noqa: B008
    ) -> ObjectInfo:
        """Make *name* a link to the object *target*, which may be in another bucket.

        Errors: `NotFoundError` (*target* is deleted), `InvalidArgument` (*target* is itself a
        link), `ExistsError` (*name* is an object that is no link), those of `commit`.
        """
        if target.deleted:
            raise NotFoundError(f"link target {target.name!r} is deleted")
        if target.link is not None:
            raise InvalidArgument(f"link target {target.name!r} is itself a link")
        return await self._add_link(name, Link(target.bucket, target.name), meta)

    async def add_bucket_link(
        self,
        name: str,
        bucket: str,
        meta: ObjectMeta = ObjectMeta(),  # noqa: B008
    ) -> ObjectInfo:
        """Make *name* a link to a whole bucket.  Errors: as `add_link`."""
        return await self._add_link(name, Link(bucket), meta)

    async def list(self, *, show_deleted: bool = False) -> list[ObjectInfo]:
        """Every object, in the order of last change.  A meta that cannot be understood is logged
        and left out; `watch` reports it as `Malformed`."""
        found: dict[str, ObjectInfo] = {}
        async with self.watch() as events:
            async for event in events:
                match event:
                    case Restarted():
                        found.clear()
                    case Updated(info):
                        found.pop(info.subject, None)
                        found[info.subject] = info
                    case Malformed(subject, _, reason):
                        log.warning("left out of the listing: %s: %s", subject, reason)
                    case CaughtUp():
                        break
        return [info for info in found.values() if show_deleted or not info.deleted]

    # -- shared steps ------------------------------------------------------------------------------

    async def _find(self, name: str) -> ObjectInfo | None:
        try:
            return await self.get_info(name, show_deleted=True)
        except NotFoundError:
            return None

    async def _free(self, old: ObjectInfo | None) -> None:
        """Purge what a change left behind.  The change itself is done by then."""
        if old is not None and old.chunks and old.nuid and not old.deleted:
            await self.purge_chunks(old.nuid)

    async def _bury(self, old: ObjectInfo) -> None:
        write = MetaWrite(tombstone(old), old.revision)
        try:
            await self.commit([write])
        except (NoSpaceError, QuotaExceededError):
            await self._free(old)
            await self.commit([write])

    async def _move(self, old: ObjectInfo, new: ObjectInfo, new_name: str) -> ObjectInfo:
        target = await self._find(new_name)
        if target is not None and not target.deleted:
            raise ExistsError(f"object {new_name!r} exists in bucket {self.bucket!r}")
        moved = replace(new, name=new_name, subject=target.subject if target else "")
        stored = await self.commit(
            [
                MetaWrite(moved, target.revision if target else 0),
                MetaWrite(tombstone(old), old.revision),
            ]
        )
        return stored[0]

    async def _add_link(self, name: str, link: Link, meta: ObjectMeta) -> ObjectInfo:
        old = await self._find(name)
        if old is not None and not old.deleted and old.link is None:
            raise ExistsError(f"object {name!r} exists in bucket {self.bucket!r}")
        subject = old.subject if old else ""
        info = described(ObjectInfo(name, self.bucket, subject, link=link), meta)
        return (await self.commit([MetaWrite(info, old.revision if old else 0)]))[0]


class ObjectStoreManager(Protocol):
    """The buckets of one account on one server."""

    @property
    @abstractmethod
    def patient(self) -> bool:
        """`ObjectStore.patient` of all of them."""

    @abstractmethod
    async def create(self, config: BucketConfig) -> ObjectStore:
        """Create a bucket, with atomic batches and message TTLs where the server has them.

        Errors: `ExistsError` (also with the same settings), `InvalidArgument` (name or setting),
        `NoSpaceError`, `QuotaExceededError`.
        """

    @abstractmethod
    async def bind(self, bucket: str) -> ObjectStore:
        """An existing bucket.  Errors: `BucketNotFoundError`, `InvalidArgument` (name)."""

    @abstractmethod
    async def delete(self, bucket: str) -> None:
        """Delete a bucket with all that is in it.  Errors: `BucketNotFoundError`."""

    @abstractmethod
    def opened(self, status: BucketStatus) -> ObjectStore:
        """The bucket that *status* describes, without asking whether it still exists."""

    @abstractmethod
    async def list(self, progress: Progress = unheard) -> list[BucketStatus]:
        """Every bucket that the user may see, sorted by name; *progress* is told of streams."""

    @abstractmethod
    def watch(
        self, progress: Progress = unheard
    ) -> AbstractAsyncContextManager[AsyncIterator[BucketEvent]]:
        """The buckets that the user may see: a `BucketCreated` for each, `BucketsListed`, then what
        is created and deleted, at once where the user may hear of it, else within a minute; after a
        lost connection, only what differs.  It does not end by itself.  *progress* as in `list`."""

    @abstractmethod
    async def account(self) -> AccountLimits:
        """The storage of the account."""


def tombstone(info: ObjectInfo) -> ObjectInfo:
    """What a delete leaves in place of *info* (ADR-20): same name, subject and nuid, no content."""
    return ObjectInfo(
        name=info.name,
        bucket=info.bucket,
        subject=info.subject,
        nuid=info.nuid,
        max_chunk_size=info.max_chunk_size,
        deleted=True,
        metadata=NOTHING,
    )


def described(info: ObjectInfo, meta: ObjectMeta) -> ObjectInfo:
    """*info*, saying besides its bytes what *meta* says."""
    return replace(
        info,
        description=meta.description,
        headers=meta.headers,
        metadata=meta.metadata,
        extra=meta.extra,
    )


def check_digest(info: ObjectInfo, sha256: bytes) -> None:
    """Raise `DigestMismatch` unless *sha256* is what *info* promises.  A meta without a readable
    digest promises nothing."""
    promised = parse_digest(info.digest)
    if promised is not None and promised != sha256:
        raise DigestMismatch(
            f"object {info.name!r} version {info.nuid}: SHA-256 is {sha256.hex()}, "
            f"its meta says {promised.hex()}"
        )
