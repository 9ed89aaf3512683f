"""What an open file or directory is.

An `OpenFile` is what all descriptors of one file on this mount share: the version below (*base*)
and what programs made of it (*content*), so that they see each other's writes at once (W3).
A `FileHandle` is one open(2); `readable` and `writable` say what its flags allow.

Concurrency: one trio thread.  `OpenFile.lock` is held while a commit reads the content.  Writers do
not take it, they count their changes instead, and the commit sees that it was not the last; but
while an outflow is being committed, they wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from natsfs.data.journal import Entry
from natsfs.data.outflow import Outflow
from natsfs.data.reader import VersionReader
from natsfs.data.small import Small
from natsfs.data.spool import Spool
from natsfs.errors import BadHandle
from natsfs.store.model import ObjectInfo
from natsfs.tree.inodes import SLOT_BITS
from natsfs.tree.nodes import Directory, Leaf, Node

#: What programs wrote: on top of a version, or all of a file that is small, or on its way.
Content = Spool | Small | Outflow


class OpenFile:
    """A file that somebody has open.

    *content* is None while it is that of *base*.

    *changes* counts what was done to its bytes or, while they wait for their commit, attributes;
    *committed* is the count that the last commit covered.

    *replaces* is the nuid of the version that its commit may replace without anybody losing what
    they wrote, empty for none: *base*, or what a rename put it in the place of.  *appended_from* is
    where the bytes begin that were appended since the last commit; None once anything else was done
    to its bytes.  *refused* says that it gave way to another client's version (A4).  *bucket* is
    the identity of the bucket that it is a file of: it is never stored in another of its name.
    """

    __slots__ = (
        "appended_from",
        "base",
        "bucket",
        "changes",
        "committed",
        "content",
        "entry",
        "handles",
        "journaled",
        "leaf",
        "lock",
        "pages_true",
        "promised",
        "refused",
        "replaces",
        "supplants",
        "tried",
        "troubled",
        "written",
        "yields",
    )

    def __init__(self, leaf: Leaf, base: ObjectInfo | None, bucket: str) -> None:
        self.leaf = leaf
        self.bucket = bucket
        self.base = base
        self.content: Content | None = None
        self.handles: set[FileHandle] = set()
        self.lock = trio.Lock()
        # A file without a version, just created, has to be committed even if nothing is written.
        self.changes = 0 if base is not None else 1
        self.committed = 0
        #: Whether the kernel has no pages but true ones: of *base* and of what was written to it.
        self.pages_true = base is None or leaf.cached == base.nuid
        self.replaces = base.nuid if base is not None else ""
        self.appended_from: int | None = self.size
        self.refused = False
        #: Whether *replaces* was another file, of which it has the name and nothing else.
        self.supplants = False
        #: The nuid of the version that a rename may have put in its place: nobody knows whether it
        #: did until the bucket is seen, and its commit must not destroy that one.
        self.yields = ""
        #: The nuids of versions that commits since the last one that succeeded were to store: the
        #: server may have any of them.
        self.tried: set[str] = set()
        #: Bytes that were written since the last commit.
        self.written = 0
        #: Whether the log says that it is not saved yet.
        self.troubled = False
        #: What the journal has of it, and the content that this is about.
        self.entry: Entry | None = None
        self.journaled: Content | None = None
        #: What was closed and is not stored, while the file is written again (W7, W8).
        self.promised: Promised | None = None

    @property
    def dirty(self) -> bool:
        """Whether there is something that JetStream has not acknowledged, and may yet."""
        return self.changes != self.committed and not self.refused

    @property
    def append_only(self) -> bool:
        """Whether nothing but appending was done to its bytes since the last commit."""
        return self.appended_from is not None

    @property
    def size(self) -> int:
        """Bytes, as programs on this mount see the file now."""
        if self.content is not None:
            return self.content.size
        return self.base.size if self.base is not None else 0


@dataclass(frozen=True, slots=True)
class Promised:
    """What the journal keeps until something newer is safe: its *entry*, and the *content* that has
    the bytes if the entry has not.  That is still the content of *holder*, if there is one."""

    entry: Entry
    content: Spool | Outflow | None = None
    holder: OpenFile | None = None

    def end(self) -> None:
        """Something newer is safe, or nobody wants it."""
        self.entry.end()
        if self.content is None:
            return
        if self.holder is not None and self.holder.content is self.content and self.holder.handles:
            self.content.let_go()
        else:
            self.content.drop()


def is_dirty(leaf: Leaf) -> bool:
    """Whether *leaf* is a file with something that JetStream has not acknowledged."""
    return isinstance(leaf.file, OpenFile) and leaf.file.dirty


def is_written(node: Node) -> bool:
    """Whether somebody has *node* open for writing."""
    file = node.file if isinstance(node, Leaf) else None
    return isinstance(file, OpenFile) and is_open_for_writing(file)


def is_open_for_writing(file: OpenFile) -> bool:
    """Whether *file* has a handle whose close will commit it."""
    return any(handle.writable for handle in file.handles)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who changes a file.  One with *privileged* (CAP_FSETID) leaves set-ID bits alone; *member_of*
    says whether a group is among the caller's, and is asked only where a bit hangs on it."""

    privileged: bool = True
    member_of: Callable[[int], bool] = lambda gid: True


