"""What the last mount knew of the bucket: kept on local disk, and taken up again when it is proved.

A tree that is taken up begins at the revision of its snapshot; what is newer comes by the watch.
But no watch tells of purges and expiry, and the mount must not show what is gone.  So metas are
counted:

- Every meta in a snapshot was the only message of its subject (`Updated.sole`), tombstones too.
- A message whose subject had one in the snapshot has taken the place of that, if it is sole.
- So the bucket holds, up to the snapshot's revision, as many metas as the snapshot has, less those
  that were replaced: not less unless something is gone, and never more.
- That these are the same metas, and not those of a bucket that was restored from a backup and went
  another way, shows in the newest that was not replaced: revision, subject and time.

What is not proved is loaded from nothing, as if there were no snapshot.  Tombstones may have a life
of their own, so each of them is asked for.

Snapshots are written when the mount ends and once in a while before, in steps, and only of buckets
that take longer to load than a snapshot takes to be proved.

Concurrency: `recall` and `prove` run before anybody sees the tree; after that, `run` and `finish`
write, one at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from natsfs.data.snapshots import SnapshotFile
from natsfs.errors import NatsfsError, NotFoundError
from natsfs.filesystem.state import Mounted
from natsfs.progress import Counted
from natsfs.store.model import BucketStatus, Updated, WatchEvent
from natsfs.threads import NoThread, in_thread
from natsfs.tree.snapshot import Damaged, Summary, TooDeep, render, restore

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Objects from which on a snapshot is worth its while: 5,000 are loaded in 0.1 s, which is what
#: reading and proving takes.
LEAST_OBJECTS = 5000

#: Tombstones of which each can be asked for: 500 take 0.2 s.
MOST_GRAVES = 500

#: Seconds between two snapshots of a mount that goes on, and the share of time that they may take.
INTERVAL = 600.0
SHARE = 0.01

#: Seconds that a snapshot may take to be read, or a piece of it to be written.
DISK_PATIENCE = 10.0

#: Seconds that rendering goes on before others run, and bytes that are written at once.
STEP = 0.005
WRITE_BYTES = 1024 * 1024


class Recollection:
    """Keeps the tree of one bucket on disk."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        self.counted = Counted()
        self._file: SnapshotFile | None = None
        self._summary: Summary | None = None
        self._root_changed = (0, 0)
        #: Metas of the snapshot that the bucket must still hold.
        self._expected = 0
        #: Subjects that may hold more than one message.
        self._crowded: set[str] = set()
        #: Whether some object has a life of its own, so that the count will be another one soon.
        self._mortal = False
        self._written = 0
        #: Bytes of snapshots that the disk has taken.
        self.bytes_written = 0
        self._lock = trio.Lock()

    # -- taking up --------------------------------------------------------------------------------

    async def recall(self) -> int:
        """Fill the empty tree with the last snapshot of the bucket as it is now; gives the revision
        to go on from, 0 where there is none to be had."""
        directory = self._m.tree_directory
        if directory is None:
            return 0
        status = await self._m.store.status()
        self._file = SnapshotFile(directory, status.identity)
        if not _may_be_kept(status):
            return 0
        data = await _in_thread(self._file.read)
        if data is None:
            return 0
        self._root_changed = self._m.namespace.root.changed
        try:
            summary = restore(self._m.namespace, data)
        except Damaged as error:
            log.warning("the snapshot of the tree is not used: %s", error)
        else:
            if 0 < summary.revision <= status.last_revision:
                self._summary, self._expected = summary, summary.metas
                self._written = summary.revision
                return summary.revision
        self._start_anew()
        return 0

    def note(self, event: WatchEvent) -> None:
        """*event* is about to be taken in."""
        self.counted.feed(event)
        if not isinstance(event, Updated):
            return
        subject = event.info.subject
        if not event.sole:
            self._crowded.add(subject)
        elif self._crowded:
            self._crowded.discard(subject)
        if event.info.ttl > 0 and not event.info.deleted:
            self._mortal = True
        if self._summary is not None:
            known = self._m.namespace.last_revision(subject)
            self._expected -= 0 < known <= self._summary.revision

    def forget(self) -> None:
        """Everything is told again: nothing is left to prove."""
        self._summary = None

    async def prove(self) -> bool:
        """Whether the tree, which has caught up, holds nothing that the bucket does not.  If not,
        it is empty again."""
        summary, self._summary = self._summary, None
        if summary is None:
            return True
        try:
            proved = await self._is_proved(summary)
        except NatsfsError as error:
            log.info("what the last mount knew cannot be proved: %s", error)
            proved = False
        bucket = self._m.store.bucket
        if proved:
            log.info("the tree of %s begins where the last mount was: %d", bucket, summary.revision)
        else:
            log.info("bucket %s is not what it was; loading it anew", bucket)
            self._start_anew()
        return proved

    async def _is_proved(self, summary: Summary) -> bool:
        if self._crowded or self._m.malformed:
            return False
        self._expected -= await self._expired_graves(summary.revision)
        everything = await self._m.store.survey(1)
        since = await self._m.store.survey(summary.revision + 1)
        if everything is None or since is None:
            return False
        if everything.count - since.count != self._expected:
            return False
        return not self._expected or await self._is_the_same(summary)

    async def _is_the_same(self, summary: Summary) -> bool:
        for revision, subject, time_ns in summary.newest:
            if self._m.namespace.last_revision(subject) == revision:
                there = await self._m.store.survey(revision)
                found = (there.revision, there.subject, there.time_ns) if there else None
                return found == (revision, subject, time_ns)
        return False

    async def _expired_graves(self, revision: int) -> int:
        """How many tombstones up to *revision* are gone; the tree does not know them any more."""
        graves = self._m.namespace.graves
        old = [subject for subject, grave in graves.revisions().items() if grave <= revision]
        gone = set()
        for subject in old:
            try:
                await self._m.store.get_info_at(subject)
            except NotFoundError:
                gone.add(subject)
        for subject in gone:
            graves.discard(subject)
        return len(gone)

    def _start_anew(self) -> None:
        self._written = 0
        self._m.namespace.clear()
        self._m.namespace.root.changed = self._root_changed
        self._m.malformed.clear()

    # -- keeping ----------------------------------------------------------------------------------

    async def run(self, taken_in: Callable[[], int]) -> None:
        """Write snapshots once in a while, until cancelled.  *taken_in* as for `write`."""
        pause = INTERVAL
        while True:
            await trio.sleep(pause)
            begin = trio.current_time()
            await self.keep(taken_in())
            pause = max(INTERVAL, (trio.current_time() - begin) / SHARE)

    async def keep(self, revision: int) -> None:
        """`write`, where nobody can do anything about it when that goes wrong."""
        try:
            await self.write(revision)
        except NatsfsError as error:
            log.info("no snapshot of the tree is kept: %s", error)

    async def write(self, revision: int) -> None:
        """Write a snapshot of the tree, in which is everything up to *revision* (0 when that is
        not known), if that is anything new.  Errors: those of `ObjectStore.status`."""
        async with self._lock:
            if revision <= self._written or not await self._is_worth_it():
                return
            if await self._write(revision):
                self._written = revision
                log.info("the tree of bucket %s is kept on disk", self._m.store.bucket)

    async def _is_worth_it(self) -> bool:
        namespace = self._m.namespace
        if self._file is None or self._m.gone:
            return False
        if self._crowded or self._mortal or self._m.malformed:
            return False
        if len(namespace) < LEAST_OBJECTS or len(namespace.graves) > MOST_GRAVES:
            return False
        return _may_be_kept(await self._m.store.status())

    async def _write(self, revision: int) -> bool:
        assert self._file is not None
        writing = await _in_thread(self._file.begin)
        if writing is None:
            return False
        begin, waiting = trio.current_time(), bytearray()
        try:
            for piece in render(self._m.namespace, revision):
                waiting += piece
                if len(waiting) >= WRITE_BYTES:
                    data = bytes(waiting)
                    waiting.clear()
                    if not await _in_thread(partial(writing.add, data)):
                        return False
                    self.bytes_written += len(data)
                elif trio.current_time() - begin > STEP:
                    await trio.lowlevel.checkpoint()
                    begin = trio.current_time()
            if await _in_thread(partial(writing.add, bytes(waiting))):
                return bool(await _in_thread(writing.finish))
        except TooDeep as error:
            log.info("no snapshot of the tree is kept: %s", error)
        finally:
            writing.abandon()
        return False


async def _in_thread(work: Callable[[], T]) -> T | None:
    """What *work* gives; None when the disk takes longer than anybody should wait for it."""
    with trio.move_on_after(DISK_PATIENCE):
        try:
            return await in_thread(work, abandon=True)
        except NoThread as error:
            log.info("%s: no snapshot of a tree is used or kept", error)
            return None
    log.info("the disk does not answer: no snapshot of a tree is used or kept")
    return None


def _may_be_kept(status: BucketStatus) -> bool:
    """Whether the count of metas proves anything, and is not known to be another one soon."""
    return status.mirror is None and not status.ttl
