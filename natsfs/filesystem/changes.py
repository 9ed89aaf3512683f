"""Changing single entries: attributes, directories, links, special files, removal.

Concurrency: each call reserves the names that it changes before it looks at the tree, and changes
the tree only after the server has acknowledged.
"""

from __future__ import annotations

import stat
from dataclasses import replace

from natsfs.errors import (
    ExistsError,
    InvalidArgument,
    IsADirectory,
    NameTooLongError,
    NotADirectory,
    NotEmptyError,
)
from natsfs.filesystem import attributes as attrs
from natsfs.filesystem.appearance import attributes_of, touch
from natsfs.filesystem.attributes import AttributeChanges, Attributes
from natsfs.filesystem.entries import Entries
from natsfs.filesystem.files import Files, name_of, new_file
from natsfs.filesystem.links import MAX_TARGET, native_link
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.reservations import Key, Subtree
from natsfs.filesystem.state import Mounted, now_ns
from natsfs.handles import FileHandle
from natsfs.store.model import ObjectInfo
from natsfs.tree.names import MAX_COMPONENT
from natsfs.tree.namespace import ROOT_MARKER, Directory, Leaf, Node


class Changes:
    """Operations on single entries."""

    def __init__(
        self, mounted: Mounted, entries: Entries, publisher: Publisher, files: Files
    ) -> None:
        self._m = mounted
        self._entries = entries
        self._publisher = publisher
        self._files = files

    async def setattr(
        self, node: Node, changes: AttributeChanges, handle: FileHandle | None
    ) -> None:
        """Change attributes and size.  Attributes of a file with bytes not yet committed travel
        with these; otherwise they are published before this returns (M5).

        Errors: `ReadOnlyError`, those of `Files.truncate` and `Publisher.rewrite`.
        """
        self._m.check_writable()
        if changes.size is not None:
            await self._files.truncate(node, changes.size, handle)
        if changes == AttributeChanges(size=changes.size):
            return
        if isinstance(node, Directory):
            await self._set_directory(node, changes)
        elif isinstance(node, Leaf) and not self._files.set_attributes(node, changes):
            await self._set_leaf(node, changes)

    async def mkdir(self, parent: Directory, name: bytes, mode: int, uid: int, gid: int) -> Node:
        """A new directory with its marker (N5).  Errors: of `_check_free`, `Publisher.mark`."""
        marker_name = self._check_free(parent, name) + "/"
        if marker_name == ROOT_MARKER:
            raise InvalidArgument(f"{name!r} at the top would mark the bucket itself")
        child = Directory(None, b"", "")
        attributes = self._new(parent, stat.S_IFDIR | mode, uid, gid)
        async with self._m.reservations.hold(lambda: _both(marker_name[:-1])):
            self._check_free(parent, name)
            await self._publisher.mark(child, marker_name, attributes)
            self._m.namespace.place(child, parent, name)
        touch(self._m, parent, attributes.mtime_ns)
        return child

    async def mknod(
        self, parent: Directory, name: bytes, mode: int, rdev: int, uid: int, gid: int
    ) -> Node:
        """A regular or special file without content (K8).  Errors: as `mkdir`."""
        attributes = replace(self._new(parent, mode, uid, gid), rdev=rdev)
        info = ObjectInfo("", self._m.store.bucket, "", metadata=attrs.encode(attributes))
        return await self._create(parent, name, info, attributes)

    async def symlink(
        self, parent: Directory, name: bytes, target: bytes, uid: int, gid: int
    ) -> Node:
        """A symbolic link: a native one where *target* names an object or this bucket (K4, K5).

        Errors: as `mkdir`; `NameTooLongError` (*target* is longer than PATH_MAX).
        """
        if len(target) >= MAX_TARGET:
            raise NameTooLongError("the target of a symbolic link is too long")
        attributes = replace(self._new(parent, stat.S_IFLNK | 0o777, uid, gid), size=len(target))
        metadata = {**attrs.encode(attributes), **attrs.encode_symlink(target)}
        link = native_link(self._m.namespace, self._m.store.bucket, self._m.root, parent, target)
        info = ObjectInfo("", self._m.store.bucket, "", link=link, metadata=metadata)
        return await self._create(parent, name, info, attributes)

    async def unlink(self, parent: Directory, name: bytes) -> None:
        """Remove a name; who has the file open keeps it (W5).

        Errors: `NotFoundError`, `IsADirectory`, those of `Publisher.remove`.
        """
        self._m.check_writable()
        leaf = self._leaf(parent, name)
        async with self._m.reservations.hold(lambda: name_of(leaf)):
            if leaf.info is not None and leaf.parent is not None:
                await self._publisher.remove(leaf)
            if leaf.parent is not None:
                self._m.notifier.changed(self._m.namespace.detach(leaf))
        touch(self._m, parent, now_ns())

    async def rmdir(self, parent: Directory, name: bytes) -> None:
        """Remove an empty directory.

        Errors: `NotFoundError`, `NotADirectory`, `NotEmptyError`, those of `Publisher.remove`.
        """
        self._m.check_writable()
        directory = self._entries.child(parent, name)
        if not isinstance(directory, Directory):
            raise NotADirectory(f"{name!r} is not a directory")
        async with self._m.reservations.hold(lambda: _subtree(directory)):
            if directory.children:
                raise NotEmptyError(f"directory {name!r} is not empty")
            if directory.marker is not None:
                await self._publisher.remove(directory)
                self._m.namespace.forget_marker(directory)
            if directory.parent is not None:
                self._m.notifier.changed(self._m.namespace.detach(directory))
        touch(self._m, parent, now_ns())

    def check_name(self, parent: Directory, name: bytes) -> str:
        """The object name that creating *name* in *parent* means.

        Errors: `NameTooLongError`, `ReadOnlyError`.
        """
        self._m.check_writable()
        if len(name) > MAX_COMPONENT:
            raise NameTooLongError(f"a name has at most {MAX_COMPONENT} bytes")
        object_name = parent.child_name(name)
        self._publisher.subject_of(object_name + "/")
        return object_name

    def _check_free(self, parent: Directory, name: bytes) -> str:
        """Errors: `ExistsError`, those of `check_name`."""
        object_name = self.check_name(parent, name)
        if name in parent.children:
            raise ExistsError(f"entry {name!r} exists")
        return object_name

    async def _create(
        self, parent: Directory, name: bytes, info: ObjectInfo, attributes: Attributes
    ) -> Node:
        object_name = self._check_free(parent, name)
        named = replace(info, name=object_name)
        async with self._m.reservations.hold(lambda: _both(object_name)):
            self._check_free(parent, name)
            leaf = await self._publisher.create(parent, name, named, attributes)
        touch(self._m, parent, attributes.mtime_ns)
        return leaf

    async def _set_leaf(self, leaf: Leaf, changes: AttributeChanges) -> None:
        async with self._m.reservations.hold(lambda: name_of(leaf)):
            if leaf.parent is None:
                leaf.attributes = changes.apply(attributes_of(self._m, leaf), now_ns())
            elif not self._files.set_attributes(leaf, changes):
                await self._publisher.rewrite(leaf, changes)

    async def _set_directory(self, directory: Directory, changes: AttributeChanges) -> None:
        async with self._m.reservations.hold(lambda: frozenset({directory.marker_name})):
            if directory.parent is None and directory is not self._m.namespace.root:
                return  # removed while it was waiting: nothing is left to change
            if directory.marker is not None:
                await self._publisher.rewrite(directory, changes)
            else:
                wanted = changes.apply(attributes_of(self._m, directory), now_ns())
                await self._publisher.mark(directory, directory.marker_name, wanted)

    def _leaf(self, parent: Directory, name: bytes) -> Leaf:
        node = self._entries.child(parent, name)
        if not isinstance(node, Leaf):
            raise IsADirectory(f"{name!r} is a directory")
        return node

    def _new(self, parent: Directory, mode: int, uid: int, gid: int) -> Attributes:
        return new_file(attributes_of(self._m, parent), mode, uid, gid)


def _both(object_name: str) -> frozenset[Key]:
    """A name that may become a file's or a directory's."""
    return frozenset({object_name, Subtree(object_name + "/")})


def _subtree(directory: Directory) -> frozenset[Key]:
    return frozenset({Subtree(directory.prefix)}) if directory.parent is not None else frozenset()
