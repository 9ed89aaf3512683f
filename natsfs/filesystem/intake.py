"""Metas that arrive from the bucket: by the watch, or read back after a lost compare-and-set.

The only module that knows in which order they are taken in, what waits for what, and what is gone
although nobody said so.  What one of them means for the tree is decided in `arrivals`.

Concurrency: `follow` runs as one task.  What has no `async` in front of it is atomic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from natsfs.errors import BucketNotFoundError, NatsfsError, NotFoundError, WrongRevision
from natsfs.filesystem.arrivals import Arrivals
from natsfs.filesystem.foreign_renames import ForeignRenames
from natsfs.filesystem.history import History
from natsfs.filesystem.recollection import Recollection
from natsfs.filesystem.reservations import Key
from natsfs.filesystem.state import Mounted
from natsfs.filesystem.telling import Telling
from natsfs.headroom import room_for_more
from natsfs.store.model import (
    BucketStatus,
    CaughtUp,
    Malformed,
    MetaWrite,
    ObjectInfo,
    Restarted,
    Resumed,
    Updated,
    WatchEvent,
)
from natsfs.store.wire import meta_subject
from natsfs.tree.nodes import Leaf, NodeChange, info_of

log = logging.getLogger(__name__)

#: Seconds before a watch that failed is tried again: short against what a user notices, long
#: against the cost of asking a server that is starting.
WATCH_RETRY = 1.0

#: Seconds that the watch waits for a commit of this mount to end before it goes on with other
#: names: an echo is ahead of the acknowledgement by less than a millisecond as a rule.
ECHO = 0.2


class Intake:
    """Keeps the tree true."""

    def __init__(
        self,
        mounted: Mounted,
        arrivals: Arrivals,
        foreign_renames: ForeignRenames,
        recollection: Recollection,
    ) -> None:
        self._m = mounted
        self._arrivals = arrivals
        self._foreign_renames = foreign_renames
        self._recollection = recollection
        #: Subjects seen since the watch (re)started; None once it has caught up.
        self._seen: set[str] | None = None
        #: Whether nothing was known when it did, so that nothing can be missing of what was.
        self._from_nothing = False
        self._deferred: list[ObjectInfo] = []
        #: Subjects of reserved names that a sweep missed, and up to which revision it had looked.
        self._missed: dict[str, int] = {}
        self._created_ns = 0
        self._round = trio.CancelScope()
        self._complete = trio.Event()
        #: Called with every meta that the watch brings, and whenever the watch begins.
        self.on_meta: Callable[[ObjectInfo], None] = lambda info: None
        self.on_restart: Callable[[], None] = lambda: None
        #: Called with subjects that the leader is to be asked for.
        self.on_doubt: Callable[[set[str]], None] = lambda subjects: None
        self._telling = Telling()
        self._history = History(mounted)
        mounted.reservations.on_release = self._take_deferred

    async def follow(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Follow the bucket until cancelled; "started" once the tree is complete.

        Errors: whatever the first watch raises before that; later ones are logged and the watch is
        made again.
        """
        started = False
        after = await self._recollection.recall()
        while True:
            try:
                with trio.CancelScope() as self._round:
                    async with self._m.store.watch(after) as events:
                        after = 0
                        async for event in events:
                            self._recollection.note(event)
                            complete = isinstance(event, CaughtUp) and not started
                            if complete and not await self._recollection.prove():
                                self._telling.begin_anew()
                                self._round.cancel()
                                break
                            if started or not self._load(event):
                                await self._follow_in_order(event)
                            if complete:
                                started = True
                                task_status.started()
                if self._round.cancel_called:
                    continue
            except BucketNotFoundError:
                if not started:
                    raise
                self._bucket_gone()
            except NatsfsError as error:
                if not started:
                    raise
                log.warning("the watch of bucket %s failed: %s", self._m.store.bucket, error)
            self._m.live = False
            await trio.sleep(WATCH_RETRY)

    def _load(self, event: WatchEvent) -> bool:
        """Take in *event* at once if it is one more object of a bucket that nobody has looked at:
        there is neither a kernel that has to be told, nor a program that changes anything."""
        if not isinstance(event, Updated) or self._m.foreign_claims:
            return False
        info = event.info
        if info.subject in self._m.malformed or not self._m.namespace.load(info):
            return False
        self._mark_seen(info.subject)
        self._telling.loaded(info.revision)
        self.on_meta(info)
        return True

    async def _follow_in_order(self, event: WatchEvent) -> None:
        """Take in *event* when everything before it is visible to programs.

        Whoever sees one change must see the earlier ones (A1), also where the kernel has answers of
        its own; so nothing is taken in while the kernel has not been told.  The echo of a commit
        that is under way waits for its end for the same reason.  After `ECHO` it is put off, and so
        are others until that has ended: a long upload does not keep the mount from following.

        A handler that waits for the watch (`refresh`) holds the reservation of a name, and the
        kernel's lock of a directory in which names are to be forgotten.  So nothing waits for
        either meanwhile.
        """
        await room_for_more()
        if isinstance(event, Updated):
            # Before the wait: who waits to be told of this holds the reservation of its name.
            self._telling.tell(event.info.revision)
            name = event.info.name
            held = self._m.reservations.covers(name)
            if held and not self._deferred and not self._telling.awaited:
                await self._telling.wait(lambda: self._m.reservations.released(name), ECHO)
        self._dispatch(event)
        if not isinstance(event, Restarted | Resumed):
            self._telling.taken = max(self._telling.taken, event.revision)
        if self._m.notifier.behind and not self._telling.awaited:
            await self._telling.wait(self._m.notifier.delivered)

    def taken_in(self) -> int:
        """Up to which revision everything is in the tree; 0 when that is not known now."""
        waiting = self._seen is not None or not self._m.live or self._deferred or self._missed
        return 0 if waiting else self._telling.taken

    async def complete(self) -> None:
        """Wait until the watch has brought all that the bucket holds."""
        while self._seen is not None or not self._m.live:
            await self._complete.wait()

    def compare(self) -> None:
        """Have the watch begin again, with all metas, 0.6 KB each: whatever the bucket does not
        hold any more is gone after it."""
        self._seen = set()
        self._round.cancel()

    def follows(self, status: BucketStatus) -> bool:
        """Whether *status* is of the bucket that is being watched, and not of one made since."""
        return self._created_ns in (0, status.created_ns)

    async def look_again(self, subject: str) -> None:
        """Read what is on *subject* at the leader, because it may have gone, and take that in.

        Errors: those of `ObjectStore.get_info_at` but `NotFoundError`.
        """
        known = info_of(self._m.namespace.find(subject))
        names = frozenset[Key]() if known is None else frozenset[Key]({known.name})
        async with self._m.reservations.hold(lambda: names):
            await self.refresh(subject)

    def gone_before(self, subject: str, revision: int) -> bool:
        """The bucket holds no message before *revision*: whether that is the end of what is known
        on *subject*, which is then taken out of the tree."""
        known = self._m.namespace.last_revision(subject)
        if not 0 < known < revision:
            return False
        if info_of(self._m.namespace.find(subject)) is None:
            self._arrivals.vanish(subject)
        else:
            self._sweep_away(subject, revision - 1)
        return True

    def take(self, info: ObjectInfo) -> None:
        """Take in one meta, in any order."""
        self._mark_seen(info.subject)
        self._m.malformed.pop(info.subject, None)
        self.on_meta(info)
        known = self._m.namespace.last_revision(info.subject)
        if info.revision > known:
            if info.deleted:
                self._m.on_tombstone(info)
            else:
                self._m.foreign_claims.pop(info.subject, None)
            if self._seen is None:
                self._foreign_renames.consider(info)
            self._arrivals.apply(info)
        elif info.revision == known:
            self._arrivals.confirm(info)

    async def refresh_lost(
        self, writes: Sequence[MetaWrite], lost: WrongRevision, *, keep: Leaf | None = None
    ) -> None:
        """Read what made the compare-and-set of one of *writes* fail.  Otherwise as `refresh`."""
        for write in writes:
            if write.info.name == lost.name:
                subject = write.info.subject or meta_subject(self._m.store.bucket, lost.name)
                await self.refresh(subject, keep=keep)

    async def refresh(self, subject: str, *, keep: Leaf | None = None) -> None:
        """Read what is on *subject* now and take it in, after all that the bucket had before it: a
        tree that knew the newest lock file, and not what was written under the last one, would
        break what programs build on the order of changes.

        A deleted object leaves the leaf *keep* in the tree, for the commit that is about to bring
        it back.

        Errors: those of `ObjectStore.get_info_at` but `NotFoundError`.
        """
        known = self._m.namespace.last_revision(subject)
        current: ObjectInfo | None
        try:
            current = await self._m.store.get_info_at(subject)
        except NotFoundError:
            current = None
        if current is not None:
            await self._telling.reach(current.revision, lambda: self._m.live)
        if known != self._m.namespace.last_revision(subject):
            return  # Something newer came in while this was on its way.
        uncovered = current is not None and current.revision < known
        if uncovered and keep is None:
            # The newest message was deleted, and an older one has come to light.
            self._arrivals.vanish(subject)
        if current is not None and not current.deleted and not (uncovered and keep):
            self.take(current)
        elif keep is not None and keep.info is not None and keep.info.subject == subject:
            self._m.namespace.unset(keep, current)
        elif current is not None:
            self.take(current)
        else:
            self._m.malformed.pop(subject, None)
            self._arrivals.vanish(subject)

    def _dispatch(self, event: WatchEvent) -> None:
        match event:
            case Restarted(created_ns):
                self._recollection.forget()
                self._restart(created_ns)
            case Resumed(created_ns):
                self._created_ns = created_ns
                self.on_restart()
            case Updated(info):
                if self._seen is not None and not self._from_nothing:
                    self._history.note(info)
                if self._m.reservations.covers(info.name):
                    self._mark_seen(info.subject)
                    self._deferred.append(info)
                else:
                    self.take(info)
            case Malformed():
                self._malformed(event)
                self._telling.tell(event.revision)
            case CaughtUp():
                self._sweep(event.revision)
                self._telling.tell(event.revision)

    def _restart(self, created_ns: int) -> None:
        if self._created_ns not in (0, created_ns):
            self._start_anew()
        self._created_ns = created_ns
        self._seen = set()
        self._history.begin(self._telling.taken)
        namespace = self._m.namespace
        self._from_nothing = not (len(namespace) or len(namespace.graves) or self._m.malformed)
        # Until all is compared the kernel is to ask for everything anew.
        self._m.live = False
        self.on_restart()

    def _take_deferred(self) -> None:
        """Some names were released: their echoes are old news now, foreign changes are not."""
        deferred, self._deferred = self._deferred, []
        for info in deferred:
            self._dispatch(Updated(info))
        missed, self._missed = self._missed, {}
        for subject, revision in missed.items():
            self._sweep_away(subject, revision)

    def _malformed(self, event: Malformed) -> None:
        self._mark_seen(event.subject)
        known = self._m.malformed.get(event.subject)
        self._m.malformed[event.subject] = event
        if known is None or known.revision != event.revision:
            log.warning("an object cannot be shown: %s", event.reason)
        self._arrivals.vanish(event.subject)

    def _mark_seen(self, subject: str) -> None:
        if self._seen is not None and not self._from_nothing:
            self._seen.add(subject)

    def _sweep(self, revision: int) -> None:
        """The watch delivered everything there is up to *revision*: what it left out is gone."""
        if self._seen is not None and self._history.is_another(revision):
            self._set_back()
            return
        seen, self._seen = self._seen, None
        if seen is not None and not self._from_nothing:
            self.on_doubt(self._history.doubtful(revision))
            for subject in set(self._m.namespace.subjects()) - seen:
                self._sweep_away(subject, revision)
            for subject in set(self._m.malformed) - seen:
                del self._m.malformed[subject]
            self._m.namespace.graves.keep(seen, revision)
        if self._m.gone:
            self._m.gone = False
            log.info("bucket %s is there again", self._m.store.bucket)
            self._m.notifier.changed([NodeChange(self._m.namespace.root)])
        self._m.live = True
        complete, self._complete = self._complete, trio.Event()
        complete.set()

    def _sweep_away(self, subject: str, revision: int) -> None:
        namespace = self._m.namespace
        info = info_of(namespace.find(subject))
        if info is None or info.revision > revision:
            return
        if self._m.reservations.covers(info.name):
            self._missed[subject] = revision
        else:
            self._arrivals.vanish(subject)

    def _bucket_gone(self) -> None:
        if self._m.gone:
            return
        log.log(
            # Where the mount shows other buckets, too, one that goes is no more than that.
            logging.ERROR if self._m.outer is None else logging.INFO,
            "bucket %s is gone; waiting for it to come back",
            self._m.store.bucket,
        )
        self._m.live = False
        self._m.gone = True
        self._start_anew()
        self._m.on_gone()
        self._m.notifier.changed([NodeChange(self._m.namespace.root)])

    def _set_back(self) -> None:
        log.warning(
            "bucket %s has come back in an earlier state, as from a backup; reading it anew",
            self._m.store.bucket,
        )
        self._start_anew()
        self.compare()

    def _start_anew(self) -> None:
        """Nothing that is known of the bucket is true any more, revisions included (A6)."""
        self._telling.begin_anew()
        for subject in self._m.namespace.subjects():
            self._arrivals.vanish(subject)
        self._m.notifier.changed(self._m.namespace.drop_empty_directories())
        self._m.namespace.graves.clear()
        self._m.unconfirmed.clear()
        self._m.malformed.clear()
        self._missed.clear()
