"""What a bucket keeps for nobody: chunks without an object, reservations of the dead, tombstones.

Chunks of a version that is still being written have no object either, and nothing in the bucket
tells them from those of a writer that has died, but their age.  So has a version that an object had
until a moment ago and that somebody is still reading.

Concurrency: several requests are under way at once; each object is looked at again, by a watch,
right before its chunks are purged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from natsfs.errors import NotFoundError
from natsfs.filesystem.attributes import CLAIM_KEY
from natsfs.progress import Progress, unheard
from natsfs.store.base import ObjectStore
from natsfs.store.model import ChunkSet, ObjectInfo
from natsfs.upkeep.listing import Following, Listing, follow

log = logging.getLogger(__name__)

T = TypeVar("T")
_Item = TypeVar("_Item")

#: Seconds without a new chunk after which nobody writes a version any more.  A program may keep a
#: file open for days between two lines that it writes, and the mount has sent the first of them.
CHUNK_AGE = 7 * 86400.0

#: Seconds that deleted objects stay listed (`natsfs ls --deleted`), where the bucket has no message
#: TTLs or another client deleted them.
TOMBSTONE_AGE = 30 * 86400.0

#: Seconds after which a reservation is nobody's: its owner renews it every 20 s.
CLAIM_AGE = 600.0

#: Requests under way at once: they hide each other's round trips, and 8 are no load for a server.
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Ages:
    """How old, in seconds by the server's clock, something has to be to count as garbage."""

    chunks: float = CHUNK_AGE
    tombstones: float = TOMBSTONE_AGE
    claims: float = CLAIM_AGE


@dataclass(slots=True)
class Garbage:
    """What is left over: versions without an object, reservations and tombstones that are old.

    *young* is how many versions have no object and are too young to judge, *waiting* how many files
    in a journal need.  *unreadable* are the
    subjects of metas that cannot be understood: any version may be theirs, so while there are some
    *chunks* is empty, and *unowned* says how many versions that leaves.
    """

    chunks: list[ChunkSet] = field(default_factory=list)
    claims: list[ObjectInfo] = field(default_factory=list)
    tombstones: list[ObjectInfo] = field(default_factory=list)
    young: int = 0
    waiting: int = 0
    unowned: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the chunks."""
        return sum(chunks.size for chunks in self.chunks)


@dataclass(frozen=True, slots=True)
class Stages:
    """Who is told how far a `Collector` is: with counting the versions that are stored, listing
    objects, looking at what has none, and freeing that."""

    counting: Progress = unheard
    listing: Progress = unheard
    looking: Progress = unheard
    freeing: Progress = unheard


class Collector:
    """Finds the garbage of one bucket, and removes it.

    *journaled* gives the versions of the bucket of some identity that files in journals need.
    """

    def __init__(
        self,
        store: ObjectStore,
        ages: Ages,
        journaled: Callable[[str], AbstractSet[str]] = lambda identity: frozenset(),
        stages: Stages = Stages(),
    ) -> None:
        self._store = store
        self._ages = ages
        self._journaled = journaled
        self._stages = stages

    async def run(self, *, remove: bool) -> Garbage:
        """What there is, and with *remove* was; what somebody took into use meanwhile is left out.

        Errors: those of the store and of *journaled*; `ReadOnlyError` for a sealed bucket or a
        mirror.
        """
        status = await self._store.status()
        now_ns = status.asked_ns or time.time_ns()
        # Counted before the metas are read: what is written meanwhile is then not counted.
        counts = await self._store.count_chunks(self._stages.counting)
        async with follow(self._store, self._stages.listing) as following:
            # Read after the metas: what was in a journal until then has an object now.
            listing = await following.listing()
            needed = self._journaled(status.identity)
            found = await self._find(counts, listing, needed, now_ns)
            return await self._remove(found, following) if remove else found

    async def _find(
        self, counts: Iterable[str], listing: Listing, needed: AbstractSet[str], now_ns: int
    ) -> Garbage:
        found = Garbage(unreadable=list(listing.malformed))
        for info in listing.found.values():
            if info.deleted:
                self._note_tombstone(found, info, now_ns)
        unowned = [nuid for nuid in counts if not listing.owns(nuid)]
        if found.unreadable:
            found.unowned = len(unowned)
            return found
        found.waiting = len(needed & set(unowned))
        unowned = [nuid for nuid in unowned if nuid not in needed]
        recent = {info.nuid for info in listing.found.values() if self._is_recent(info, now_ns)}
        for chunks in await _each(unowned, self._inspect, self._stages.looking):
            if chunks is None:
                continue
            if chunks.nuid in recent or _age(chunks.time_ns, now_ns) < self._ages.chunks:
                found.young += 1
            else:
                found.chunks.append(chunks)
        return found

    def _note_tombstone(self, found: Garbage, info: ObjectInfo, now_ns: int) -> None:
        age = _age(info.time_ns, now_ns)
        if CLAIM_KEY in info.metadata:
            if age >= self._ages.claims:
                found.claims.append(info)
        elif age >= self._ages.tombstones:
            found.tombstones.append(info)

    def _is_recent(self, info: ObjectInfo, now_ns: int) -> bool:
        """Whether *info* is of an object deleted so lately that somebody may still read it."""
        return info.deleted and _age(info.time_ns, now_ns) < self._ages.chunks

    async def _inspect(self, nuid: str) -> ChunkSet | None:
        try:
            return await self._store.inspect_chunks(nuid)
        except NotFoundError:
            return None

    async def _remove(self, found: Garbage, following: Following) -> Garbage:
        async def purge(chunks: ChunkSet) -> ChunkSet | None:
            if (await following.listing()).owns(chunks.nuid):
                log.info("version %s has got an object meanwhile", chunks.nuid)
                return None
            await self._store.purge_chunks(chunks.nuid)
            return chunks

        async def forget(info: ObjectInfo) -> ObjectInfo | None:
            return info if await self._store.purge_meta(info.subject, info.revision) else None

        todo = len(found.chunks) + len(found.claims) + len(found.tombstones)
        done = 0

        def freed(_done: int, _total: int) -> None:
            nonlocal done
            done += 1
            self._stages.freeing(done, todo)

        # Chunks first: in a full bucket they make room.
        return Garbage(
            chunks=_kept(await _each(found.chunks, purge, freed)),
            claims=_kept(await _each(found.claims, forget, freed)),
            tombstones=_kept(await _each(found.tombstones, forget, freed)),
            young=found.young,
            waiting=found.waiting,
            unowned=found.unowned,
            unreadable=found.unreadable,
        )


async def _each(
    items: Iterable[_Item], work: Callable[[_Item], Awaitable[T]], progress: Progress
) -> list[T]:
    """The results of *work* for all *items*, some at a time.  Errors: the first of *work*, in an
    exception group."""
    todo = list(items)
    results: list[T] = []
    waiting = iter(todo)

    async def worker() -> None:
        for item in waiting:
            results.append(await work(item))
            progress(len(results), len(todo))

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_ONCE, len(todo))):
            nursery.start_soon(worker)
    return results


def _kept(results: Iterable[T | None]) -> list[T]:
    return [result for result in results if result is not None]


def _age(time_ns: int, now_ns: int) -> float:
    return (now_ns - time_ns) / 1e9
