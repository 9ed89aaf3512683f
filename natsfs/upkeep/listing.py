"""Everything that a bucket says of its objects, at one moment or for as long as somebody looks.

Concurrency: `follow` feeds a `Listing` from one task; between two awaits it is consistent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from natsfs.progress import Counted, Progress, unheard
from natsfs.store.base import ObjectStore
from natsfs.store.model import (
    CaughtUp,
    Malformed,
    ObjectInfo,
    Restarted,
    Updated,
    WatchEvent,
)


@dataclass(slots=True)
class Listing:
    """What a bucket holds, by meta subject: objects and tombstones in *found*, and why a meta
    cannot be understood in *malformed*."""

    found: dict[str, ObjectInfo] = field(default_factory=dict)
    malformed: dict[str, str] = field(default_factory=dict)
    _owners: Counter[str] = field(default_factory=Counter)

    def owns(self, nuid: str) -> bool:
        """Whether an object has the version *nuid*."""
        return self._owners[nuid] > 0

    def feed(self, event: WatchEvent) -> None:
        """Take note of *event*."""
        match event:
            case Restarted():
                self.found.clear()
                self.malformed.clear()
                self._owners.clear()
            case Updated(info):
                self._drop(info.subject)
                self.found[info.subject] = info
                self._owners[_version(info)] += 1
            case Malformed(subject, _, reason):
                self._drop(subject)
                self.malformed[subject] = reason
            case CaughtUp():
                pass

    def _drop(self, subject: str) -> None:
        self.malformed.pop(subject, None)
        old = self.found.pop(subject, None)
        if old is not None:
            self._owners[_version(old)] -= 1


class Following:
    """A `Listing` that stays true."""

    def __init__(self, progress: Progress) -> None:
        self._counted = Counted(progress)
        self._listing = Listing()
        self._complete = trio.Event()

    async def listing(self) -> Listing:
        """The listing, as soon as it is complete: after a lost connection that takes a while."""
        await self._complete.wait()
        return self._listing

    async def run(self, store: ObjectStore) -> None:
        """Follow *store* until cancelled.  Errors: those of `ObjectStore.watch`."""
        async with store.watch() as events:
            async for event in events:
                if isinstance(event, Restarted) and self._complete.is_set():
                    self._complete = trio.Event()
                self._listing.feed(event)
                self._counted.feed(event)
                if isinstance(event, CaughtUp):
                    self._complete.set()


async def list_bucket(store: ObjectStore, progress: Progress = unheard) -> Listing:
    """What *store* holds now.  Errors: those of `ObjectStore.watch`."""
    listing, counted = Listing(), Counted(progress)
    async with store.watch() as events:
        async for event in events:
            listing.feed(event)
            counted.feed(event)
            if isinstance(event, CaughtUp):
                break
    return listing


@asynccontextmanager
async def follow(store: ObjectStore, progress: Progress = unheard) -> AsyncIterator[Following]:
    """A listing of *store* that stays true while the context lasts.

    Errors: those of `ObjectStore.watch`, in an exception group.
    """
    following = Following(progress)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(following.run, store)
        yield following
        nursery.cancel_scope.cancel()


def _version(info: ObjectInfo) -> str:
    """The version that *info* keeps alive; empty for none."""
    return "" if info.deleted else info.nuid
