"""What a store of objects must be able to do itself: each call is one exchange with the server, and
compare-and-set is explicit.

The calls of the Object Store API in `base` are built from these alone, so that the JetStream and
the in-memory store cannot differ in them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from natsfs.store.model import (
    AccountLimits,
    Advisory,
    BucketStatus,
    MetaWrite,
    ObjectInfo,
    ObjectMeta,
    Upgrade,
    WatchEvent,
)


class Primitives(Protocol):
    """What an implementation of `ObjectStore` provides."""

    @property
    @abstractmethod
    def bucket(self) -> str:
        """The bucket's name."""

    @abstractmethod
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

        Chunks go to a fresh nuid with several acknowledgements in flight, bounded by bytes; the
        meta message follows when all are acknowledged.  The version replaced keeps its chunks.
        *subject* is the key of an existing object, empty for the standard one; *expected* as in
        `MetaWrite`.  Pieces of *source* may have any size.

        Errors: `WrongRevision` (chunks are purged again), `NoSpaceError`, `QuotaExceededError`,
        `ReadOnlyError`, `NameTooLongError`, `InvalidArgument` (empty name).  An error of *source*
        passes through after the chunks were purged.  A lost answer is resolved by reading back.
        """

    @abstractmethod
    async def commit(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        """Publish meta messages, in order, and return their infos as stored.

        All or nothing where the bucket allows atomic batches (up to 1,000 messages); otherwise one
        after the other, ending at the first error, so callers put new names before tombstones.

        Errors: `WrongRevision` with the name that was not as expected, and those of `upload`.
        """

    @abstractmethod
    async def purge_chunks(self, nuid: str) -> int:
        """Free the chunks of a version and return how many there were.  Works in a full bucket."""

    @abstractmethod
    async def get_info(self, name: str, *, show_deleted: bool = False) -> ObjectInfo:
        """The current meta of *name*, read at the leader: it is never older than an acknowledged
        write.

        Errors: `NotFoundError` (also when deleted, unless *show_deleted*), `MalformedMeta`.
        """

    @abstractmethod
    async def get_info_at(self, subject: str) -> ObjectInfo:
        """The current meta on *subject* (an `ObjectInfo.subject`), deleted or not, at the leader.

        Errors: `NotFoundError` (no message there), `MalformedMeta`.
        """

    @abstractmethod
    async def read(self, info: ObjectInfo, start: int, stop: int) -> bytes | bytearray | memoryview:
        """The bytes [*start*, *stop*) of the version *info*, cut at its size.

        Costs the chunks that the range touches (R2), held in memory at once: callers bound the
        range.  Links are not followed.

        Errors: `StaleVersion` (the chunks are gone and the name has another version or none),
        `ChunkMissing` (they are gone and the name still has this version).
        """

    @abstractmethod
    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """The bucket's metas: `Restarted`, one `Updated` or `Malformed` for each subject,
        `CaughtUp`, then every change as it comes.  After a gap it begins with `Restarted` again, so
        it is always complete except for purges, which no watch shows (protocol.md 1.7).

        The iterator does not end by itself; `BucketNotFoundError` is raised from it when the stream
        is deleted.
        """

    @abstractmethod
    def advisories(self) -> AbstractAsyncContextManager[AsyncIterator[Advisory]]:
        """What the server tells of requests that no watch shows, from the moment of entering on.

        It tells without promise: nothing while the connection is away, nothing to credentials that
        may not hear of it, nothing across accounts.  Whoever needs certainty compares.
        """

    @abstractmethod
    async def count_metas(self) -> int | None:
        """How many messages the meta subjects hold, tombstones included; a moment old perhaps.
        None where the bucket cannot be asked at a bounded cost."""

    @abstractmethod
    async def status(self) -> BucketStatus:
        """The bucket's stream as it is now."""

    @abstractmethod
    async def seal(self) -> None:
        """Make the bucket read-only for ever.  Sealing a sealed bucket does nothing."""

    @abstractmethod
    async def upgrade(self, *, dry_run: bool = False) -> Upgrade:
        """Switch on what natsfs gives the buckets that it creates (`streams.FEATURES`) and this one
        lacks; nothing else changes.  With *dry_run* nothing does.

        Errors: `ReadOnlyError` (sealed or a mirror).
        """

    @abstractmethod
    async def account(self) -> AccountLimits:
        """The storage of the account that the bucket belongs to."""
