"""What the parts of the filesystem share, and what they need from the layer above.

`Mounted` is plain data: whoever changes it says so at the top of its module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import trio

from natsfs.config import ConflictConfig, TreeConfig
from natsfs.data.journals import Journals
from natsfs.data.outflow import Outflows
from natsfs.data.reader import ObjectReader
from natsfs.errors import ReadOnlyError
from natsfs.filesystem.lifetimes import lease
from natsfs.filesystem.links import Neighbours, NoNeighbours
from natsfs.filesystem.purger import Purger
from natsfs.filesystem.reservations import Reservations
from natsfs.metrics import Metrics
from natsfs.store.base import ObjectStore
from natsfs.store.model import BucketStatus, Malformed, MetaWrite, ObjectInfo
from natsfs.tree.inodes import InodeTable
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import Change, Directory, Node


class Notifier(Protocol):
    """Tells the kernel what it must not believe any more.  Implemented in `operations`."""

    def changed(self, changes: Iterable[Change]) -> None:
        """These names and nodes are not what the kernel may have cached.  Returns at once; the
        new state is in place already."""

    @property
    def behind(self) -> bool:
        """Whether there is something that the kernel has not been told yet."""

    async def delivered(self) -> None:
        """Wait until the kernel has been told what it was to be told so far, or for as long as one
        should.  Not for handlers: a notification may be blocked by the request that they answer."""

    async def told_of(self, node: Node) -> None:
        """Wait until the kernel has been told of the attributes of *node*, if it has to be.  No
        request blocks that."""


class SilentNotifier:
    """For a filesystem that no kernel has mounted."""

    def changed(self, changes: Iterable[Change]) -> None:
        """Nobody caches anything."""

    @property
    def behind(self) -> bool:
        """Nobody is told."""
        return False

    async def delivered(self) -> None:
        """Nobody is told."""

    async def told_of(self, node: Node) -> None:
        """Nobody is told."""


class Holders(Protocol):
    """Knows who has files open.  Implemented in `mount`."""

    async def somebody_writes(self, ino: int) -> bool:
        """Whether a process has the file with this number open for writing, and will close it after
        this; false where nobody can say."""


class NobodyKnows(Holders):
    """For a filesystem that no kernel has mounted."""

    async def somebody_writes(self, ino: int) -> bool:
        """Nobody can say."""
        return False


class Unconfirmed:
    """Subjects whose echo has not come.  Atomic, but for `confirmed`."""

    def __init__(self) -> None:
        self._subjects: set[str] = set()
        #: For those that somebody waits for.
        self._events: dict[str, trio.Event] = {}

    def __contains__(self, subject: str) -> bool:
        return subject in self._subjects

    def __len__(self) -> int:
        return len(self._subjects)

    def subjects(self) -> frozenset[str]:
        """All of them, as they are now."""
        return frozenset(self._subjects)

    def add(self, subject: str) -> None:
        """The newest meta on *subject* is one that this mount has just written."""
        self._subjects.add(subject)

    def discard(self, subject: str) -> None:
        """It is not, or not any more, or its echo has come."""
        self._subjects.discard(subject)
        event = self._events.pop(subject, None)
        if event is not None:
            event.set()

    def clear(self) -> None:
        """None of them exists any more."""
        for subject in list(self._subjects):
            self.discard(subject)

    async def confirmed(self, subject: str) -> None:
        """Wait until *subject* is not among them."""
        while subject in self._subjects:
            await self._events.setdefault(subject, trio.Event()).wait()


@dataclass(slots=True)
class Mounted:
    """One mounted bucket.

    *root* is the directory that the mount is on, and *place* the path from there to the bucket's
    own directory, empty where that is the same; *read_only* holds the reason when it is.
    *unconfirmed* are subjects whose newest meta this mount wrote and has not seen come back by the
    watch: its time is an estimate.  *live* says whether the watch is up to date.
    """

    store: ObjectStore
    namespace: Namespace
    inodes: InodeTable
    reader: ObjectReader
    purger: Purger
    outflows: Outflows
    reservations: Reservations
    tree: TreeConfig
    root: PurePosixPath
    journal: Journals
    #: What the bucket was last found to be, by `adopt`.
    status: BucketStatus = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    conflict: ConflictConfig = field(default_factory=ConflictConfig)
    read_only: str | None = None
    notifier: Notifier = field(default_factory=SilentNotifier)
    unconfirmed: Unconfirmed = field(default_factory=Unconfirmed)
    malformed: dict[str, Malformed] = field(default_factory=dict)
    #: Subjects whose undecodable metadata was reported already (M2: one warning).
    reported: set[str] = field(default_factory=set)
    live: bool = False
    #: Whether it was mounted so that nothing may be changed, whatever the bucket allows.
    read_only_mount: bool = False
    #: Why the credentials can change nothing; None where they can.
    refusal: str | None = None
    #: Whether the bucket does not exist at present.
    gone: bool = False
    #: Nanoseconds after which the bucket drops a message; 0 for never.
    max_age_ns: int = 0
    #: Nanoseconds by which the server's clock is ahead of this host's.
    clock_ahead_ns: int = 0
    #: When the claims of other mounts end, by subject, on trio's clock (`claims`).
    foreign_claims: dict[str, float] = field(default_factory=dict)
    #: Called with every tombstone that comes in.
    on_tombstone: Callable[[ObjectInfo], None] = lambda grave: None
    #: Whether the bucket takes atomic batches.
    atomic: bool = False
    #: The directory of another tree that this one is shown in.
    outer: Directory | None = None
    place: tuple[bytes, ...] = ()
    neighbours: Neighbours = field(default_factory=NoNeighbours)
    #: Whether there can be nothing but directories.
    only_directories: bool = False
    holders: Holders = field(default_factory=NobodyKnows)
    #: Where the tree is kept for the next mount; None for nowhere.
    tree_directory: Path | None = None
    #: Called when the bucket was found to be gone.
    on_gone: Callable[[], None] = lambda: None
    #: Called when the credentials were found to allow something else than was known, or may do so.
    on_doubtful_rights: Callable[[], None] = lambda: None
    #: Whether close(2) returns when the bytes are in the journal (W8).
    writeback: bool = False
    #: What mount(8) calls noatime and nodiratime: the kernel leaves atime to FUSE's servers.
    noatime: bool = False
    nodiratime: bool = False

    def adopt(self, status: BucketStatus) -> None:
        """Go by the settings that the bucket has now (A6), and by the server's clock."""
        self.status = status
        self.atomic = status.allow_atomic
        self.max_age_ns = round((status.ttl or 0) * 1e9)
        self.clock_ahead_ns = status.asked_ns - time.time_ns() if status.asked_ns else 0
        closed = _closed(status) or self.refusal
        self.read_only = "the mount is read-only" if self.read_only_mount else closed

    def rewrite(self, info: ObjectInfo, expected: int) -> MetaWrite:
        """Publish *info*, the changed meta of an object that keeps its bytes, which it must not
        outlive."""
        life = lease(info, self.max_age_ns, self.server_now_ns())
        return MetaWrite(info, expected, ttl=life)

    def server_now_ns(self) -> int:
        """The server's clock: it decides when something is old, and hosts differ by minutes."""
        return time.time_ns() + self.clock_ahead_ns

    def check_writable(self) -> None:
        """Errors: `ReadOnlyError` when nothing may be changed here."""
        if self.read_only is not None:
            if self.refusal is not None:
                self.on_doubtful_rights()
            raise ReadOnlyError(self.read_only)


def _closed(status: BucketStatus) -> str | None:
    """Why nothing can be changed in the bucket; None if it can."""
    if status.sealed:
        return f"bucket {status.bucket} is sealed"
    if status.mirror is not None:
        return f"bucket {status.bucket} is a mirror of {status.mirror}"
    return None


#: CLOCK_REALTIME_COARSE of Linux, which `time` has no name for.  The kernel stamps files with it,
#: and `touch` hands its reading on to the mount; a finer clock would make a later touch earlier.
_COARSE_CLOCK = 5


def now_ns() -> int:
    """The time of a change that this host makes, in nanoseconds since the epoch."""
    return time.clock_gettime_ns(_COARSE_CLOCK)
