"""The directory tree that the flat names of a bucket's objects imply.

The only module that decides which path an object has: what a prefix of a name is (N1, N5), who
keeps a name that two want (N3), what a long name is shown as (N4).  The tree is kept true by
`apply`, which takes metas in any order and ignores those older than what it knows, and by the
`place`/`detach` family, by which this mount's own operations change it.

Pure and synchronous: every method is atomic, and nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable

from natsfs.store.model import ObjectInfo
from natsfs.tree.children import Children
from natsfs.tree.graves import Graves
from natsfs.tree.index import Index
from natsfs.tree.names import decode_component, encode_component, split_name
from natsfs.tree.nodes import (
    ROOT_MARKER,
    Change,
    Directory,
    EntryChange,
    Hardlink,
    Leaf,
    Node,
    NodeChange,
    called,
    component_text,
    forget_displaced,
    info_of,
    is_displaced,
    is_marker,
    note_change,
    walk_directories,
)
from natsfs.tree.placement import adopt, arrange_after, displace, stands_alone


class Namespace:
    """The tree of one bucket."""

    def __init__(self, is_hard_link: Callable[[ObjectInfo], bool] = lambda info: False) -> None:
        self.root = Directory(None, b"", "")
        self._is_hard_link = is_hard_link
        #: Hard links by the name of the object that they link to.
        self._links: dict[str, list[Hardlink]] = {}
        self.index = Index(self.root)
        self.graves = Graves()
        #: The directory that `load` put something into last, and what names there begin with.
        self._recent: tuple[str, Directory] | None = None

    # -- questions --------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many objects the bucket shows."""
        return len(self.index)

    def find(self, subject: str) -> Leaf | Directory | None:
        """The node whose meta is on *subject*."""
        return self.index.find(subject)

    def subjects_with(self, nuid: str) -> tuple[str, ...]:
        """The subjects whose objects have the version *nuid*: one, but for renames half done."""
        return self.index.subjects_with(nuid)

    def subjects(self) -> list[str]:
        """The subjects of all objects, as they are now."""
        return self.index.subjects()

    def last_revision(self, subject: str) -> int:
        """The newest revision known on *subject*, alive or deleted; 0 if there was none."""
        return self.index.revision(subject) or self.graves.revision(subject)

    def resolve(self, name: str) -> Node | None:
        """The node that the object *name* is, or else the directory that it is a prefix for."""
        if name == ROOT_MARKER and self.root.marker is not None:
            return self.root
        directories, last = split_name(name)
        node = self.root
        for text in directories:
            below = called(node, text, Directory)
            if below is None:
                return None
            node = below
        if not last and node.marker is not None:
            return node
        return called(node, last, Leaf) or called(node, last, Directory)

    def primary(self, node: Node) -> Node:
        """The node that *node* stands for: the file of a hard link, anything else itself."""
        if not isinstance(node, Hardlink) or node.info is None:
            return node
        link = node.info.link
        target = self.resolve(link.name) if link is not None and link.name is not None else None
        return node if target is None or isinstance(target, Hardlink | Directory) else target

    @property
    def has_links(self) -> bool:
        """Whether any file has more than one name."""
        return bool(self._links)

    def links_to(self, leaf: Leaf) -> list[Hardlink]:
        """The other names of *leaf*, which is part of the tree."""
        return list(self._links.get(leaf.object_name, ())) if leaf.parent is not None else []

    # -- what the bucket says ---------------------------------------------------------------------

    def apply(self, info: ObjectInfo) -> list[Change]:
        """Take in one meta message; what the kernel has to be told of it comes back.

        Metas that are not newer than what is known on their subject change nothing.
        """
        if info.revision <= self.last_revision(info.subject):
            return []
        self._recent = None
        node = self.index.find(info.subject)
        if info.deleted:
            self.graves.add(info)
            return [] if node is None else self._drop(node, info)
        self.graves.discard(info.subject)
        if node is None:
            return self._add(info)
        known = info_of(node)
        if known is None or known.name != info.name or self._kind(known) != self._kind(info):
            return self._drop(node, info) + self._add(info)
        return self._update(node, info)

    def load(self, info: ObjectInfo) -> bool:
        """Take in a new object as `apply` does, in a fifth of the time, if that concerns nothing
        that is known.  Only while nobody has looked at the tree, who would have to be told."""
        text = info.name.rpartition("/")[2]
        known = info.subject in self.graves or self.index.is_node(info.subject)
        if not text or info.deleted or known or info.name in self._links:
            return False
        prefix = info.name.removesuffix(text)
        if self._recent is None or self._recent[0] != prefix:
            self._recent = prefix, self._reach(split_name(info.name)[0], info, [])
        parent, component = self._recent[1], encode_component(text)
        if not stands_alone(parent, component, text):
            return False
        note_change(parent, info)
        return self.index.pack(parent, component, info)

    def vanish(self, subject: str) -> list[Change]:
        """The meta on *subject* is gone without a tombstone: purged or expired."""
        self.graves.discard(subject)
        node = self.index.find(subject)
        return [] if node is None else self._drop(node, None)

    def confirm(self, node: Leaf | Directory, info: ObjectInfo) -> None:
        """This mount's own commit of *node* was acknowledged as *info*.

        Nothing needs to be told to the kernel.  A newer meta that came in meanwhile stays.
        """
        known = info_of(node)
        if known is not None and known.subject == info.subject and known.revision >= info.revision:
            return
        self._unregister(node)
        self.graves.discard(info.subject)
        self._register(node, info)

    def supersede(self, leaf: Leaf) -> None:
        """The next version of *leaf*'s object gets a node of its own, under the same name; *leaf*
        leaves the tree as it is, for those who have it open (R1)."""
        assert leaf.parent is not None
        self._unregister(leaf)
        del leaf.parent.children[leaf.name]
        forget_displaced(leaf.parent, leaf)
        leaf.parent = None

    def reclaim(self, leaf: Leaf, holder: Leaf) -> list[Change]:
        """*leaf*, which was superseded, takes the place and the meta of *holder*, which is now."""
        parent, name, info = holder.parent, holder.name, holder.info
        assert parent is not None
        displaced = is_displaced(holder)
        self.supersede(holder)
        leaf.parent, leaf.name = parent, name
        parent.children[name] = leaf
        if info is None:
            leaf.info = None
        else:
            self.confirm(leaf, info)
        if displaced:
            component = encode_component(component_text(leaf))
            parent.displaced.setdefault(component, []).append(leaf)
        return [EntryChange(parent, name)]

    def unset(self, leaf: Leaf, grave: ObjectInfo | None) -> None:
        """The object of *leaf* is gone, as *grave* or nothing says, but *leaf* stays: this mount is
        about to commit a new version of it."""
        assert leaf.parent is not None
        forget_displaced(leaf.parent, leaf)
        self._unregister(leaf)
        if grave is not None:
            self.graves.add(grave)
        leaf.info = None

    def clear(self) -> None:
        """Nothing is known any more of what was never shown to anybody."""
        self.root.children, self.root.displaced = Children(), {}
        self.root.marker, self.root.attributes, self.root.subdirectories = None, None, 0
        self._recent = None
        for known in (self._links, self.index, self.graves):
            known.clear()

    def bury(self, info: ObjectInfo) -> None:
        """This mount's own tombstone *info* was acknowledged; its node is no longer in the tree."""
        node = self.index.find(info.subject)
        known = info_of(node)
        if node is None or known is None or known.revision < info.revision:
            if node is not None:
                self._unregister(node)
            self.graves.add(info)

    def forget(self, node: Leaf | Directory, grave: ObjectInfo) -> None:
        """The meta of *node*, which keeps its place, was replaced by *grave*."""
        self._unregister(node)
        self.graves.add(grave)
        if isinstance(node, Directory):
            node.marker = None
            node.attributes = None

    def drop_empty_directories(self) -> list[Change]:
        """Drop what only this mount remembers: directories without anything in them."""
        changes: list[Change] = []
        for node in reversed(list(walk_directories(self.root))):
            if not node.children and node.parent is not None:
                changes.append(EntryChange(node.parent, node.name, gone=node))
                changes += self.detach(node)
        return changes

    def forget_marker(self, directory: Directory) -> None:
        """*directory* has no marker any more, or its marker is about to get another name."""
        self._unregister(directory)
        directory.marker = None

    def retire(self, directory: Directory) -> list[Change]:
        """*directory* leaves the tree.  What its marker said stays, for those who have it open."""
        self._unregister(directory)
        return self.detach(directory)

    # -- what this mount does ---------------------------------------------------------------------

    def place(self, node: Node, parent: Directory, name: bytes) -> list[Change]:
        """Give *node*, which has no place, the name *name* in *parent*.  Whoever has been given
        that name meanwhile, because it was free, is shown under another one."""
        holder = parent.children.get(name)
        self._recent = None
        node.parent = parent
        node.name = name
        parent.children[name] = node
        if isinstance(node, Directory):
            node.text = decode_component(name)
            parent.subdirectories += 1
        return [] if holder is None else displace(parent, holder)

    def detach(self, node: Node) -> list[Change]:
        """Take *node* out of its directory.  Whoever it had displaced gets its name."""
        parent = node.parent
        assert parent is not None
        self._recent = None
        if isinstance(node, Directory):
            self.index.unpack_all(node)
        component = encode_component(component_text(node))
        if parent.children.get(node.name) is node:
            del parent.children[node.name]
        if isinstance(node, Directory):
            parent.subdirectories -= 1
        forget_displaced(parent, node)
        node.parent = None
        return arrange_after(parent, node.name, component)

    # -- inside -----------------------------------------------------------------------------------

    def _add(self, info: ObjectInfo) -> list[Change]:
        directories, text = split_name(info.name)
        if info.name == ROOT_MARKER and is_marker(info) and self.root.marker is None:
            return self._mark(self.root, info)
        changes: list[Change] = []
        directory = self._reach(directories, info, changes)
        if is_marker(info) and directory.marker is None:
            return changes + self._mark(directory, info)
        # A second object of a marker's name, which is under another subject, is shown in it.
        note_change(directory, info)
        component = encode_component(text)
        alone = stands_alone(directory, component, text) and info.name not in self._links
        if alone and self.index.pack(directory, component, info):
            return [*changes, EntryChange(directory, component)]
        holder = called(directory, text, Leaf)
        if holder is not None and holder.info is None:
            # Somebody else was faster than our own commit, which will replace this version.
            self._register(holder, info)
            return [*changes, NodeChange(holder)]
        leaf = (Hardlink if self._is_hard_link(info) else Leaf)(directory, b"", info)
        self._register(leaf, info)
        return changes + adopt(directory, leaf) + self._link_changes(leaf)

    def _mark(self, directory: Directory, info: ObjectInfo) -> list[Change]:
        self._register(directory, info)
        directory.attributes = None
        return [NodeChange(directory)]

    def _reach(self, directories: list[str], info: ObjectInfo, changes: list[Change]) -> Directory:
        directory = self.root
        for part in directories:
            directory = self._enter(directory, part, info, changes)
        return directory

    def _enter(
        self, directory: Directory, text: str, info: ObjectInfo, changes: list[Change]
    ) -> Directory:
        """The subdirectory for *text*, made if there is none, because *info* implies it."""
        found = called(directory, text, Directory)
        if found is not None:
            return found
        child = Directory(directory, b"", text)
        child.changed = (0, info.time_ns)
        directory.subdirectories += 1
        note_change(directory, info)
        changes += adopt(directory, child)
        return child

    def _update(self, node: Leaf | Directory, info: ObjectInfo) -> list[Change]:
        moved = self._link_changes(node) if isinstance(node, Hardlink) else []
        self._unregister(node)
        self._register(node, info)
        node.attributes = None
        if isinstance(node, Hardlink) and node.parent is not None:
            moved += [EntryChange(node.parent, node.name), *self._link_changes(node)]
        return [*moved, NodeChange(node)]

    def _drop(self, node: Leaf | Directory, successor: ObjectInfo | None) -> list[Change]:
        """The object behind *node* is gone; *successor* is the meta that says so, if one does."""
        if isinstance(node, Directory):
            self._unregister(node)
            node.marker = None
            node.attributes = None
            node.removed = True
            return self._drop_removed(node, successor) or [NodeChange(node)]
        parent, name = node.parent, node.name
        changes = self._link_changes(node)
        self._unregister(node)
        if parent is None:
            return []
        if successor is not None:
            note_change(parent, successor)
        changes += [EntryChange(parent, name, gone=node), *self.detach(node)]
        return changes + self._drop_removed(parent, successor)

    def _link_changes(self, leaf: Leaf) -> list[Change]:
        """What *leaf*, coming or going, means for the other names of its file."""
        if isinstance(leaf, Hardlink):
            file = self.primary(leaf)
            return [] if file is leaf else [NodeChange(file)]
        others = self.links_to(leaf)
        return [EntryChange(link.parent, link.name) for link in others if link.parent is not None]

    def _kind(self, info: ObjectInfo) -> tuple[bool, bool]:
        return is_marker(info), self._is_hard_link(info)

    def _register(self, node: Leaf | Directory, info: ObjectInfo) -> None:
        previous = self.index.find(info.subject)
        if previous is not None and previous is not node:
            self._unregister(previous)
        self.index.add(node, info)
        if isinstance(node, Directory):
            node.marker = info
            node.removed = False
            return
        node.info = info
        if isinstance(node, Hardlink) and info.link is not None and info.link.name is not None:
            self._links.setdefault(info.link.name, []).append(node)

    def _unregister(self, node: Leaf | Directory) -> None:
        """The meta of *node* is not found by its subject any more; the node still shows it."""
        info = info_of(node)
        if info is None:
            return
        self.index.remove(node, info)
        name = info.link.name if info.link is not None else None
        if isinstance(node, Hardlink) and name is not None and node in self._links.get(name, ()):
            self._links[name].remove(node)
            if not self._links[name]:
                del self._links[name]

    def _drop_removed(self, directory: Directory, successor: ObjectInfo | None) -> list[Change]:
        """A foreign client deleted the marker of *directory*: once nothing is left inside either,
        that was an rmdir, and may complete those of the directories above."""
        changes: list[Change] = []
        while directory.removed and not directory.children and directory.parent is not None:
            parent = directory.parent
            if successor is not None:
                note_change(parent, successor)
            changes.append(EntryChange(parent, directory.name, gone=directory))
            changes += self.detach(directory)
            directory = parent
        return changes
