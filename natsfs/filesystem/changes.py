"""Changing single entries: attributes, directories, links, special files, removal.

Concurrency: each call reserves the names that it changes before it looks at the tree, and changes
the tree only after the server has acknowledged.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace

from natsfs.errors import (
    IsADirectory,
    NameTooLongError,
    NotADirectory,
    NotEmptyError,
)
from natsfs.filesystem import attributes as attrs
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.attributes import AttributeChanges, Attributes
from natsfs.filesystem.claims import Claims
from natsfs.filesystem.commits import Commits
from natsfs.filesystem.entries import Entries
from natsfs.filesystem.files import Files, new_file
from natsfs.filesystem.hardlinks import Hardlinks
from natsfs.filesystem.journaling import Journaling
from natsfs.filesystem.links import MAX_TARGET, native_link, neighbour_of
from natsfs.filesystem.naming import Naming, both, meta_of, name_of, names_of, subtree
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.state import Mounted, now_ns
from natsfs.filesystem.times import Times
from natsfs.handles import SUPERUSER, Caller, FileHandle, OpenFile, is_written
from natsfs.store.model import Link, ObjectInfo
from natsfs.tree.nodes import Directory, Hardlink, Leaf, Node, info_of


class Changes:
    """Operations on single entries."""

    def __init__(
        self,
        mounted: Mounted,
        entries: Entries,
        naming: Naming,
        publisher: Publisher,
        files: Files,
        commits: Commits,
        claims: Claims,
        hardlinks: Hardlinks,
        journaling: Journaling,
        times: Times,
    ) -> None:
        self._m = mounted
        self._entries = entries
        self._naming = naming
        self._publisher = publisher
        self._files = files
        self._commits = commits
        self._claims = claims
        self._hardlinks = hardlinks
        self._journaling = journaling
        self._times = times

    async def setattr(
        self,
        node: Node,
        changes: AttributeChanges,
        handle: FileHandle | None,
        caller: Caller = SUPERUSER,
    ) -> None:
        """Change attributes and size.  Attributes of a file with bytes not yet committed travel
        with these; otherwise they are published before this returns (M5).

        Without a change at all it moves ctime: the kernel asks for that where chown(2) names
        neither owner nor group, and before a write that is to take the set-group-ID bit away.

        Errors: `ReadOnlyError`, those of `Files.truncate` and `Publisher.edit`.
        """
        self._m.check_writable()
        if changes.size is not None:
            await self._files.truncate(node, changes.size, handle, caller)
            if changes == AttributeChanges(size=changes.size):
                return
        changes = self._restricted(node, changes, caller)
        if isinstance(node, Directory):
            await self._set_directory(node, changes)
        elif isinstance(node, Leaf) and not self._files.set_attributes(node, changes):
            await self._set_leaf(node, changes)

    def _restricted(
        self, node: Node, changes: AttributeChanges, caller: Caller
    ) -> AttributeChanges:
        """*changes*, less the set-group-ID bit that only members of the file's group may give it,
        and may leave it without group execution (chmod(2), chown(2))."""
        before = attributes_of(self._m, node)
        mode = before.mode if changes.mode is None else changes.mode
        of_times = changes.mtime_ns is not None or changes.atime_ns is not None
        if caller.privileged or of_times or isinstance(node, Directory) or not mode & stat.S_ISGID:
            return changes
        if caller.member_of(before.gid):
            return changes
        if changes == AttributeChanges() and not (mode & stat.S_IWOTH or is_written(node)):
            return changes  # no write can follow: a chown to nobody, which everybody may try
        return replace(changes, mode=stat.S_IMODE(mode & ~stat.S_ISGID))

    async def mkdir(self, parent: Directory, name: bytes, mode: int, uid: int, gid: int) -> Node:
        """A new directory with its marker (N5).

        Errors: those of `Naming.check_free` and `Publisher.mark`.
        """
        marker_name = self._naming.check_free(parent, name, directory=True) + "/"
        child = Directory(None, b"", "")
        attributes = self._new(parent, stat.S_IFDIR | mode, uid, gid)
        async with self._m.reservations.hold(lambda: both(marker_name[:-1])):
            self._naming.check_free(parent, name, directory=True)
            # A file that another mount is creating has another subject than the marker.
            self._publisher.check_unclaimed(self._publisher.subject_of(marker_name[:-1]))
            await self._publisher.mark(child, marker_name, attributes)
            self._m.notifier.changed(self._m.namespace.place(child, parent, name))
        self._times.entry_changed(parent, attributes.mtime_ns)
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
        """A symbolic link: a native one where *target* names an object or a bucket (K4, K5).

        Errors: as `mkdir`; `NameTooLongError` (*target* is longer than PATH_MAX).
        """
        if len(target) >= MAX_TARGET:
            raise NameTooLongError("the target of a symbolic link is too long")
        attributes = replace(self._new(parent, stat.S_IFLNK | 0o777, uid, gid), size=len(target))
        metadata = {**attrs.encode(attributes), **attrs.encode_symlink(target)}
        link = await self._native_link(parent, target)
        info = ObjectInfo("", self._m.store.bucket, "", link=link, metadata=metadata)
        return await self._create(parent, name, info, attributes)

    async def _native_link(self, parent: Directory, target: bytes) -> Link | None:
        m = self._m
        neighbour = neighbour_of(m.root, m.place, parent, target)
        if neighbour is not None:
            await m.neighbours.load(neighbour)
        bucket = m.store.bucket
        return native_link(m.namespace, bucket, m.root, parent, target, m.place, m.neighbours)

    async def unlink(self, parent: Directory, name: bytes) -> None:
        """Remove a name; who has the file open keeps it (W5).

        Errors: `NotFoundError`, `IsADirectory`, those of `Publisher.remove`.
        """
        self._m.check_writable()
        leaf = self._leaf(parent, name)
        async with self._m.reservations.hold(lambda: names_of(self._m, leaf)):
            await self._commits.clear_up(leaf)
            if isinstance(leaf, Hardlink) or self._m.namespace.links_to(leaf):
                await self._hardlinks.unlink(leaf)
            else:
                await self._unlink(leaf)
        self._times.entry_changed(parent, now_ns())

    async def _unlink(self, leaf: Leaf) -> None:
        if leaf.info is not None and leaf.parent is not None:
            await self._publisher.remove(leaf)
        elif leaf.parent is not None:
            await self._claims.withdraw(leaf, leaf.object_name)
        if leaf.parent is not None:
            self._m.notifier.changed(self._m.namespace.detach(leaf))
            self._times.name_changed(leaf)
            self._journaling.moved(leaf)
            if isinstance(leaf.file, OpenFile) and not leaf.file.lock.locked():
                self._commits.let_go(leaf.file)  # it may wait to be saved

    async def rmdir(self, parent: Directory, name: bytes) -> None:
        """Remove an empty directory.

        Errors: `NotFoundError`, `NotADirectory`, `NotEmptyError`, those of `Publisher.remove`.
        """
        self._m.check_writable()
        directory = self._entries.entry(parent, name)
        if not isinstance(directory, Directory):
            raise NotADirectory(f"{name!r} is not a directory")
        async with self._m.reservations.hold(lambda: subtree(directory)):
            if directory.children:
                raise NotEmptyError(f"directory {name!r} is not empty")
            if directory.marker is not None:
                await self._publisher.remove(directory)
            if directory.parent is not None:
                self._m.notifier.changed(self._m.namespace.retire(directory))
                self._times.name_changed(directory)
        self._times.entry_changed(parent, now_ns())

    async def _create(
        self, parent: Directory, name: bytes, info: ObjectInfo, attributes: Attributes
    ) -> Node:
        object_name = self._naming.check_free(parent, name)
        named = replace(info, name=object_name)
        async with self._m.reservations.hold(lambda: both(object_name)):
            self._naming.check_free(parent, name)
            leaf = await self._publisher.create(parent, name, named, attributes)
        self._times.entry_changed(parent, attributes.mtime_ns)
        return leaf

    async def _set_leaf(self, leaf: Leaf, changes: AttributeChanges) -> None:
        async with self._m.reservations.hold(lambda: name_of(leaf)):
            if leaf.parent is None:
                leaf.attributes = changes.apply(attributes_of(self._m, leaf), now_ns())
            elif not self._files.set_attributes(leaf, changes):
                await self._rewrite(leaf, changes)

    async def _set_directory(self, directory: Directory, changes: AttributeChanges) -> None:
        async with self._m.reservations.hold(lambda: meta_of(directory)):
            if not meta_of(directory):
                # Removed: those who have it open see the change, and nobody else can (W5).
                now = changes.apply(attributes_of(self._m, directory), now_ns())
                directory.attributes = now
                return
            await self._mark_implied(directory)
            await self._rewrite(directory, changes)

    async def edit(self, node: Node, edit: Callable[[ObjectInfo], ObjectInfo]) -> None:
        """Let *edit* change the meta of *node*: UpdateMeta.  Bytes not yet committed go first.

        Errors: `ReadOnlyError`, those of `Commits.commit`, of *edit* and of `ObjectStore.commit`.
        """
        self._m.check_writable()
        assert isinstance(node, Leaf | Directory)
        if isinstance(node, Leaf) and node.file is not None:
            await self._commits.commit(node.file)
        async with self._m.reservations.hold(lambda: meta_of(node)):
            if not meta_of(node):
                self._keep(node, edit)
                return
            if isinstance(node, Directory):
                await self._mark_implied(node)
            await self._edit(node, edit)

    def _keep(self, node: Leaf | Directory, edit: Callable[[ObjectInfo], ObjectInfo]) -> None:
        """*node* has no name any more, and so no meta that could be published: those who have it
        open see the change, and nobody else can (W5)."""
        attributes = attributes_of(self._m, node)
        bucket = self._m.store.bucket
        info = info_of(node) or ObjectInfo("", bucket, "", metadata=attrs.encode(attributes))
        if isinstance(node, Directory):
            node.marker = edit(info)
        else:
            node.info = edit(info)
        node.attributes = replace(attributes, ctime_ns=now_ns())

    async def _edit(self, node: Leaf | Directory, edit: Callable[[ObjectInfo], ObjectInfo]) -> None:
        unstored = self._times.unstored(node)
        await self._publisher.edit(
            node, lambda info: edit(replace(info, metadata={**info.metadata, **unstored}))
        )

    async def _mark_implied(self, directory: Directory) -> None:
        if directory.marker is None:
            attributes = attributes_of(self._m, directory)
            await self._publisher.mark(directory, directory.marker_name, attributes)

    async def _rewrite(self, node: Leaf | Directory, changes: AttributeChanges) -> None:
        def edit(info: ObjectInfo) -> ObjectInfo:
            wanted = changes.apply(attributes_of(self._m, node), 0)
            return replace(info, metadata={**info.metadata, **changes.encode(wanted)})

        await self._edit(node, edit)

    def _leaf(self, parent: Directory, name: bytes) -> Leaf:
        node = self._entries.entry(parent, name)
        if not isinstance(node, Leaf):
            raise IsADirectory(f"{name!r} is a directory")
        return node

    def _new(self, parent: Directory, mode: int, uid: int, gid: int) -> Attributes:
        return new_file(attributes_of(self._m, parent), mode, uid, gid)
