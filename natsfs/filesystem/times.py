"""Times that change without a request of their own: mtime of directories, atime of what was read.

A directory whose entries came or went is marked here, and its marker is rewritten once it has been
quiet for a while, so that unpacking an archive costs a directory one meta message and not one an
entry.  Without a marker nothing is written: such a directory dates from its newest entry.

atime follows the relatime rule of Linux and is kept in memory only: a meta message for every first
look at a file would make reading as dear as writing, for all who watch the bucket.

Concurrency: `entry_changed` and `was_read` are atomic.  A directory leaves the list before its
commit is awaited; if it changes meanwhile it is on the list again.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import trio

from natsfs.errors import NatsfsError, NotFoundError
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.attributes import AttributeChanges, birth_ns
from natsfs.filesystem.naming import meta_of
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.state import Mounted, now_ns
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import Directory, Leaf, Node, NodeChange, walk_directories

log = logging.getLogger(__name__)

#: Seconds without a change before a directory's mtime is stored: longer than the pauses of a tool
#: at work, shorter than it takes to unmount by hand and look from elsewhere.
QUIET = 2.0

#: An atime older than this is renewed by any reading (relatime of mount(8)).
RELATIME_NS = 24 * 3600 * 10**9


class Times:
    """Keeps times that are side effects."""

    def __init__(self, mounted: Mounted, publisher: Publisher) -> None:
        self._m = mounted
        self._publisher = publisher
        #: When each directory whose mtime is not stored yet changed last, on trio's clock.
        self._changed: dict[Directory, float] = {}
        #: How many mtimes were stored.
        self.stored = 0

    def tree_loaded(self) -> None:
        """The tree is complete for the first time.  Of what is newer than a directory's marker only
        what was created since changed the directory, and not what was rewritten."""
        for directory in walk_directories(self._m.namespace.root):
            if directory.marker is not None:
                directory.changed = self._newest_creation(directory, directory.marker)
                directory.attributes = None

    def _newest_creation(self, directory: Directory, marker: ObjectInfo) -> tuple[int, int]:
        """Revision and time of the newest entry that was made after *marker* was written."""
        for info in self._m.namespace.index.newest_first(directory, marker.revision):
            if birth_ns(info) > marker.time_ns:
                return info.revision, info.time_ns
        return 0, 0

    def entry_changed(self, directory: Directory, at_ns: int) -> None:
        """An entry of *directory* came or went by this mount's doing at *at_ns*."""
        newer_than_marker = directory.marker.revision + 1 if directory.marker is not None else 1
        directory.changed = (max(directory.changed[0], newer_than_marker), at_ns)
        if directory.marker is None:
            directory.attributes = None
            return
        self._changed[directory] = trio.current_time()
        if directory.attributes is not None:
            # What `appearance` would make of the marker again: a tenth of creating a file in it.
            moved = replace(directory.attributes, mtime_ns=at_ns, ctime_ns=at_ns)
            directory.attributes = moved

    def was_read(self, node: Node) -> None:
        """The content of *node* was read: a directory's entries and a link's text are that, too."""
        if self._m.noatime or (self._m.nodiratime and isinstance(node, Directory)):
            return
        now = now_ns()
        before = attributes_of(self._m, node)
        newest_change = max(before.mtime_ns, before.ctime_ns)
        if before.atime_ns <= newest_change or now - before.atime_ns > RELATIME_NS:
            node.attributes = replace(before, atime_ns=now)
            self._m.notifier.changed([NodeChange(node)])

    def name_changed(self, node: Node) -> None:
        """*node*, of which the bucket knows nothing, has another name or has lost its last: that
        changes its ctime."""
        node.attributes = replace(attributes_of(self._m, node), ctime_ns=now_ns())

    async def run(self) -> None:
        """Store the mtimes of directories that have come to rest, until cancelled."""
        while True:
            await trio.sleep(QUIET / 2)
            quiet_since = trio.current_time() - QUIET
            for directory in [d for d, at in self._changed.items() if at <= quiet_since]:
                await self.store(directory)

    async def finish(self) -> None:
        """Store all that is not stored, because the mount ends."""
        for directory in list(self._changed):
            await self.store(directory)

    def unstored(self, node: Leaf | Directory) -> dict[str, str]:
        """The metadata that is not stored for *node*, for whoever rewrites its meta now: a newer
        meta without it would say that nothing came or went since."""
        if not isinstance(node, Directory):
            return {}
        # What came or went by another client's doing is not stored, but as little to be lost.
        known = node.marker.revision if node.marker is not None else 0
        return self._mtime(node) if node.changed[0] > known else {}

    async def store(self, directory: Directory) -> None:
        """Store the mtime of *directory* now, if it is not.  Failure is logged and not raised: it
        costs a time-stamp and nothing else."""
        if self._changed.pop(directory, None) is None:
            return
        try:
            async with self._m.reservations.hold(lambda: meta_of(directory)):
                # A change of its attributes may have taken the mtime along.
                unstored = self.unstored(directory) if meta_of(directory) else {}
                if unstored and directory.marker is not None:
                    await self._rewrite(directory, unstored)
        except NotFoundError:
            log.debug("a directory went before its mtime was stored")
        except NatsfsError as error:
            log.warning(
                "mtime of %r is not stored: %s",
                directory.marker_name,
                error,
                extra={"object": directory.marker_name},
            )

    async def _rewrite(self, directory: Directory, unstored: dict[str, str]) -> None:
        def edit(info: ObjectInfo) -> ObjectInfo:
            return replace(info, metadata={**info.metadata, **unstored})

        stored = await self._publisher.edit(directory, edit)
        # Nothing changed by that for programs here; a ctime that moves by itself would let tar
        # report a directory that changed as it was read.
        directory.changed = (stored.revision + 1, directory.changed[1])
        directory.attributes = None
        self.stored += 1

    def _mtime(self, directory: Directory) -> dict[str, str]:
        attributes = attributes_of(self._m, directory)
        return AttributeChanges(mtime_ns=attributes.mtime_ns).encode(attributes)
