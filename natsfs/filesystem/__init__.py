"""How a bucket looks and behaves as a directory: `semantics.md` lives in this package.

    entries       looking                     creation      open with O_CREAT
    files         from open to close          commits       saving what was written
    changes       single entries              moves         rename
    hardlinks     further names of files      xattrs        user.* and metadata
    naming        what may be created         claims        O_EXCL across mounts
    publisher     compare-and-set             relocation    metas that change their names
    intake        what the bucket says        foreign_renames  what it does not say
    reservations  who changes what now        purger        old chunks
    times         mtime of directories, atime
    attributes, appearance, links             what a meta looks like as a file

`Filesystem` holds them together for one bucket.  It speaks in nodes, handles and attributes of its
own; what a kernel calls them is the business of `operations`.
"""

from __future__ import annotations

import trio

from natsfs.filesystem.changes import Changes
from natsfs.filesystem.claims import Claims
from natsfs.filesystem.commits import Commits
from natsfs.filesystem.creation import Creation
from natsfs.filesystem.entries import Entries
from natsfs.filesystem.files import Files
from natsfs.filesystem.foreign_renames import ForeignRenames
from natsfs.filesystem.hardlinks import Hardlinks
from natsfs.filesystem.intake import Intake
from natsfs.filesystem.moves import Moves
from natsfs.filesystem.naming import Naming
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.relocation import Relocation
from natsfs.filesystem.state import Mounted, Notifier
from natsfs.filesystem.times import Times
from natsfs.filesystem.xattrs import Xattrs
from natsfs.handles import HandleTable

__all__ = ["Filesystem", "Mounted", "Notifier"]


class Filesystem:
    """One bucket as a directory."""

    def __init__(self, mounted: Mounted) -> None:
        self.mounted = mounted
        self.handles = HandleTable()
        self._foreign_renames = ForeignRenames(mounted)
        self._intake = Intake(mounted, self._foreign_renames)
        publisher = Publisher(mounted, self._intake)
        relocation = Relocation(mounted, publisher)
        self.naming = Naming(mounted)
        self.entries = Entries(mounted)
        self.times = times = Times(mounted, publisher)
        self.commits = commits = Commits(mounted, publisher)
        self.files = files = Files(mounted, commits, times)
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
            times,
        )
        self.xattrs = Xattrs(mounted, self.changes)
        self.moves = Moves(
            mounted, self.entries, self.naming, publisher, relocation, claims, self.hardlinks, times
        )

    async def start(self, nursery: trio.Nursery) -> None:
        """Fill the tree and keep it true in *nursery*; returns when it is complete.

        Errors: whatever the first watch raises.
        """
        await nursery.start(self._intake.follow)
        self.times.tree_loaded()
        nursery.start_soon(self.mounted.purger.run)
        nursery.start_soon(self.commits.retry_unsaved)
        nursery.start_soon(self.times.run)
        nursery.start_soon(self.claims.run)
        nursery.start_soon(self._foreign_renames.run, self._intake.refresh)

    async def finish(self) -> int:
        """Save what is not saved and free what waits to be freed, because the mount ends.

        Returns how many files could not be saved; each has been logged.
        """
        unsaved = await self.commits.finish(self.handles.files())
        await self.times.finish()
        await self.mounted.purger.drain()
        return unsaved

    def pending_bytes(self) -> int:
        """Bytes that programs wrote and JetStream has not acknowledged."""
        return self.commits.pending_bytes(self.handles.files())
