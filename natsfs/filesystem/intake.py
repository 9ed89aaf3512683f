"""Metas that arrive from the bucket, taken into the tree: by the watch, or read back after a lost
compare-and-set.

The only module that decides what a foreign change means for a file that is open here (R1): a handle
keeps the version it has, and the name gets a new node; a file with bytes not yet committed keeps
those, because the last commit wins (A4).

Concurrency: `follow` runs as one task.  What has no `async` in front of it is atomic.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace

import trio

from natsfs.errors import BucketNotFoundError, NatsfsError, NotFoundError, WrongRevision
from natsfs.filesystem.attributes import Attributes, birth_ns, merged, of_object
from natsfs.filesystem.foreign_renames import ForeignRenames
from natsfs.filesystem.reservations import Key
from natsfs.filesystem.state import Mounted
from natsfs.handles import is_dirty
from natsfs.store.model import (
    BucketStatus,
    CaughtUp,
    Malformed,
    MetaWrite,
    ObjectInfo,
    Restarted,
    Updated,
    WatchEvent,
)
from natsfs.store.wire import meta_subject
from natsfs.tree.nodes import Directory, Leaf, NodeChange, info_of, note_change

log = logging.getLogger(__name__)

#: Seconds before a watch that failed is tried again: short against what a user notices, long
#: against the cost of asking a server that is starting.
WATCH_RETRY = 1.0

#: Seconds that the watch waits for a commit of this mount to end before it goes on with other
#: names: an echo is ahead of the acknowledgement by less than a millisecond as a rule.
ECHO = 0.2

#: Seconds to wait for the watch to tell of what was read at the leader.  It takes a round trip on a
#: machine that is not overloaded; longer only when the meta was purged meanwhile.
CATCH_UP = 5.0


class Intake:
    """Keeps the tree true."""

    def __init__(self, mounted: Mounted, foreign_renames: ForeignRenames) -> None:
        self._m = mounted
        self._foreign_renames = foreign_renames
        #: Subjects seen since the watch (re)started; None once it has caught up.
        self._seen: set[str] | None = None
        self._deferred: list[ObjectInfo] = []
        #: Subjects of reserved names that a sweep missed, and up to which revision it had looked.
        self._missed: dict[str, int] = {}
        self._created_ns = 0
        self._round = trio.CancelScope()
        self._complete = trio.Event()
        #: Called with every meta that the watch brings, and whenever the watch begins.
        self.on_meta: Callable[[ObjectInfo], None] = lambda info: None
        self.on_restart: Callable[[], None] = lambda: None
        #: Up to which revision the watch has told of all other names, and when it goes on.
        self._told = 0
        self._telling = trio.Event()
        mounted.reservations.on_release = self._take_deferred

    async def follow(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Follow the bucket until cancelled; "started" once the tree is complete.

        Errors: whatever the first watch raises before that; later ones are logged and the watch is
        made again.
        """
        started = False
        while True:
            try:
                with trio.CancelScope() as self._round:
                    async with self._m.store.watch() as events:
                        async for event in events:
                            await self._follow_in_order(event)
                            if isinstance(event, CaughtUp) and not started:
                                started = True
                                task_status.started()
                if self._round.cancelled_caught:
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

    async def _follow_in_order(self, event: WatchEvent) -> None:
        """Take in *event* when everything before it is visible to programs.

        Whoever sees one change must see the earlier ones (A1), also where the kernel has answers of
        its own; so nothing is taken in while the kernel has not been told.  The echo of a commit
        that is under way waits for its end for the same reason.  After `ECHO` it is put off, and so
        are others until that has ended: a long upload does not keep the mount from following.
        """
        if isinstance(event, Updated):
            # Before the wait: who waits to be told of this holds the reservation of its name.
            self._tell(event.info.revision)
            if not self._deferred:
                with trio.move_on_after(ECHO):
                    await self._m.reservations.released(event.info.name)
        self._dispatch(event)
        await self._m.notifier.delivered()

    async def complete(self) -> None:
        """Wait until the watch has brought all that the bucket holds."""
        while self._seen is not None or not self._m.live:
            await self._complete.wait()

    def compare(self) -> None:
        """Have the watch begin again: whatever the bucket does not hold any more is gone after it.

        That is all metas once, 0.6 KB each, as after a lost connection.
        """
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
            self.vanish(subject)
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
            self._note_claim(info)
            if self._seen is None:
                self._foreign_renames.consider(info)
            self._apply(info)
        elif info.revision == known:
            self._confirm_time(info)

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
            await self._delivered(current.revision)
        if known != self._m.namespace.last_revision(subject):
            return  # Something newer came in while this was on its way.
        uncovered = current is not None and current.revision < known
        if uncovered and keep is None:
            # The newest message was deleted, and an older one has come to light.
            self.vanish(subject)
        if current is not None and not current.deleted and not (uncovered and keep):
            self.take(current)
        elif keep is not None and keep.info is not None and keep.info.subject == subject:
            self._m.namespace.unset(keep, current)
        elif current is not None:
            self.take(current)
        else:
            self._m.malformed.pop(subject, None)
            self.vanish(subject)

    async def _delivered(self, revision: int) -> None:
        """Wait until the watch has told of everything up to *revision*, as long as it is alive.

        A meta that was purged again before it was delivered never comes: `CATCH_UP` bounds that.
        """
        with trio.move_on_after(CATCH_UP) as scope:
            while self._m.live and self._told < revision:
                await self._telling.wait()
        if scope.cancelled_caught:
            log.info("the watch has told up to %d and not of revision %d", self._told, revision)

    def _tell(self, revision: int) -> None:
        self._told = max(self._told, revision)
        self._telling.set()
        self._telling = trio.Event()

    def _note_claim(self, info: ObjectInfo) -> None:
        if info.deleted:
            self._m.on_tombstone(info)
        else:
            self._m.foreign_claims.pop(info.subject, None)

    def _dispatch(self, event: WatchEvent) -> None:
        match event:
            case Restarted(created_ns):
                self._restart(created_ns)
            case Updated(info):
                if self._m.reservations.covers(info.name):
                    self._mark_seen(info.subject)
                    self._deferred.append(info)
                else:
                    self.take(info)
            case Malformed():
                self._malformed(event)
                self._tell(event.revision)
            case CaughtUp():
                self._sweep(event.revision)
                self._tell(event.revision)

    def _restart(self, created_ns: int) -> None:
        if self._created_ns not in (0, created_ns):
            self._start_anew()
        self._created_ns = created_ns
        self._seen = set()
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
            log.warning("an object cannot be shown: meta on %s: %s", event.subject, event.reason)
        self.vanish(event.subject)

    def _mark_seen(self, subject: str) -> None:
        if self._seen is not None:
            self._seen.add(subject)

    def _sweep(self, revision: int) -> None:
        """The watch delivered everything there is up to *revision*: what it left out is gone."""
        seen, self._seen = self._seen, None
        if seen is not None:
            for subject in set(self._m.namespace.subjects()) - seen:
                self._sweep_away(subject, revision)
            for subject in set(self._m.malformed) - seen:
                del self._m.malformed[subject]
            self._m.namespace.keep_graves(seen, revision)
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
            self.vanish(subject)

    def vanish(self, subject: str) -> None:
        """The meta on *subject* is gone, and no tombstone says so."""
        leaf = self._m.namespace.find(subject)
        if isinstance(leaf, Leaf) and is_dirty(leaf):
            self._m.namespace.unset(leaf, None)
        else:
            self._m.notifier.changed(self._m.namespace.vanish(subject))

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

    def _start_anew(self) -> None:
        """Nothing that is known of the bucket is true any more, revisions included (A6)."""
        self._told = 0
        for subject in self._m.namespace.subjects():
            self.vanish(subject)
        self._m.notifier.changed(self._m.namespace.drop_empty_directories())
        self._m.namespace.forget_graves()
        self._m.unconfirmed.clear()
        self._m.malformed.clear()
        self._missed.clear()

    def _apply(self, info: ObjectInfo) -> None:
        namespace = self._m.namespace
        leaf = namespace.find(info.subject)
        self._note_replacement(leaf, info)
        self._m.unconfirmed.discard(info.subject)
        if isinstance(leaf, Leaf) and is_dirty(leaf):
            self._apply_to_dirty(leaf, info)
            return
        if not isinstance(leaf, Leaf) or leaf.info is None or info.deleted:
            self._m.notifier.changed(namespace.apply(info))
            return
        other_bytes = leaf.info.nuid != info.nuid and leaf.file is not None
        if other_bytes or self._kind(leaf.info) != self._kind(info):
            self._overtake(leaf, info)
        else:
            self._m.notifier.changed(namespace.apply(info))

    def _note_replacement(self, node: Leaf | Directory | None, info: ObjectInfo) -> None:
        if node is None or node.parent is None:
            return
        names = self._m.namespace.subjects_with(info.nuid)
        moved_here = any(subject != info.subject for subject in names)
        if moved_here or _is_another_file(info_of(node), info):
            note_change(node.parent, info)
            self._m.notifier.changed([NodeChange(node.parent)])

    def _overtake(self, leaf: Leaf, info: ObjectInfo) -> None:
        """*info* gets a node of its own; for the directory, the name was there all the time."""
        directory = leaf.parent
        assert directory is not None
        changed = directory.changed
        self._m.namespace.supersede(leaf)
        self._m.notifier.changed(self._m.namespace.apply(info))
        directory.changed = changed
        directory.attributes = None
        successor = self._m.namespace.find(info.subject)
        if isinstance(successor, Leaf):
            leaf.successor = successor

    def _apply_to_dirty(self, leaf: Leaf, info: ObjectInfo) -> None:
        """The commit of *leaf* will replace the bytes that another client stored, so nothing is
        shown of them.  What it did to the attributes of the same bytes is merged (M5)."""
        if info.deleted:
            self._m.namespace.unset(leaf, info)
            return
        ours, known = leaf.attributes, leaf.info
        self._m.namespace.apply(info)
        leaf.attributes = ours
        if known is not None and known.nuid == info.nuid and isinstance(ours, Attributes):
            before, after = (of_object(meta, self._m.tree)[0] for meta in (known, info))
            leaf.attributes = merged(ours, before, after)
            self._m.notifier.changed([NodeChange(leaf)])

    def _confirm_time(self, info: ObjectInfo) -> None:
        """The echo of this mount's own commit brings the server's time of it (M3)."""
        self._m.unconfirmed.discard(info.subject)
        node = self._m.namespace.find(info.subject)
        if isinstance(node, Leaf):
            node.info = info
            if node.attributes is not None and not (node.file is not None and node.file.dirty):
                node.attributes = replace(node.attributes, ctime_ns=info.time_ns)
        elif node is not None:
            node.marker = info
            node.attributes = None

    def _kind(self, info: ObjectInfo) -> int:
        return stat.S_IFMT(of_object(info, self._m.tree)[0].mode)


def _is_another_file(known: ObjectInfo | None, info: ObjectInfo) -> bool:
    """Whether another mount's rename gave the name of *known* to another file, which changes the
    directory.  That has another birth, which a put by any client leaves alone or does not know."""
    if known is None or known.nuid == info.nuid or "btime" not in info.metadata:
        return False
    return birth_ns(known) != birth_ns(info)
