"""Read-ahead across files: a program that reads the small files of a directory one after the other
finds the next ones already there.

A file of one chunk costs a round trip, and a program that copies a tree waits for one after the
other.  So when two files that follow each other are opened for reading, in the order in which the
directory is listed or in that of their names, the ones behind them are asked for together, several
requests on the wire at once; more of them the longer it goes on.  What comes waits in the reader's
memory like anything else that was read ahead (R1 to R4 hold as for that).

Concurrency: synchronous; what is asked for arrives by a task of the reader's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from natsfs.filesystem.state import Mounted
from natsfs.store.model import DEFAULT_CHUNK_SIZE
from natsfs.tree.nodes import Directory, Leaf

#: Bytes of a small file: one default chunk, which is one request.  The read-ahead within a file
#: takes care of others.
SMALL = DEFAULT_CHUNK_SIZE

#: Files asked for at once, when a walk is recognised and at most.  32 of them are 4 MiB, as much as
#: is asked for ahead within a large file.
FIRST, MOST = 4, 32

#: Entries that a walk may skip from one file to the next: directories, links, what it does not
#: read.
SKIPS = 8

#: Directories larger than this are not looked at: putting their names in order takes 20 ms.
LARGEST = 20_000

#: Directories in which walks are remembered: a tree is read depth first, one walk a level.
WALKS = 16


class Walks:
    """The walks through one mount."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        self._walks: OrderedDict[Directory, _Walk] = OrderedDict()

    def opened(self, leaf: Leaf) -> None:
        """*leaf* is opened for reading, and the kernel has nothing of it."""
        directory = leaf.parent
        if directory is None or not _is_small(leaf):
            return
        walk = self._walks.get(directory)
        if walk is None:
            self._walks[directory] = _Walk(leaf.name)
            if len(self._walks) > WALKS:
                self._walks.popitem(last=False)
            return
        self._walks.move_to_end(directory)
        ahead = (directory.children.get(name) for name in walk.reached(leaf.name, directory))
        wanted = (node for node in ahead if isinstance(node, Leaf) and _is_small(node))
        found = [node.info for node in wanted if _is_unknown(node)]
        self._m.reader.expect([info for info in found if info is not None])


class _Walk:
    """A walk that has come to the file *last*."""

    def __init__(self, last: bytes) -> None:
        self._last = last
        #: The names in the order of the walk, empty while it has none.
        self._order: list[bytes] = []
        self._position = 0
        self._asked = 0
        self._count = FIRST
        #: How many opened files to wait for before an order is looked for again, and then.
        self._patience = 0
        self._backoff = 1

    def reached(self, name: bytes, directory: Directory) -> Iterator[bytes]:
        """The walk, or whatever it is, has come to *name*: which names to ask for now."""
        position = _next(self._order, self._position, name)
        if position is None:
            self._begin(name, directory)
        else:
            self._position = position
        self._last = name
        ahead = self._asked - self._position
        if not self._order or ahead > self._count // 2:
            return iter(())
        first, stop = max(self._asked, self._position + 1), self._position + 1 + self._count
        self._asked = stop
        self._count = min(2 * self._count, MOST)
        return islice(self._order, first, stop)

    def _begin(self, name: bytes, directory: Directory) -> None:
        """Look for an order in which *name* comes after the last one."""
        self._order, nearest = [], SKIPS
        if self._patience or len(directory.children) > LARGEST:
            self._patience = max(0, self._patience - 1)
            return
        listed = list(directory.children)
        for order in (listed, sorted(listed)):
            if self._last not in order:
                continue
            begin = order.index(self._last)
            position = _next(order, begin, name)
            # By chance one may be near the other in both orders: the nearer one is meant.
            if position is not None and not (self._order and nearest <= position - begin):
                nearest = position - begin
                self._order, self._position, self._asked = order, position, position + 1
        if self._order:
            self._count, self._backoff = FIRST, 1
        else:
            # Random reads: look again later and later.
            self._patience, self._backoff = self._backoff, min(2 * self._backoff, 1024)


def _next(order: list[bytes], position: int, name: bytes) -> int | None:
    """Where *name* is among the next entries of *order*."""
    for index in range(position + 1, min(position + 1 + SKIPS, len(order))):
        if order[index] == name:
            return index
    return None


def _is_small(leaf: Leaf) -> bool:
    return leaf.info is not None and leaf.info.link is None and 0 < leaf.info.size <= SMALL


def _is_unknown(leaf: Leaf) -> bool:
    """Whether the kernel has no pages of *leaf*, and nobody has it open."""
    return leaf.file is None and leaf.info is not None and leaf.cached != leaf.info.nuid
