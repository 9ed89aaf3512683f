"""What a store of objects must be able to do itself: each call is one exchange with the server, and
compare-and-set is explicit.

The calls of the Object Store API in `base` are built from these alone, so that the JetStream and
the in-memory store cannot differ in them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from natsfs.errors import NatsfsError, WrongRevision
from natsfs.progress import Progress, unheard
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

#: Decides the metas of an upload when its chunks are stored or on their way.  It is given the
#: version (name, nuid, size, chunks, digest, no subject), whose own meta has to be the last of its
#: answer, and is asked again, with the error, whenever a compare-and-set of its answer was lost:
#: only metas are stored again then.  Without atomic batches those before the one that was lost are
#: stored.
Place = Callable[[ObjectInfo, WrongRevision | None], Awaitable[Sequence[MetaWrite]]]


#: Bytes that nobody may change any more.
Data = bytes | bytearray | memoryview


class Draft(Protocol):
    """A version that is being stored while its bytes come.  It has a nuid and no name, so nobody
    sees it (W2) until `commit` succeeds, which ends it.

    One call at a time.  Chunks have several acknowledgements in flight, bounded by bytes.  After an
    error or a cancelled call it still has all that it was given, and any call may be made again; a
    lost answer is resolved by reading back.
    """

    @property
    @abstractmethod
    def nuid(self) -> str:
        """Identifies the version."""

    @property
    @abstractmethod
    def acknowledged(self) -> int:
        """How many bytes from the start on the server has confirmed.  The rest has to be kept."""

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether chunks of it may be in the bucket."""

    @property
    @abstractmethod
    def uncertain(self) -> bool:
        """Whether a failed commit may have given it a name: its chunks then may not be purged."""

    @abstractmethod
    def stored(self) -> ObjectInfo:
        """What is acknowledged, as a version without name, subject and digest that can be read."""

    @abstractmethod
    async def write(self, data: Data) -> None:
        """Append *data*, which nobody may change any more.  Returns when no more than a window of
        bytes is not acknowledged.

        Errors: `NoSpaceError`, `QuotaExceededError`, `ReadOnlyError`.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Store every full chunk.  Errors: as `write`."""

    @abstractmethod
    async def commit(self, name: str, place: Place) -> tuple[ObjectInfo, ...]:
        """Store the rest of the bytes, after which none can be appended, then the metas that
        *place* decides for the version, which is to be object *name*; return their infos, with
        estimated times as those of `Primitives.commit`.

        Errors: those of *place*, of `write` and of `Primitives.commit` but for `WrongRevision`,
        which *place* is told of; `ChunkMissing` (another client freed chunks of a draft that was
        begun long ago).
        """

    @abstractmethod
    async def abandon(self) -> None:
        """Free the chunks, unless it is `uncertain`.  Takes a bounded time and raises nothing: what
        is left over then is logged."""


