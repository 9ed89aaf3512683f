"""The old and the new name of a rename, and what rename(2) says of such a pair.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from natsfs.errors import (
    ExistsError,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotEmptyError,
    NotFoundError,
)
from natsfs.tree.nodes import Directory, Leaf, Node


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a directory, and who has it now."""

    directory: Directory
    name: bytes
    node: Node | None

    @property
    def object_name(self) -> str:
        """The object name that a file here has or would get; of a directory, without the slash."""
        if isinstance(self.node, Leaf):
            return self.node.object_name
        if isinstance(self.node, Directory):
            return self.node.prefix[:-1]
        return self.directory.child_name(self.name)


#: Who has the old and the new name, looked up anew: another client may change it.
Places = Callable[[], tuple[Place, Place]]


def check_exchange(source: Place, target: Place) -> None:
    """Errors: `NotFoundError`, `InvalidArgument`."""
    if target.node is None:
        raise NotFoundError(f"no entry {target.name!r} to change places with")
    for a, b in ((source, target), (target, source)):
        if isinstance(a.node, Directory) and b.directory.within(a.node):
            raise InvalidArgument("a directory cannot change places with what is in it")


def check_move(source: Place, target: Place, *, replace_allowed: bool, resumed: bool) -> None:
    """*resumed* says that the target may have a part of what moves.

    Errors: `InvalidArgument` (a directory into itself), `ExistsError` (unless *replace_allowed*),
    `IsADirectory`, `NotADirectory`, `NotEmptyError`.
    """
    node, replaced = source.node, target.node
    if isinstance(node, Directory) and target.directory.within(node):
        raise InvalidArgument("a directory cannot be moved into itself")
    if replaced is None:
        return
    if not replace_allowed:
        raise ExistsError(f"entry {target.name!r} exists")
    if isinstance(replaced, Directory):
        if not isinstance(node, Directory):
            raise IsADirectory(f"{target.name!r} is a directory")
        if replaced.children and not resumed:
            raise NotEmptyError(f"directory {target.name!r} is not empty")
    elif isinstance(node, Directory):
        raise NotADirectory(f"{target.name!r} is not a directory")
