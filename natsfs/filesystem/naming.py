"""Which names may be created, and which to reserve for a change.

Pure: it looks at the tree and changes nothing.
"""

from __future__ import annotations

from natsfs.errors import (
    ExistsError,
    InvalidArgument,
    NameTooLongError,
    NotFoundError,
    NotPermitted,
)
from natsfs.filesystem.reservations import Key, Subtree
from natsfs.filesystem.state import Mounted
from natsfs.store.wire import meta_subject
from natsfs.tree.inodes import is_root
from natsfs.tree.names import MAX_COMPONENT
from natsfs.tree.nodes import ROOT_MARKER, Directory, Leaf


class Naming:
    """Checks names before anything is done for them."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted

    def check_name(self, parent: Directory, name: bytes, *, directory: bool = False) -> str:
        """The object name that creating a file, or *directory*, *name* in *parent* means.

        Errors: `NotFoundError` (*parent* was removed, perhaps by another client while a program
        is in it), `NameTooLongError`, `ReadOnlyError`, `InvalidArgument` (what would be stored
        under that name would mean something else), `NotPermitted` (only directories may be made).
        """
        self._m.check_writable()
        if parent.parent is None and parent is not self._m.namespace.root:
            raise NotFoundError("the directory was removed")
        check_length(name)
        if self._m.only_directories and not directory:
            raise NotPermitted("only buckets, which are directories, can be made here")
        object_name = parent.child_name(name)
        meta_subject(self._m.store.bucket, object_name + "/")
        if directory and object_name + "/" == ROOT_MARKER:
            raise InvalidArgument(f"{name!r} at the top would mark the bucket itself")
        if not directory and (not object_name or object_name.endswith("/")):
            raise InvalidArgument(f"a file {name!r} would mark the directory that it is in")
        return object_name

    def check_free(self, parent: Directory, name: bytes, *, directory: bool = False) -> str:
        """The same for a *name* that must not exist.  Errors: `ExistsError`, of `check_name`."""
        object_name = self.check_name(parent, name, directory=directory)
        if name in parent.children:
            raise ExistsError(f"entry {name!r} exists")
        return object_name


def check_length(name: bytes) -> None:
    """Errors: `NameTooLongError`; FUSE lets the kernel pass names longer than NAME_MAX."""
    if len(name) > MAX_COMPONENT:
        raise NameTooLongError(f"a name has at most {MAX_COMPONENT} bytes")


def name_of(leaf: Leaf) -> frozenset[Key]:
    """What to reserve for a change of *leaf*: nothing, once it has no name any more."""
    return frozenset() if leaf.parent is None else frozenset({leaf.object_name})


def names_of(mounted: Mounted, leaf: Leaf) -> frozenset[Key]:
    """Every name of the file that *leaf* is a name of."""
    file = mounted.namespace.primary(leaf)
    assert isinstance(file, Leaf)
    found: list[Leaf] = [leaf, file, *mounted.namespace.links_to(file)]
    return frozenset[Key]().union(*(name_of(other) for other in found))


def meta_of(node: Leaf | Directory) -> frozenset[Key]:
    """The name of the object that holds the attributes of *node*; none once it is removed."""
    if isinstance(node, Leaf):
        return name_of(node)
    if node.parent is None and not is_root(node.ino):
        return frozenset()
    return frozenset({node.marker_name})


def both(object_name: str) -> frozenset[Key]:
    """A name that may become a file's or a directory's."""
    return frozenset({object_name, Subtree(object_name + "/")})


def subtree(directory: Directory) -> frozenset[Key]:
    """All that is below *directory*, and its marker; nothing once it is removed."""
    return frozenset({Subtree(directory.prefix)}) if directory.parent is not None else frozenset()
