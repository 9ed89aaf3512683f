"""One bucket of a mount of all: asleep until somebody needs what is in it, then followed.

Asleep it costs nothing, neither here nor on the server; a look at its directory's attributes is one
request.  It wakes when something below its directory is asked for, and stays awake until it is
deleted or the mount ends.

Concurrency: however many callers wait for a bucket to wake, it is loaded once; each waits for the
mount's time-out at most, while loading goes on.  What fails in a bucket stays in it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from natsfs.errors import (
    AccessDenied,
    ConnectionLost,
    DeletedBucket,
    MalformedMeta,
    NatsfsError,
    NotFoundError,
    PermissionsError,
    RequestTimeout,
)
from natsfs.filesystem import Filesystem
from natsfs.store.base import ObjectStore
from natsfs.store.model import BucketStatus, ObjectInfo
from natsfs.tree.inodes import root_of
from natsfs.tree.nodes import ROOT_MARKER, Directory

log = logging.getLogger(__name__)

#: Seconds that a look at a sleeping bucket's attributes is good for: `ls -l` asks three times for
#: each entry within a millisecond, and nobody would notice a change later by this.
GLIMPSE_AGE = 0.1

#: Seconds that such a look waits for the server when there was one before: without a connection,
#: attributes are those that were seen last (A5).
GLIMPSE_PATIENCE = 1.0

#: Makes the filesystem of a bucket in a slot; it is not started.
Furnish = Callable[[ObjectStore, BucketStatus, int], Filesystem]


class _Waking:
    """One attempt to wake a bucket, and what became of it: the *life* that it began, or the *error*
    by which it failed, once it is *over*."""

    def __init__(self) -> None:
        self.life = trio.CancelScope()
        self.over = trio.Event()
        self.error: NatsfsError | None = None

    def end(self, error: NatsfsError | None) -> None:
        if not self.over.is_set():
            self.error = error
            self.over.set()


class Bucket:
    """A bucket that has a slot of numbers.

    *filesystem* is there while it is awake.  *on_failure* is called when it had to be given up for
    a reason that nobody foresaw: what the kernel knows of it is void.
    """

    def __init__(
        self,
        name: str,
        slot: int,
        opened: Callable[[], ObjectStore],
        furnish: Furnish,
        *,
        timeout: float,
        patient: Callable[[], bool],
        on_failure: Callable[[], None],
    ) -> None:
        self.name = name
        self.slot = slot
        self.filesystem: Filesystem | None = None
        # A mount may list thousands of buckets, and use a few: the store is opened when needed.
        self._opened = opened
        self._furnish = furnish
        self._timeout = timeout
        self._patient = patient
        self._on_failure = on_failure
        self._waking: _Waking | None = None
        #: When the marker was read last, on trio's clock, and what it was.
        self._glimpsed_at = -math.inf
        self._marker: ObjectInfo | None = None
        self._denied = False

    # -- asleep -----------------------------------------------------------------------------------

    async def glimpse(self, outer: Directory, created_ns: int) -> Directory:
        """The bucket's directory in *outer* as far as its attributes are concerned, without waking
        it.  One that may not be read looks like one that has no attributes of its own.

        Errors: `BucketNotFoundError`; while it was never looked at, those of one request.
        """
        if trio.current_time() - self._glimpsed_at > GLIMPSE_AGE:
            await self._look()
        directory = Directory(outer, self.name.encode(), self.name)
        directory.ino = root_of(self.slot)
        directory.changed = (0, created_ns)
        directory.marker = self._marker
        return directory

    async def _look(self) -> None:
        seen = self._glimpsed_at > -math.inf
        with trio.move_on_after(GLIMPSE_PATIENCE if seen else math.inf):
            try:
                self._marker = await self._read_marker()
            except (ConnectionLost, RequestTimeout) as error:
                if not seen:
                    raise
                log.debug("bucket %s shows the attributes that it had: %s", self.name, error)
            self._glimpsed_at = trio.current_time()

    async def _read_marker(self) -> ObjectInfo | None:
        try:
            return await self._opened().get_info(ROOT_MARKER)
        except (NotFoundError, MalformedMeta, PermissionsError) as error:
            log.debug("bucket %s shows no attributes: %s", self.name, error)
            return None

    # -- awake ------------------------------------------------------------------------------------

    async def awake(self, nursery: trio.Nursery) -> Filesystem:
        """The bucket's filesystem, its tree complete; it lives in *nursery*.

        Errors: `AccessDenied`, `RequestTimeout` (it is still loading), `DeletedBucket`, those of
        `Filesystem.start`.
        """
        if self.filesystem is not None:
            return self.filesystem
        if self._waking is None:
            self._waking = _Waking()
            nursery.start_soon(self._live, self._waking)
        waking = self._waking
        await self._wait_for(waking)
        if waking.error is not None:
            raise waking.error
        if self.filesystem is None:
            raise DeletedBucket(f"bucket {self.name} was deleted when it was loaded")
        return self.filesystem

    async def _wait_for(self, waking: _Waking) -> None:
        """Errors: `RequestTimeout`."""
        while not waking.over.is_set():
            with trio.move_on_after(self._timeout) as waiting:
                await waking.over.wait()
            if waiting.cancelled_caught and not self._patient():
                raise RequestTimeout(f"bucket {self.name} is not loaded within {self._timeout:g} s")

    def close(self) -> None:
        """The bucket was deleted: stop following it.  What could not be saved is lost, and said."""
        if self._waking is not None:
            self._waking.life.cancel()
            self._waking.end(DeletedBucket(f"bucket {self.name} was deleted"))
        filesystem, self.filesystem = self.filesystem, None
        if filesystem is not None:
            self._abandon(filesystem)

    async def _live(self, waking: _Waking) -> None:
        """Load and follow the bucket until it is closed or cannot go on."""
        try:
            with waking.life:
                async with trio.open_nursery() as nursery:
                    error = await self._load(nursery)
                    if error is not None:
                        nursery.cancel_scope.cancel()
                    waking.end(error)
        except Exception:
            log.exception("bucket %s cannot be shown any more for an unforeseen reason", self.name)
            waking.end(NatsfsError(f"bucket {self.name} failed"))
            self._on_failure()
            await self._rescue()
        finally:
            self.filesystem = self._waking = None

    async def _rescue(self) -> None:
        """Save what can be saved of a bucket that failed."""
        filesystem, self.filesystem = self.filesystem, None
        if filesystem is None:
            return
        try:
            with trio.move_on_after(self._timeout, shield=True):
                await filesystem.finish()
        except Exception:
            log.exception("bucket %s could not be finished", self.name)
        self._abandon(filesystem)

    def _abandon(self, filesystem: Filesystem) -> None:
        lost = filesystem.abandon()
        if lost:
            log.error("bucket %s is gone, and %d written bytes with it", self.name, lost)

    async def _load(self, nursery: trio.Nursery) -> NatsfsError | None:
        """Make the filesystem and start it in *nursery*; what went wrong."""
        try:
            store = self._opened()
            filesystem = self._furnish(store, await store.status(), self.slot)
            await filesystem.start(nursery)
        except PermissionsError as error:
            if not self._denied:
                self._denied = True
                log.info("bucket %s may not be read: %s", self.name, error)
            return AccessDenied(str(error))
        except NatsfsError as error:
            return error
        self.filesystem = filesystem
        return None
