"""Inode numbers, and which nodes the kernel holds a reference to.

A number is given to a node when the kernel first hears of it and stays with the node while the
mount lasts, over renames and unlinks (M7).  The table holds the nodes whose lookup count is above
zero, and the root: the kernel may name those, and no others, in a request.

Pure and synchronous: every method is atomic.
"""

from __future__ import annotations

from natsfs.errors import StaleVersion

#: FUSE's number for the root of a mount.
ROOT_INO = 1


class Numbered:
    """Something the kernel can know: *ino* is 0 until it does, *lookups* is its lookup count."""

    __slots__ = ("ino", "lookups")

    def __init__(self) -> None:
        self.ino = 0
        self.lookups = 0


class InodeTable:
    """The nodes that the kernel may name."""

    def __init__(self, root: Numbered) -> None:
        self._nodes: dict[int, Numbered] = {ROOT_INO: root}
        self._last = ROOT_INO
        root.ino = ROOT_INO

    def __len__(self) -> int:
        return len(self._nodes)

    def number(self, node: Numbered) -> int:
        """The inode number of *node*, given now if it has none."""
        if not node.ino:
            self._last += 1
            node.ino = self._last
        return node.ino

    def remember(self, node: Numbered) -> int:
        """Count one lookup of *node*, which a reply announces to the kernel; return its number."""
        ino = self.number(node)
        node.lookups += 1
        self._nodes[ino] = node
        return ino

    def forget(self, ino: int, count: int) -> None:
        """Take *count* lookups back.  At zero the kernel no longer knows the number."""
        node = self._nodes.get(ino)
        if node is None or ino == ROOT_INO:
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
