"""Renames of directories that were interrupted, and are run again (A2).

Without one atomic batch all entries arrive under the new name before the first leaves the old one,
so an interrupted rename leaves two directories: either the new one has some of the old one's
entries, or the old one has some of the new one's.  Both are told from any other two directories by
the versions: no two objects but halves of one rename have the same.

Concurrency: callers hold the reservation of both directories.  `absorb` is atomic.
"""

from __future__ import annotations

from natsfs.errors import NotFoundError
from natsfs.filesystem.state import Mounted
from natsfs.handles import is_dirty
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import Change, Directory, EntryChange, Leaf, Node, info_of, walk


async def is_half_moved(mounted: Mounted, old: Directory, new: Directory) -> bool:
    """Whether *new* has nothing but what an interrupted rename of *old* has brought there.

    An entry of *new* counts as brought when the one of its name in *old* has the same version; or
    has had, as the tombstone there says.  One whose version differs counts if others are proved:
    somebody has changed one of the two since, and the newer one is kept.

    Errors: those of `ObjectStore.get_info_at` but `NotFoundError`.
    """
    old_prefix, new_prefix = old.prefix, new.prefix
    before = _metas(old)
    proved = False
    for name, info in _metas(new).items():
        former = before.get(old_prefix + name[len(new_prefix) :])
        if former is None:
            former = await _former(mounted, old_prefix + name[len(new_prefix) :])
            if former is None or not _same(former, info):
                return False
        proved = proved or _same(former, info)
    busy = any(_is_busy(node) for node in (*walk(old), *walk(new)))
    return proved and not busy


def arrived(mounted: Mounted, moved: ObjectInfo, info: ObjectInfo) -> ObjectInfo | None:
    """What has arrived of *info*, which is to become *moved*; None if that is older than *info*, or
    nothing."""
    there = info_of(mounted.namespace.find(moved.subject))
    return there if there is not None and there.revision > info.revision else None


def absorb(mounted: Mounted, old: Directory, new: Directory) -> list[Change]:
    """Make *old* hold what both hold, because it is about to take the place of *new*; what both
    have keeps the node that is in *old*.  *new* ends without children."""
    changes: list[Change] = []
    namespace = mounted.namespace
    for name, node in list(new.children.items()):
        twin = old.children.get(name)
        if isinstance(node, Directory) and isinstance(twin, Directory):
            changes += absorb(mounted, twin, node)
            marker = node.marker
            namespace.forget_marker(node)
            if marker is not None and twin.marker is None:
                namespace.confirm(twin, marker)
            changes += namespace.detach(node)
        elif isinstance(node, Leaf) and isinstance(twin, Leaf):
            for info in (node.info, twin.info):
                if info is not None:
                    # The older of two versions; what the entry will have is not freed.
                    mounted.purger.schedule(info)
            namespace.supersede(node)
            node.successor = twin
        else:
            changes += namespace.detach(node)
            changes += namespace.place(node, old, name)
        changes += [EntryChange(new, name), EntryChange(old, name)]
    return changes


def _metas(directory: Directory) -> dict[str, ObjectInfo]:
    """The metas of *directory* and of all below it, by their names."""
    infos = (info_of(node) for node in (directory, *walk(directory)))
    return {info.name: info for info in infos if info is not None}


async def _former(mounted: Mounted, name: str) -> ObjectInfo | None:
    """What was called *name*, as its tombstone tells."""
    try:
        return await mounted.store.get_info(name, show_deleted=True)
    except NotFoundError:
        return None


def _same(one: ObjectInfo, other: ObjectInfo) -> bool:
    return bool(one.nuid) and one.nuid == other.nuid


def _is_busy(node: Node) -> bool:
    """Whether something of *node* is not stored yet."""
    return isinstance(node, Leaf) and (node.info is None or is_dirty(node))
