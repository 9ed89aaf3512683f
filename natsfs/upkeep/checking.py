"""Whether every object of a bucket can be read in full, and putting aside those that cannot.

Concurrency: several objects are read at once.  A version that is replaced or removed while it is
being read is left to those who did that.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import trio

from natsfs.errors import (
    ChunkMissing,
    DigestMismatch,
    ExistsError,
    InvalidArgument,
    MalformedMeta,
    NameTooLongError,
    NotFoundError,
    StaleVersion,
)
from natsfs.filesystem.attributes import is_hard_link
from natsfs.progress import Progress, unheard
from natsfs.store.base import GET_WINDOW, ObjectStore, check_digest
from natsfs.store.model import ObjectInfo
from natsfs.upkeep.listing import Listing, list_bucket

log = logging.getLogger(__name__)

#: Where damaged objects are put, as on other file systems.
QUARANTINE = "lost+found/"

#: Objects that are read at once: the round trips of small ones hide each other.
AT_ONCE = 4


@dataclass(slots=True)
class Problem:
    """Something wrong with the object *name*, in words.

    *kind* is "unreadable" (its meta), "chunks" (missing), "digest", "link" (a hard link to nothing)
    or "shared" (a version that two names have).  *moved_to* is its name in quarantine.
    """

    kind: str
    name: str
    text: str
    moved_to: str = ""


@dataclass(slots=True)
class Verdict:
    """The outcome: how many objects and bytes were checked, what is wrong, and how many versions
    have no object, which is no damage."""

    objects: int = 0
    size: int = 0
    problems: list[Problem] = field(default_factory=list)
    unowned: int = 0


@dataclass(frozen=True, slots=True)
class Stages:
    """Who is told how far a `Checker` is: with counting what is stored, listing objects, comparing
    the two, reading (in bytes), and putting aside what is damaged."""

    counting: Progress = unheard
    listing: Progress = unheard
    comparing: Progress = unheard
    reading: Progress = unheard
    moving: Progress = unheard


class Checker:
    """Checks the objects of one bucket whose names *covers* accepts.

    Without *data* only the number of chunks of each is compared with what is there.
    """

    def __init__(
        self,
        store: ObjectStore,
        covers: Callable[[str], bool],
        stages: Stages = Stages(),
        *,
        data: bool = True,
    ) -> None:
        self._store = store
        self._covers = covers
        self._stages = stages
        self._data = data
        self._verdict = Verdict()
        self._total = 0

    async def run(self, *, repair: bool = False) -> Verdict:
        """What is wrong; with *repair*, damaged objects are renamed into `QUARANTINE`, which
        changes metas only.  Errors: those of the store."""
        counts = await self._store.count_chunks(self._stages.counting)
        listing = await list_bucket(self._store, self._stages.listing)
        verdict = self._verdict
        verdict.unowned = sum(not listing.owns(nuid) for nuid in counts)
        verdict.problems += [
            Problem("unreadable", subject, reason) for subject, reason in listing.malformed.items()
        ]
        objects = [info for info in listing.found.values() if self._wanted(info)]
        verdict.objects = len(objects)
        verdict.problems += _shared(objects)
        verdict.problems += _dangling(objects, listing)
        sound = await self._compare(objects, counts)
        if self._data:
            await self._read_all(sound)
        if repair:
            await self._put_damaged_aside({info.name: info for info in objects})
        return verdict

    async def _compare(
        self, objects: list[ObjectInfo], counts: Mapping[str, int]
    ) -> list[ObjectInfo]:
        """Those of *objects* whose chunks are all there."""
        sound = []
        for number, info in enumerate(objects, 1):
            if await self._is_there(info, counts):
                sound.append(info)
            self._stages.comparing(number, len(objects))
        return sound

    def _wanted(self, info: ObjectInfo) -> bool:
        return not info.deleted and self._covers(info.name)

    async def _is_there(self, info: ObjectInfo, counts: Mapping[str, int]) -> bool:
        """Whether the version has as many chunks as its meta says.  The *counts* are from before
        the listing, so what they lack is asked for again."""
        if info.link is not None or counts.get(info.nuid, 0) >= info.chunks:
            return True
        try:
            found = (await self._store.inspect_chunks(info.nuid)).count
        except (NotFoundError, InvalidArgument):
            found = 0
        if found < info.chunks and await self._is_current(info):
            text = f"{info.chunks - found} of {info.chunks} chunks are missing"
            self._verdict.problems.append(Problem("chunks", info.name, text))
        return found >= info.chunks

    async def _is_current(self, info: ObjectInfo) -> bool:
        try:
            return (await self._store.get_info_at(info.subject)).nuid == info.nuid
        except (NotFoundError, MalformedMeta):
            return False

    # -- reading ----------------------------------------------------------------------------------

    async def _read_all(self, objects: list[ObjectInfo]) -> None:
        self._total = sum(info.size for info in objects)
        waiting = iter(objects)

        async def worker() -> None:
            for info in waiting:
                await self._judge(info)

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(worker)

    async def _judge(self, info: ObjectInfo) -> None:
        try:
            await self._read(info)
        except StaleVersion:
            log.info("%r was changed while it was checked", info.name)
        except ChunkMissing as error:
            self._verdict.problems.append(Problem("chunks", info.name, str(error)))
        except DigestMismatch as error:
            self._verdict.problems.append(Problem("digest", info.name, str(error)))

    async def _read(self, info: ObjectInfo) -> None:
        if info.link is not None:
            return
        digest = hashlib.sha256()
        for start in range(0, info.size, GET_WINDOW):
            piece = await self._store.read(info, start, start + GET_WINDOW)
            digest.update(piece)
            self._verdict.size += len(piece)
            self._stages.reading(self._verdict.size, self._total)
        check_digest(info, digest.digest())

    # -- repair -----------------------------------------------------------------------------------

    async def _put_damaged_aside(self, by_name: Mapping[str, ObjectInfo]) -> None:
        damaged = [one for one in self._verdict.problems if one.kind in ("chunks", "digest")]
        for number, problem in enumerate(damaged, 1):
            problem.moved_to = await self._put_aside(by_name[problem.name])
            self._stages.moving(number, len(damaged))

    async def _put_aside(self, info: ObjectInfo) -> str:
        """The name in quarantine, empty if the object has changed or cannot be renamed."""
        for name in (QUARANTINE + info.name, f"{QUARANTINE}{info.nuid}"):
            try:
                if (await self._store.get_info(info.name)).nuid != info.nuid:
                    return ""
                return (await self._store.rename(info.name, name)).name
            except NotFoundError:
                return ""
            except (ExistsError, NameTooLongError, InvalidArgument) as error:
                log.info("%r cannot become %r: %s", info.name, name, error)
        return ""


def _shared(objects: list[ObjectInfo]) -> Iterator[Problem]:
    """Versions that several names have.  Deleting one of them takes the bytes from the others."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for info in objects:
        if info.link is None and info.chunks:
            names[info.nuid].append(info.name)
    for first, *others in (sorted(found) for found in names.values() if len(found) > 1):
        for other in others:
            text = f"has the version of {first!r}: a rename was interrupted; run it again"
            yield Problem("shared", other, text)


def _dangling(objects: list[ObjectInfo], listing: Listing) -> Iterator[Problem]:
    there = {info.name for info in listing.found.values() if not info.deleted}
    for info in objects:
        target = info.link.name if info.link is not None and is_hard_link(info) else None
        if target is not None and target not in there:
            yield Problem("link", info.name, f"is a hard link to {target!r}, which is not there")
