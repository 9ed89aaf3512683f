"""The directory tree that the flat names of a bucket's objects imply.

The only module that decides which path an object has: what a prefix of a name is (N1, N5), who
keeps a name that two want (N3), what a long name is shown as (N4).  The tree is kept true by
`apply`, which takes metas in any order and ignores those older than what it knows, and by the
`place`/`detach` family, by which this mount's own operations change it.

A tree holds two kinds of node: a `Directory`, with or without an object that marks it, and a
`Leaf`, everything else.  A leaf without an *info* exists in this mount only, until its commit.

Pure and synchronous: every method is atomic, and nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from natsfs.store.model import ObjectInfo
from natsfs.tree.inodes import Numbered
from natsfs.tree.names import (
    MAX_COMPONENT,
    decode_component,
    decorations,
    encode_component,
    is_canonical,
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

    __slots__ = ("changed", "children", "displaced", "marker", "subdirectories", "text")

    def __init__(self, parent: Directory | None, name: bytes, text: str) -> None:
        super().__init__(parent, name)
        self.text = text
        self.children: dict[bytes, Node] = {}
        #: Entries that are shown under another name, by the name they would have.
        self.displaced: dict[bytes, list[Node]] = {}
        self.marker: ObjectInfo | None = None
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
    """Anything but a directory.  *file* is the open file that the layer above keeps for it."""

    __slots__ = ("cached", "file", "info")

    def __init__(self, parent: Directory | None, name: bytes, info: ObjectInfo | None) -> None:
        super().__init__(parent, name)
        self.info = info
        self.file: Any = None
        #: The nuid of the version whose pages the kernel may have.
        self.cached = ""

    @property
    def object_name(self) -> str:
        """The name of its object, or of the one that its commit will create.

        Only for leaves that are part of the tree.
        """
        if self.info is not None:
            return self.info.name
        assert self.parent is not None
        return self.parent.child_name(self.name)


@dataclass(frozen=True, slots=True)
class EntryChange:
    """*name* in *parent* means something else now.  *gone* is what it meant, if that is no more."""

    parent: Directory
    name: bytes
    gone: Node | None = None


@dataclass(frozen=True, slots=True)
class NodeChange:
    """Attributes of *node* changed, and with *content* its bytes."""

    node: Node
    content: bool = False


Change = EntryChange | NodeChange


class Namespace:
    """The tree of one bucket."""

    def __init__(self) -> None:
        self.root = Directory(None, b"", "")
        self._by_subject: dict[str, Leaf | Directory] = {}
        #: Revisions of tombstones, which a compare-and-set that re-creates the name must state.
        self._graves: dict[str, int] = {}

    # -- questions --------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many objects the bucket shows."""
        return len(self._by_subject)

    def find(self, subject: str) -> Leaf | Directory | None:
        """The node whose meta is on *subject*."""
        return self._by_subject.get(subject)

    def subjects(self) -> list[str]:
        """The subjects of all objects, as they are now."""
        return list(self._by_subject)

    def last_revision(self, subject: str) -> int:
        """The newest revision known on *subject*, alive or deleted; 0 if there was none."""
        node = self._by_subject.get(subject)
        info = _info_of(node) if node is not None else None
        return info.revision if info is not None else self._graves.get(subject, 0)

    def resolve(self, name: str) -> Node | None:
        """The node that the object *name* is, or the directory that *name* is the prefix of."""
        directories, last = split_name(name)
        node: Node | None = self.root
        for text in (*directories, last):
            if not isinstance(node, Directory):
                return None
            node = _child_called(node, text)
        return node

    # -- what the bucket says ---------------------------------------------------------------------

    def apply(self, info: ObjectInfo) -> list[Change]:
        """Take in one meta message; what the kernel has to be told of it comes back.

        Metas that are not newer than what is known on their subject change nothing.
        """
        if info.revision <= self.last_revision(info.subject):
            return []
        node = self._by_subject.get(info.subject)
        if info.deleted:
            self._graves[info.subject] = info.revision
            return [] if node is None else self._drop(node, info)
        self._graves.pop(info.subject, None)
        if node is None:
            return self._add(info)
        known = _info_of(node)
        if known is None or known.name != info.name or _is_marker(info) != _is_marker(known):
            return self._drop(node, info) + self._add(info)
        return self._update(node, info)

    def vanish(self, subject: str) -> list[Change]:
        """The meta on *subject* is gone without a tombstone: purged or expired."""
        self._graves.pop(subject, None)
        node = self._by_subject.get(subject)
        return [] if node is None else self._drop(node, None)

    def confirm(self, node: Leaf | Directory, info: ObjectInfo) -> None:
        """This mount's own commit of *node* was acknowledged as *info*.

        Nothing needs to be told to the kernel.  A newer meta that came in meanwhile stays.
        """
        known = _info_of(node)
        if known is not None and known.subject != info.subject:
            if self._by_subject.get(known.subject) is node:
                del self._by_subject[known.subject]
        elif known is not None and known.revision >= info.revision:
            return
        self._graves.pop(info.subject, None)
        self._by_subject[info.subject] = node
        if isinstance(node, Directory):
            node.marker = info
        else:
            node.info = info

    def supersede(self, leaf: Leaf) -> None:
        """The next version of *leaf*'s object gets a node of its own, under the same name; *leaf*
        leaves the tree as it is, for those who have it open (R1)."""
        assert leaf.parent is not None
        assert leaf.info is not None
        self._by_subject.pop(leaf.info.subject, None)
        del leaf.parent.children[leaf.name]
        _forget_displaced(leaf.parent, leaf)
        leaf.parent = None

    def unset(self, leaf: Leaf, grave: ObjectInfo | None) -> None:
        """The object of *leaf* is gone, as *grave* or nothing says, but *leaf* stays: this mount is
        about to commit a new version of it."""
        assert leaf.info is not None
        self._by_subject.pop(leaf.info.subject, None)
        if grave is not None:
            self._graves[grave.subject] = grave.revision
        leaf.info = None

    def bury(self, info: ObjectInfo) -> None:
        """This mount's own tombstone *info* was acknowledged; its node is no longer in the tree."""
        node = self._by_subject.get(info.subject)
        known = _info_of(node) if node is not None else None
        if known is None or known.revision < info.revision:
            self._by_subject.pop(info.subject, None)
            self._graves[info.subject] = info.revision

    def forget_marker(self, directory: Directory) -> None:
        """*directory* has no marker any more, or its marker is about to get another name."""
        if directory.marker is not None:
            self._by_subject.pop(directory.marker.subject, None)
            directory.marker = None

    # -- what this mount does ---------------------------------------------------------------------

    def place(self, node: Node, parent: Directory, name: bytes) -> None:
        """Give *node*, which has no place, the free name *name* in *parent*."""
        assert name not in parent.children
        node.parent = parent
        node.name = name
        parent.children[name] = node
        if isinstance(node, Directory):
            node.text = decode_component(name)
            parent.subdirectories += 1

    def detach(self, node: Node) -> list[Change]:
        """Take *node* out of its directory.  Whoever it had displaced gets its name."""
        parent = node.parent
        assert parent is not None
        if parent.children.get(node.name) is node:
            del parent.children[node.name]
        if isinstance(node, Directory):
            parent.subdirectories -= 1
        _forget_displaced(parent, node)
        node.parent = None
        return self._reinstate(parent, node.name)

    # -- inside -----------------------------------------------------------------------------------

    def _add(self, info: ObjectInfo) -> list[Change]:
        directories, text = split_name(info.name)
        if info.name == ROOT_MARKER:
            return self._mark(self.root, info)
        changes: list[Change] = []
        directory = self.root
        for part in directories:
            directory = self._enter(directory, part, info, changes)
        if _is_marker(info):
            return changes + self._mark(directory, info)
        _touch(directory, info)
        holder = _child_called(directory, text)
        if isinstance(holder, Leaf) and holder.info is None:
            # Somebody else was faster than our own commit, which will replace this version.
            holder.info = info
            self._by_subject[info.subject] = holder
            return [*changes, NodeChange(holder)]
        self._by_subject[info.subject] = leaf = Leaf(directory, b"", info)
        return changes + self._adopt(directory, leaf, encode_component(text), is_canonical(text))

    def _mark(self, directory: Directory, info: ObjectInfo) -> list[Change]:
        if directory.marker is not None:
            self._by_subject.pop(directory.marker.subject, None)
        directory.marker = info
        directory.attributes = None
        self._by_subject[info.subject] = directory
        return [NodeChange(directory)]

    def _enter(
        self, directory: Directory, text: str, info: ObjectInfo, changes: list[Change]
    ) -> Directory:
        """The subdirectory for *text*, made if there is none, because *info* implies it."""
        found = _child_called(directory, text)
        if isinstance(found, Directory):
            return found
        component = encode_component(text)
        child = Directory(directory, component, text)
        if len(component) > MAX_COMPONENT or not is_canonical(text):
            child.name = _free_name(directory, component, f"{directory.prefix}{text}/")
            directory.displaced.setdefault(component, []).append(child)
        name = child.name
        holder = directory.children.pop(name, None)
        directory.children[name] = child
        directory.subdirectories += 1
        child.changed = (0, info.time_ns)
        _touch(directory, info)
        changes.append(EntryChange(directory, name))
        if isinstance(holder, Leaf):
            changes += self._displace(directory, holder)
        return child

    def _adopt(
        self, directory: Directory, leaf: Leaf, component: bytes, canonical: bool
    ) -> list[Change]:
        """Find a name in *directory* for *leaf*, which would be called *component*."""
        holder = directory.children.get(component)
        owns = canonical and len(component) <= MAX_COMPONENT
        if not owns or isinstance(holder, Directory) or (holder and not _is_displaced(holder)):
            return self._show_elsewhere(directory, leaf, component)
        directory.children[component] = leaf
        leaf.name = component
        changes: list[Change] = [EntryChange(directory, component)]
        if isinstance(holder, Leaf):
            changes += self._displace(directory, holder)
        return changes

    def _displace(self, directory: Directory, leaf: Leaf) -> list[Change]:
        """*leaf* has just lost its name to a better claim."""
        _forget_displaced(directory, leaf)
        return self._show_elsewhere(directory, leaf, encode_component(_text_of(leaf)))

    def _show_elsewhere(self, directory: Directory, leaf: Leaf, component: bytes) -> list[Change]:
        key = leaf.info.subject if leaf.info is not None else leaf.object_name
        leaf.name = _free_name(directory, component, key)
        directory.children[leaf.name] = leaf
        if leaf.info is not None:
            # One without a meta will be created under the name that it is shown as from now on.
            directory.displaced.setdefault(component, []).append(leaf)
        return [EntryChange(directory, leaf.name)]

    def _reinstate(self, directory: Directory, name: bytes) -> list[Change]:
        """*name* became free: let the first of those who wanted it have it."""
        if name in directory.children:
            return []
        for leaf in directory.displaced.get(name, ()):
            if isinstance(leaf, Leaf) and is_canonical(_text_of(leaf)):
                _forget_displaced(directory, leaf)
                previous = leaf.name
                del directory.children[previous]
                return [EntryChange(directory, previous), *self._adopt(directory, leaf, name, True)]
        return []

    def _update(self, node: Leaf | Directory, info: ObjectInfo) -> list[Change]:
        known = _info_of(node)
        node.attributes = None
        if isinstance(node, Directory):
            node.marker = info
            return [NodeChange(node)]
        node.info = info
        content = known is None or (known.nuid, known.link) != (info.nuid, info.link)
        return [NodeChange(node, content)]

    def _drop(self, node: Leaf | Directory, successor: ObjectInfo | None) -> list[Change]:
        """The object behind *node* is gone; *successor* is the meta that says so, if one does."""
        if isinstance(node, Directory):
            self.forget_marker(node)
            node.attributes = None
            return self._drop_empty(node) or [NodeChange(node)]
        assert node.info is not None
        self._by_subject.pop(node.info.subject, None)
        parent, name = node.parent, node.name
        if parent is None:
            return []
        if successor is not None:
            _touch(parent, successor)
        return [EntryChange(parent, name, gone=node), *self.detach(node)]

    def _drop_empty(self, directory: Directory) -> list[Change]:
        """A foreign client deleted the marker: that is its rmdir, if nothing is left inside."""
        parent, name = directory.parent, directory.name
        if parent is None or directory.children:
            return []
        return [EntryChange(parent, name, gone=directory), *self.detach(directory)]


