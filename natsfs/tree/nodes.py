"""What the tree is made of: directories, leaves, and what can change about them.

A `Directory` may have an object that marks it.  A `Leaf` is everything else; one without an *info*
exists in this mount only, until its commit.  Nodes know their place; only `tree.namespace` moves
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from natsfs.store.model import ObjectInfo
from natsfs.tree.children import Children
from natsfs.tree.inodes import Numbered
from natsfs.tree.names import (
    decode_component,
    decorations,
    encode_component,
    split_name,
)

#: The object that carries the attributes of the bucket's own directory: ".", marked as every other
#: directory is.  A directory called "．" at the top can therefore not have a marker of its own.
ROOT_MARKER = "./"


class Node(Numbered):
    """An entry of the tree.  Without a *parent* it is the root, or no longer part of the tree."""

    __slots__ = ("attributes", "name", "parent")

    def __init__(self, parent: Directory | None, name: bytes) -> None:
        super().__init__()
        self.parent = parent
        self.name = name
        #: What the layer above decoded from the meta; None when that has to be done (again).
        self.attributes: Any = None


class Directory(Node):
    """A directory.  *text* is its component of the object names below it.

    *changed* is the revision and the server's time of the newest meta by which an entry came or
    went, from which the layer above tells mtime.
    """

    __slots__ = (
        "changed",
        "children",
        "displaced",
        "marker",
        "removed",
        "subdirectories",
        "text",
    )

    def __init__(self, parent: Directory | None, name: bytes, text: str) -> None:
        super().__init__(parent, name)
        self.text = text
        self.children: Children[Node] = Children()
        #: Entries that are shown under another name, by the name they would have.
        self.displaced: dict[bytes, list[Node]] = {}
        self.marker: ObjectInfo | None = None
        #: Whether a foreign client deleted the marker, so that the directory goes when it is empty.
        self.removed = False
        self.subdirectories = 0
        self.changed = (0, 0)

    @property
    def prefix(self) -> str:
        """What the names of all objects below begin with: empty, or ending in a slash."""
        texts = []
        node = self
        while node.parent is not None:
            texts.append(node.text)
            node = node.parent
        return "".join(f"{text}/" for text in reversed(texts))

    @property
    def marker_name(self) -> str:
        """The name of the object that marks this directory."""
        return self.prefix or ROOT_MARKER

    def child_name(self, name: bytes) -> str:
        """The name of the object that a program means by creating *name* here."""
        return self.prefix + decode_component(name)

    def within(self, other: Directory) -> bool:
        """Whether this is *other* or below it."""
        node: Directory | None = self
        while node is not None:
            if node is other:
                return True
            node = node.parent
        return False


class Leaf(Node):
    """Anything but a directory.  *file* is the open file that the layer above keeps for it.
    *successor* has its name since another client wrote a version that *file* does not read."""

    __slots__ = ("cached", "file", "info", "successor", "told_size")

    def __init__(self, parent: Directory | None, name: bytes, info: ObjectInfo | None) -> None:
        super().__init__(parent, name)
        self.info = info
        self.file: Any = None
        self.successor: Leaf | None = None
        #: The nuid of the version whose pages the kernel may have.
        self.cached = ""
        #: The size that the kernel takes it to have.
        self.told_size = -1

    @property
    def object_name(self) -> str:
        """The name of its object, or of the one that its commit will create.

        Only for leaves that are part of the tree.
        """
        if self.info is not None:
            return self.info.name
        assert self.parent is not None
        return self.parent.child_name(self.name)

    @property
    def heir(self) -> Leaf:
        """Who has its name now: itself while it is part of the tree."""
        leaf = self
        while leaf.parent is None and leaf.successor is not None:
            leaf = leaf.successor
        return leaf


class Hardlink(Leaf):
    """Another name of a leaf: a native link whose metadata calls it hard (K7).

    It stands for its `Namespace.primary`.  Without one, because a foreign client removed that, it
    is what foreign clients see: a link that leads nowhere.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class EntryChange:
    """*name* in *parent* means something else now.  *gone* is what it meant, if that is no more."""

    parent: Directory
    name: bytes
    gone: Node | None = None


@dataclass(frozen=True, slots=True)
class NodeChange:
    """Attributes or bytes of *node* changed."""

    node: Node


Change = EntryChange | NodeChange
NodeT = TypeVar("NodeT", bound=Node)


def walk(directory: Directory) -> Iterator[Node]:
    """Every node below *directory*, parents before their children."""
    pending = [directory]
    while pending:
        for node in list(pending.pop().children.values()):
            yield node
            if isinstance(node, Directory):
                pending.append(node)


def walk_directories(directory: Directory) -> Iterator[Directory]:
    """*directory* and every one below it, parents first; makes no nodes of packed entries."""
    pending = [directory]
    while pending:
        found = pending.pop()
        yield found
        pending += (node for node in found.children.nodes() if isinstance(node, Directory))


def is_below(node: Node, directory: Directory) -> bool:
    """Whether *node* is in *directory*, at any depth."""
    return node.parent is not None and node.parent.within(directory)


def info_of(node: Node | None) -> ObjectInfo | None:
    """The meta behind *node*, if it has one."""
    if isinstance(node, Directory):
        return node.marker
    return node.info if isinstance(node, Leaf) else None


def is_marker(info: ObjectInfo) -> bool:
    """Whether a name that ends in a slash means the directory, and not a file "／" in it."""
    return info.name.endswith("/") and not info.size and info.link is None


def called(directory: Directory, text: str, kind: type[NodeT]) -> NodeT | None:
    """The child of this *kind* that has *text* as its component in object names."""
    component = encode_component(text)
    candidates = [directory.children.get(component), *directory.displaced.get(component, ())]
    for child in candidates:
        if isinstance(child, kind) and component_text(child) == text:
            return child
    return None


def component_text(node: Node) -> str:
    """The component that *node* has in object names."""
    if isinstance(node, Directory):
        return node.text
    assert isinstance(node, Leaf)
    return split_name(node.object_name)[1]


def is_displaced(node: Node) -> bool:
    """Whether *node* is shown under a name that is not its own."""
    parent = node.parent
    if parent is None or not parent.displaced:
        return False
    return any(
        node is other for other in parent.displaced.get(encode_component(component_text(node)), ())
    )


def forget_displaced(directory: Directory, node: Node) -> None:
    """*node*, still in *directory*, does not wait for another name there any more."""
    component = encode_component(component_text(node)) if directory.displaced else b""
    waiting = directory.displaced.get(component)
    if waiting is not None:
        waiting[:] = [other for other in waiting if other is not node]
        if not waiting:
            del directory.displaced[component]


def note_change(directory: Directory, info: ObjectInfo) -> None:
    """An entry of *directory* came or went with the meta *info*."""
    directory.changed = max(directory.changed, (info.revision, info.time_ns))
    directory.attributes = None


def free_name(directory: Directory, component: bytes, key: str) -> bytes:
    """A name for an entry that cannot have *component*; *key* tells it from all others."""
    return next(name for name in decorations(component, key) if name not in directory.children)
