"""How a bucket looks and behaves as a directory: `semantics.md` lives in this package.

    entries          looking                     creation     open with O_CREAT
    files            from open to close          commits      saving what was written
    changes          single entries              moves        rename
    hardlinks        further names of files      xattrs       user.* and metadata
    naming           what may be created         claims       O_EXCL across mounts
    conflicts        two hosts, one file         appending    behind what others stored
    publisher        compare-and-set             replacing    what goes with a new version
    contents         bytes of open files         unsaved      what waits to be saved
    journaling       what survives a crash       recovery     what did
    relocation       metas that change names     stepwise     the same without a batch
    resumption       an interrupted rename       places       the two names of a rename
    intake           what the bucket says        arrivals     what that means for the tree
    foreign_renames  what it does not say        removals     purges and expiry
    lifetimes        when metas expire           settings     of the bucket, as they change
    recollection     what the last mount knew
    reservations     who changes what now        purger       old chunks
    confirmation     the server's times
    times            mtime of directories, atime  walks       read-ahead across files
    attributes, appearance, links                what a meta looks like as a file

`Filesystem` holds them together for one bucket.  It speaks in nodes, handles and attributes of its
own; what a kernel calls them is the business of `operations`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Protocol

import trio

from natsfs.filesystem import settings
from natsfs.filesystem.arrivals import Arrivals
from natsfs.filesystem.changes import Changes
from natsfs.filesystem.claims import Claims
from natsfs.filesystem.commits import Commits
from natsfs.filesystem.confirmation import Confirmation
from natsfs.filesystem.creation import Creation
from natsfs.filesystem.entries import Entries
from natsfs.filesystem.files import Files
from natsfs.filesystem.foreign_renames import ForeignRenames
from natsfs.filesystem.former import Former
from natsfs.filesystem.hardlinks import Hardlinks
from natsfs.filesystem.intake import Intake
from natsfs.filesystem.journaling import Journaling
from natsfs.filesystem.moves import Moves
from natsfs.filesystem.naming import Naming
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.recollection import Recollection
from natsfs.filesystem.recovery import Recovery
from natsfs.filesystem.relocation import Relocation
from natsfs.filesystem.removals import Removals
from natsfs.filesystem.state import Mounted, Notifier
from natsfs.filesystem.times import Times
from natsfs.filesystem.unsaved import Unsaved, UnsavedFile, described
from natsfs.filesystem.xattrs import Xattrs
from natsfs.handles import HandleTable
from natsfs.tree.nodes import Node

__all__ = ["Filesystem", "Mounted", "Notifier", "Served", "UnsavedFile"]


class Filesystem:
    """One bucket as a directory."""

    def __init__(self, mounted: Mounted) -> None:
        self.mounted = mounted
        self.handles = HandleTable(mounted.inodes.slot)
        mounted.purger.wanted = lambda nuid: bool(mounted.namespace.subjects_with(nuid))
        self._foreign_renames = ForeignRenames(mounted)
        self._arrivals = Arrivals(mounted)
        self._recollection = Recollection(mounted)
        self._intake = Intake(mounted, self._arrivals, self._foreign_renames, self._recollection)
        self.confirmation = Confirmation(mounted, self._arrivals.confirm)
        self._removals = Removals(mounted, self._intake)
        publisher = Publisher(mounted, self._intake)
        relocation = Relocation(mounted, publisher)
        self.naming = Naming(mounted)
        self.entries = Entries(mounted)
        self.times = times = Times(mounted, publisher)
        journaling = Journaling(mounted)
        commits = Commits(mounted, publisher, journaling)
        self.unsaved = unsaved = Unsaved(mounted, commits, journaling)
        self.recovery = Recovery(mounted, unsaved, commits, journaling)
        self.former = Former(mounted, self.recovery)
        self.files = files = Files(mounted, commits, unsaved, journaling, times)
        self.claims = claims = Claims(mounted, publisher)
        self.creation = Creation(mounted, self.entries, self.naming, files, claims)
        self.hardlinks = Hardlinks(mounted, publisher, relocation, commits, self.naming, times)
        self.changes = Changes(
            mounted,
            self.entries,
            self.naming,
            publisher,
            files,
            commits,
            claims,
            self.hardlinks,
            journaling,
            times,
        )
        self.xattrs = Xattrs(mounted, self.changes)
        self.moves = Moves(
            mounted,
            self.entries,
            self.naming,
            publisher,
            relocation,
            commits,
            unsaved,
            claims,
            self.hardlinks,
            journaling,
            times,
        )

    async def start(self, nursery: trio.Nursery) -> None:
        """Fill the tree and keep it true in *nursery*; returns when it is complete.

        Errors: whatever the first watch raises.
        """
        await settings.look_at_permissions(self.mounted)
        # Before the tree, so that what is purged while the tree is being filled is heard of.
        await nursery.start(self._removals.run)
        await nursery.start(self._intake.follow)
        self.times.tree_loaded()
        if not self.mounted.read_only:
            await self.recovery.adopt(self.mounted.journal.parent)
            await self.former.report()
        nursery.start_soon(self.entries.learn_space)
        nursery.start_soon(self.mounted.purger.run)
        nursery.start_soon(self.mounted.journal.run)
        nursery.start_soon(self.unsaved.run)
        nursery.start_soon(self.times.run)
        nursery.start_soon(self.claims.run)
        nursery.start_soon(self._foreign_renames.run, self._arrivals.vanish)
        nursery.start_soon(self._recollection.run, self._intake.taken_in)

    def loaded(self) -> tuple[int, int]:
        """While `start` fills the tree: how many objects have come, and of about how many."""
        return self._recollection.counted.done, self._recollection.counted.total

    async def finish(self) -> int:
        """Save what is not saved and free what waits to be freed, because the mount ends.

        Returns how many files could not be saved; each has been logged.
        """
        unsaved = await self.unsaved.finish(self.handles.files())
        await self.times.finish()
        await self.mounted.purger.drain()
        await self._recollection.keep(self._intake.taken_in())
        await self.mounted.reader.settled()
        return unsaved

    def progress(self) -> Hashable:
        """Something that changes while `finish` gets on, and stays while it waits for a server that
        does not answer."""
        unsaved = len(self.mounted.journal), self.unsaved.stored_bytes()
        return (
            unsaved,
            self.times.stored,
            self.mounted.purger.freed,
            self._recollection.bytes_written,
        )

    def abandon(self) -> int:
        """Free what open files hold on local disk: the bucket was deleted, and nothing can be
        saved any more.  Returns the bytes that are lost by that."""
        lost = self.pending_bytes()
        self.unsaved.abandon(self.handles.files())
        self.mounted.journal.close()
        return lost

    def pending_bytes(self) -> int:
        """Bytes that programs wrote and JetStream has not acknowledged."""
        return self.unsaved.bytes(self.handles.files)

    def unsaved_files(self) -> list[UnsavedFile]:
        """The files with these bytes."""
        return [described(file) for file in self.unsaved.all(self.handles.files())]

    # -- `Served`, for a mount of this bucket alone -----------------------------------------------

    @property
    def read_only(self) -> bool:
        """`Served.read_only`."""
        return self.mounted.read_only is not None

    async def at(self, number: int) -> Filesystem:
        """`Served.at`: there is no other."""
        return self

    async def look(self, ino: int) -> tuple[Filesystem, Node]:
        """`Served.look`."""
        return self, self.entries.node(ino)

    def known(self, number: int) -> Filesystem:
        """`Served.known`."""
        return self

    def running(self) -> dict[str, Filesystem]:
        """`Served.running`."""
        return {self.mounted.store.bucket: self}

    def tell(self, notifier: Notifier) -> None:
        """`Served.tell`."""
        self.mounted.notifier = notifier


class Served(Protocol):
    """What one mount shows: a `Filesystem`, or several of which each has a slot of numbers."""

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed anywhere in the mount."""

    async def at(self, number: int) -> Filesystem:
        """The filesystem that gave out *number*, an inode's or a handle's, ready to be used.

        Errors: `DeletedBucket`, and whatever getting it ready raises.
        """

    async def look(self, ino: int) -> tuple[Filesystem, Node]:
        """The node with this number, and the filesystem that knows its attributes.  It is good for
        no more than looking at these, and costs no more.

        Errors: `StaleVersion`, `DeletedBucket`, those of one request to the server.
        """

    def known(self, number: int) -> Filesystem | None:
        """The filesystem that gave out *number*, if it is ready now."""

    def running(self) -> Mapping[str, Filesystem]:
        """The filesystems of buckets that are ready now, by bucket."""

    def tell(self, notifier: Notifier) -> None:
        """Tell *notifier* of all changes from now on."""