def walk(directory: Directory) -> Iterator[Node]:
    """Every node below *directory*, parents before their children."""
    pending = [directory]
    while pending:
        for node in list(pending.pop().children.values()):
            yield node
            if isinstance(node, Directory):
                pending.append(node)


def _info_of(node: Node | None) -> ObjectInfo | None:
    if isinstance(node, Directory):
        return node.marker
    return node.info if isinstance(node, Leaf) else None


def _is_marker(info: ObjectInfo) -> bool:
    """Whether a name that ends in a slash means the directory, and not a file "／" in it."""
    return info.name.endswith("/") and not info.size and info.link is None


def _child_called(directory: Directory, text: str) -> Node | None:
    """The child with this component in its object name: the directory, if there are both."""
    component = encode_component(text)
    child = directory.children.get(component)
    if child is not None and not _is_displaced(child) and _text_of(child) == text:
        return child
    for candidate in directory.displaced.get(component, ()):
        if _text_of(candidate) == text:
            return candidate
    return None


def _text_of(node: Node) -> str:
    if isinstance(node, Directory):
        return node.text
    assert isinstance(node, Leaf)
    return split_name(node.object_name)[1]


def _is_displaced(node: Node) -> bool:
    """Whether *node* is shown under a name that is not its own."""
    parent = node.parent
    if parent is None or not parent.displaced:
        return False
    return any(
        node is other for other in parent.displaced.get(encode_component(_text_of(node)), ())
    )


def _forget_displaced(directory: Directory, node: Node) -> None:
    component = encode_component(_text_of(node)) if directory.displaced else b""
    waiting = directory.displaced.get(component)
    if waiting is not None:
        waiting[:] = [other for other in waiting if other is not node]
        if not waiting:
            del directory.displaced[component]


def _touch(directory: Directory, info: ObjectInfo) -> None:
    directory.changed = max(directory.changed, (info.revision, info.time_ns))
    directory.attributes = None


def _free_name(directory: Directory, component: bytes, key: str) -> bytes:
    return next(name for name in decorations(component, key) if name not in directory.children)