#: Who may change everything.
SUPERUSER = Caller()


@dataclass(slots=True, eq=False)
class FileHandle:
    """One open file description.  *stream* reads the base version with this handle's read-ahead."""

    file: OpenFile
    readable: bool
    writable: bool
    append: bool
    #: Who opened it.
    caller: Caller = SUPERUSER
    #: Whether opening it created or cut the file, which its close then has to commit even if it may
    #: not write.
    changed: bool = False
    #: Whether it may have been read: the kernel asks for what it does not have in its pages.
    was_read: bool = False
    #: Whether reading it is to leave no trace (O_NOATIME).
    silent: bool = False
    #: Whether a close has committed what was written by it, and it is open still.
    stored: bool = False
    stream: VersionReader | None = None
    #: Whether the kernel was ordered to drop the pages, and has not shown that it did: an answer
    #: takes effect when the program that waits for it is scheduled.
    dropping: bool = False

    @property
    def commits(self) -> bool:
        """Whether closing it commits."""
        return self.writable or self.changed

    def heard_of(self) -> None:
        """The kernel has sent a request for this handle, so it has seen the answer to its open."""
        if self.dropping:
            self.dropping = False
            self.file.pages_true = True


@dataclass(slots=True, eq=False)
class DirectoryHandle:
    """One open directory.  *names* is a snapshot, taken when a listing starts at its beginning:
    whatever comes and goes meanwhile, no name is skipped or seen twice."""

    directory: Directory
    names: list[bytes] | None = None


Handle = FileHandle | DirectoryHandle
HandleT = TypeVar("HandleT", FileHandle, DirectoryHandle)


class HandleTable:
    """Numbers for open handles, as the kernel wants them; *slot* is that of the tree."""

    def __init__(self, slot: int = 0) -> None:
        self._handles: dict[int, Handle] = {}
        self._last = slot << SLOT_BITS

    def __len__(self) -> int:
        return len(self._handles)

    def add(self, handle: Handle) -> int:
        """A number for *handle*, never used before on this mount."""
        self._last += 1
        self._handles[self._last] = handle
        return self._last

    def get(self, number: int, kind: type[HandleT]) -> HandleT:
        """The handle with this number.  Errors: `BadHandle` when it is not an open *kind*."""
        handle = self._handles.get(number)
        if not isinstance(handle, kind):
            raise BadHandle(f"handle {number} is not an open {kind.__name__}")
        return handle

    def remove(self, number: int) -> Handle | None:
        """Close the number; its handle, if it had one."""
        return self._handles.pop(number, None)

    def files(self) -> list[OpenFile]:
        """Every open file, once."""
        found = (h.file for h in self._handles.values() if isinstance(h, FileHandle))
        return list(dict.fromkeys(found))
