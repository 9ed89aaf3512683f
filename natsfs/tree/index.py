"""Which node a subject or a version belongs to, packed entries included.

The only module that knows how an entry is found that is not a node yet.  By its subject it is found
by its path, since only metas on standard subjects are packed; by its version it is looked for in
the one directory that the index knows the version to be in.  Either makes it a node.

Pure and synchronous.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from functools import partial

from natsfs.store.model import ObjectInfo
from natsfs.tree.names import decode_component, encode_component, split_name
from natsfs.tree.nodes import (
    Directory,
    Leaf,
    called,
    info_of,
    walk_directories,
)
from natsfs.tree.packed import Standard, facts_of, key_of, revision_of


class Index:
    """All metas below *root*."""

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._by_subject: dict[str, Leaf | Directory] = {}
        #: Subjects by the version that they have: several while a rename is half done (A2).
        self._by_nuid: dict[str, tuple[str, ...]] = {}
        #: How packed metas are told from others; None until there was a meta.
        self.standard: Standard | None = None
        #: Where the packed entry of a version is, by its `key_of`: there is one for each key.
        self._packed: dict[int, Directory] = {}

    def __len__(self) -> int:
        return len(self._by_subject) + len(self._packed)

    # -- questions --------------------------------------------------------------------------------

    def find(self, subject: str) -> Leaf | Directory | None:
        """The node whose meta is on *subject*."""
        node = self._by_subject.get(subject)
        if node is not None or not self._packed:
            return node
        place = self._packed_at(subject)
        if place is None:
            return None
        directory, component = place
        return self._leaf(directory, component)

    def is_node(self, subject: str) -> bool:
        """Whether the meta on *subject* is known and not packed."""
        return subject in self._by_subject

    def is_packed(self, info: ObjectInfo) -> bool:
        """Whether exactly *info* is the meta of a packed entry."""
        place = self._packed_at(info.subject) if self._packed else None
        if place is None or self.standard is None:
            return False
        return place[0].children.record(place[1]) == self.standard.pack(info)

    def revision(self, subject: str) -> int:
        """The revision of the meta on *subject*, 0 if there is none."""
        info = info_of(self._by_subject.get(subject))
        if info is not None or not self._packed:
            return info.revision if info is not None else 0
        place = self._packed_at(subject)
        record = place[0].children.record(place[1]) if place is not None else None
        return revision_of(record) if record is not None else 0

    def subjects_with(self, nuid: str) -> tuple[str, ...]:
        """The subjects whose objects have the version *nuid*."""
        directory = self._packed.get(key_of(nuid)) if self._packed else None
        if directory is not None:
            wanted = nuid.encode()
            for component, record in directory.children.records():
                if wanted in record and facts_of(record)[2] == nuid:
                    self._leaf(directory, component)
                    break
        return self._by_nuid.get(nuid, ())

    def subjects(self) -> list[str]:
        """The subjects of all objects, as they are now."""
        return [*self._by_subject, *(info.subject for info in self._packed_infos())]

    def infos(self) -> Iterator[ObjectInfo]:
        """The metas of all objects; the tree must not change meanwhile."""
        for node in self._by_subject.values():
            info = info_of(node)
            if info is not None:
                yield info
        yield from self._packed_infos()

    def subjects_at(self, revisions: Set[int]) -> set[str]:
        """The subjects whose newest meta has one of these *revisions*."""
        found = {
            subject
            for subject, node in self._by_subject.items()
            if (info := info_of(node)) is not None and info.revision in revisions
        }
        for directory in walk_directories(self._root):
            for component, record in directory.children.records():
                if revision_of(record) in revisions:
                    found.add(self.unpacked(directory, component, record).subject)
        return found

    def newest_first(self, directory: Directory, revision: int) -> Iterator[ObjectInfo]:
        """The metas newer than *revision* of what is in *directory*; the tree must not change
        meanwhile."""
        children = directory.children
        found: list[tuple[int, bytes, bytes | ObjectInfo]] = [
            (info.revision, node.name, info)
            for node in children.nodes()
            if (info := info_of(node)) is not None and info.revision > revision
        ]
        for component, record in children.records():
            if (newer := revision_of(record)) > revision:
                found.append((newer, component, record))
        for _, component, meta in sorted(found, key=lambda entry: entry[0], reverse=True):
            if isinstance(meta, bytes):
                meta = self.unpacked(directory, component, meta)
            yield meta

    def unpacked(self, directory: Directory, component: bytes, record: bytes) -> ObjectInfo:
        """The meta of a packed entry, without making a node of it."""
        assert self.standard is not None
        return self.standard.unpack(record, directory.prefix + decode_component(component))

    # -- changes ----------------------------------------------------------------------------------

    def add(self, node: Leaf | Directory, info: ObjectInfo) -> None:
        """*node* has the meta *info* now, and nobody else has its subject."""
        self._by_subject[info.subject] = node
        if info.nuid:
            others = self.subjects_with(info.nuid)
            if info.subject not in others:
                self._by_nuid[info.nuid] = (*others, info.subject)

    def remove(self, node: Leaf | Directory, info: ObjectInfo) -> None:
        """*node* does not have the meta *info* any more, if it had."""
        if self._by_subject.get(info.subject) is not node:
            return
        del self._by_subject[info.subject]
        others = tuple(s for s in self.subjects_with(info.nuid) if s != info.subject)
        self._by_nuid[info.nuid] = others
        if not others:
            del self._by_nuid[info.nuid]

    def pack(self, directory: Directory, component: bytes, info: ObjectInfo) -> bool:
        """Keep the new object *info* of *directory*, where nothing is called *component*, as a
        packed entry, if it is one that can be.  There is no other on its subject."""
        if self.standard is None:
            self.standard = Standard.of(info)
        record = self.standard.pack(info) if self.standard is not None else None
        if record is None:
            return False
        key = key_of(info.nuid)
        if key in self._packed or info.nuid in self._by_nuid:
            return False
        self._packed[key] = directory
        directory.children.fold({component: record}, partial(self._unfold, directory))
        return True

    def restore(
        self, directory: Directory, records: dict[bytes, bytes], keys: Sequence[int]
    ) -> None:
        """*directory*, which has no such entries, has the packed entries *records*, whose versions
        have these *keys*, which no other has."""
        if records:
            directory.children.fold(records, partial(self._unfold, directory))
            self._packed.update(dict.fromkeys(keys, directory))

    def clear(self) -> None:
        """Nothing is known of any object."""
        self._by_subject.clear()
        self._by_nuid.clear()
        self._packed.clear()

    def has_key(self, key: int) -> bool:
        """Whether there is a packed entry whose version has this key."""
        return key in self._packed

    def has_any(self, keys: Sequence[int]) -> bool:
        """Whether one of *keys* is there, or one of them twice."""
        return len(set(keys)) < len(keys) or not self._packed.keys().isdisjoint(keys)

    def subject(self, prefix: str, component: bytes) -> str:
        """The subject of the packed entry *component* of the directory with this *prefix*."""
        assert self.standard is not None
        return self.standard.subject(prefix + decode_component(component))

    def unpack_all(self, directory: Directory) -> None:
        """*directory* is about to have another path, of which packed entries know nothing."""
        for below in list(walk_directories(directory)):
            for component in [name for name, _ in below.children.records()]:
                self._leaf(below, component)

    # -- inside -----------------------------------------------------------------------------------

    def _packed_at(self, subject: str) -> tuple[Directory, bytes] | None:
        """Where the packed entry is whose meta is on *subject*."""
        name = self.standard.name(subject) if self.standard is not None else None
        if name is None:
            return None
        directories, text = split_name(name)
        directory = self._root
        for part in directories:
            below = called(directory, part, Directory)
            if below is None:
                return None
            directory = below
        component = encode_component(text)
        there = directory.children.record(component) is not None
        return (directory, component) if there and decode_component(component) == text else None

    def _leaf(self, directory: Directory, component: bytes) -> Leaf:
        leaf = directory.children[component]
        assert isinstance(leaf, Leaf)
        return leaf

    def _unfold(self, directory: Directory, component: bytes, record: bytes) -> Leaf:
        info = self.unpacked(directory, component, record)
        leaf = Leaf(directory, component, info)
        del self._packed[key_of(info.nuid)]
        directory.children.unfold(component, leaf)
        self._by_subject[info.subject] = leaf
        self._by_nuid[info.nuid] = (*self._by_nuid.get(info.nuid, ()), info.subject)
        return leaf

    def _packed_infos(self) -> Iterator[ObjectInfo]:
        for directory in walk_directories(self._root):
            for component, record in directory.children.records():
                yield self.unpacked(directory, component, record)
