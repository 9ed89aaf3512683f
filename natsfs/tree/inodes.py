"""Inode numbers, and which nodes the kernel holds a reference to.

A number is given to a node when the kernel first hears of it and stays with the node while the
mount lasts, over renames and unlinks (M7).  The table holds the nodes whose lookup count is above
zero, and the root: the kernel may name those, and no others, in a request.

A mount may show several trees.  Each has a *slot*: the high bits of its numbers say whose they are.

Pure and synchronous: every method is atomic.
"""

from __future__ import annotations

from natsfs.errors import StaleVersion

#: FUSE's number for the root of a mount; in every slot it is the root's.
ROOT_INO = 1

#: Bits of a number below the slot: 2**40 nodes or open files for each of 2**24 trees, none of which
#: a mount uses up by giving out a thousand a second for years.
SLOT_BITS = 40


def slot_of(number: int) -> int:
    """The slot of the tree that gave out *number*."""
    return number >> SLOT_BITS


def root_of(slot: int) -> int:
    """The number of the root in *slot*."""
    return (slot << SLOT_BITS) | ROOT_INO


def is_root(ino: int) -> bool:
    """Whether *ino* is the number of a tree's root."""
    return ino == root_of(slot_of(ino))


class Numbered:
    """Something the kernel can know: *ino* is 0 until it does, *lookups* is its lookup count."""

    __slots__ = ("ino", "lookups")

    def __init__(self) -> None:
        self.ino = 0
        self.lookups = 0


class InodeTable:
    """The nodes of the tree in *slot* that the kernel may name."""

    def __init__(self, root: Numbered, slot: int = 0) -> None:
        self.slot = slot
        root.ino = root_of(slot)
        self._nodes: dict[int, Numbered] = {root.ino: root}
        self._last = root.ino

    def __len__(self) -> int:
        return len(self._nodes)

    def number(self, node: Numbered) -> int:
        """The inode number of *node*, given now if it has none."""
        if not node.ino:
            self._last += 1
            node.ino = self._last
        return node.ino

    def holds(self, ino: int) -> bool:
        """Whether *ino* is a number of this table, and not of another tree's."""
        return slot_of(ino) == self.slot

    def remember(self, node: Numbered) -> int:
        """Count one lookup of *node*, which a reply announces to the kernel; return its number.
        The root of another tree, which is never forgotten there, is not counted."""
        ino = self.number(node)
        if self.holds(ino):
            node.lookups += 1
            self._nodes[ino] = node
        return ino

    def forget(self, ino: int, count: int) -> None:
        """Take *count* lookups back.  At zero the kernel no longer knows the number."""
        node = self._nodes.get(ino)
        if node is None or is_root(ino):
            return
        node.lookups = max(0, node.lookups - count)
        if not node.lookups:
            del self._nodes[ino]

    def get(self, ino: int) -> Numbered:
        """The node with number *ino*.

        Errors: `StaleVersion` (ESTALE) for a number that the kernel was never given or gave back.
        """
        try:
            return self._nodes[ino]
        except KeyError:
            raise StaleVersion(f"inode {ino} is not known to this mount") from None