class Primitives(Protocol):
    """What an implementation of `ObjectStore` provides."""

    @property
    @abstractmethod
    def bucket(self) -> str:
        """The bucket's name."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """The bucket that changes are for (`BucketStatus.identity`): that which the newest watch
        tells of, and before any, that which was opened.  Another one of its name is left alone:
        drafts that were begun before it was watched, and changes that are on their way when that is
        found, fail with `ReplacedBucket`."""

    @property
    @abstractmethod
    def timeout(self) -> float:
        """Seconds that one call may wait for its answer, reconnecting included."""

    @property
    @abstractmethod
    def patient(self) -> bool:
        """Whether calls wait on when that time is over (A5, `hard`)."""

    @abstractmethod
    def draft(self, name: str, *, max_chunk_size: int = 0) -> Draft:
        """A version whose bytes are yet to come.  *name* is for messages; *max_chunk_size* is 0 for
        the default.  Nothing is sent yet.

        Errors: `ReadOnlyError` (a mirror), `InvalidArgument` (empty name, chunk size).
        """

    @abstractmethod
    async def commit(self, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        """Publish meta messages, in order, and return their infos as stored, but for their times.

        The server acknowledges a revision and no time, so `time_ns` is this host's estimate of its
        clock.  Whoever needs the server's waits for the watch to tell of that revision, or asks
        `get_info_at`.

        All or nothing where the bucket allows atomic batches (up to 1,000 messages); otherwise one
        after the other, ending at the first error, so callers put new names before tombstones.

        Errors: `WrongRevision` with the name that was not as expected, `NoSpaceError`,
        `QuotaExceededError`, `ReadOnlyError`, `NameTooLongError`, `InvalidArgument` (empty name),
        `NotSent` (a `ConnectionLost` after which nothing of it has happened).
        """

    @abstractmethod
    async def purge_chunks(self, nuid: str) -> int:
        """Free the chunks of a version and return how many there were.  Works in a full bucket."""

    @abstractmethod
    async def count_chunks(self, progress: Progress = unheard) -> Mapping[str, int]:
        """How many messages there are for each nuid that has any, owned by an object or not.
        *progress* is told how many nuids are known of how many.

        What is stored meanwhile may be missing, and nothing is told that was not there.  The server
        sorts all subjects for it: seconds and some 100 bytes each in a bucket of a million.
        """

    @abstractmethod
    async def inspect_chunks(self, nuid: str) -> ChunkSet:
        """What is stored for *nuid*.  Costs the server two messages, whatever their number.

        Errors: `NotFoundError` (nothing is), `InvalidArgument` (no nuid).
        """

    @abstractmethod
    async def purge_meta(self, subject: str, revision: int) -> int:
        """Drop the meta messages on *subject* up to *revision*, newer ones stay; return how many
        there were.  No watch tells of it (see `advisories`): it is for tombstones."""

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

    async def read_small(self, infos: Sequence[ObjectInfo]) -> list[Data | None]:
        """All bytes of each of the versions *infos*, one chunk each as a rule, in one exchange
        where that can be.  None for what it did not bring, for whatever reason: `read` would tell.
        """
        found: list[Data | None] = []
        for info in infos:
            try:
                found.append(await self.read(info, 0, info.size))
            except NatsfsError:
                found.append(None)
        return found

    @abstractmethod
    def watch(self, after: int = 0) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """The bucket's metas: `Restarted`, one `Updated` or `Malformed` for each subject,
        `CaughtUp`, then every change as it comes.  After a gap it begins with `Restarted` again, so
        it is always complete except for purges, which no watch shows (protocol.md 1.7).

        With *after*, a revision that the bucket has reached, it begins with `Resumed` and leaves
        out what is not newer.

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
    async def survey(self, revision: int = 1) -> Survey | None:
        """How many messages the meta subjects hold from *revision* on, tombstones included; a
        moment old perhaps.  None where the bucket cannot be asked at a bounded cost."""

    @property
    def watch_may_skip(self) -> bool:
        """Whether the server is known to leave out messages now and then, so that a watch has to
        begin again once in a while to be complete."""
        return False

    async def count_metas(self) -> int | None:
        """`Survey.count` of all of them."""
        survey = await self.survey()
        return None if survey is None else survey.count

    @abstractmethod
    async def status(self) -> BucketStatus:
        """The bucket's stream as it is now."""

    @abstractmethod
    async def seal(self) -> None:
        """Make the bucket read-only for ever.  Sealing a sealed bucket does nothing."""

    @abstractmethod
    async def upgrade(self, *, dry_run: bool = False) -> Upgrade:
        """Switch on what natsfs gives the buckets that it creates (`streams.FEATURES`) and this one
        lacks; nothing else changes.  With *dry_run* nothing does, and what the server is too old
        for is *refused*.

        Errors: `ReadOnlyError` (sealed or a mirror).
        """

    @abstractmethod
    async def account(self) -> AccountLimits:
        """The storage of the account that the bucket belongs to."""
