"""What one meta that arrives means for the tree, and for those who have its file open.

The only module that decides what a foreign change means for a file that is open here (R1): a handle
keeps the version it has, and the name gets a new node; a file with bytes not yet committed keeps
those, because the last commit wins (A4).

Concurrency: everything here is atomic.
"""

from __future__ import annotations

import stat
from dataclasses import replace

from natsfs.filesystem.attributes import (
    Attributes,
    birth_ns,
    merged,
    of_object,
    without_metadata,
)
from natsfs.filesystem.state import Mounted
from natsfs.handles import is_dirty
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import Directory, Leaf, NodeChange, info_of, note_change


class Arrivals:
    """Takes metas into the tree."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted

    def vanish(self, subject: str) -> None:
        """The meta on *subject* is gone, and no tombstone says so."""
        self._m.unconfirmed.discard(subject)
        leaf = self._m.namespace.find(subject)
        if isinstance(leaf, Leaf) and is_dirty(leaf):
            self._m.namespace.unset(leaf, None)
        else:
            self._m.notifier.changed(self._m.namespace.vanish(subject))

    def apply(self, info: ObjectInfo) -> None:
        """*info* is newer than what is known on its subject."""
        namespace = self._m.namespace
        leaf = namespace.find(info.subject)
        self._note_replacement(leaf, info)
        self._m.unconfirmed.discard(info.subject)
        if isinstance(leaf, Leaf) and is_dirty(leaf):
            self._apply_to_dirty(leaf, info)
            return
        if not isinstance(leaf, Leaf) or leaf.info is None or info.deleted:
            self._m.notifier.changed(namespace.apply(info))
            return
        other_bytes = leaf.info.nuid != info.nuid and leaf.file is not None
        if other_bytes or self._kind(leaf.info) != self._kind(info):
            self._overtake(leaf, info)
        else:
            self._m.notifier.changed(namespace.apply(info))

    def _note_replacement(self, node: Leaf | Directory | None, info: ObjectInfo) -> None:
        if node is None or node.parent is None:
            return
        names = self._m.namespace.subjects_with(info.nuid)
        moved_here = any(subject != info.subject for subject in names)
        if moved_here or _is_another_file(info_of(node), info):
            note_change(node.parent, info)
            self._m.notifier.changed([NodeChange(node.parent)])

    def _overtake(self, leaf: Leaf, info: ObjectInfo) -> None:
        """*info* gets a node of its own; for the directory, the name was there all the time."""
        directory = leaf.parent
        assert directory is not None
        changed = directory.changed
        self._m.namespace.supersede(leaf)
        self._m.notifier.changed(self._m.namespace.apply(info))
        directory.changed = changed
        directory.attributes = None
        successor = self._m.namespace.find(info.subject)
        if isinstance(successor, Leaf):
            leaf.successor = successor

    def _apply_to_dirty(self, leaf: Leaf, info: ObjectInfo) -> None:
        """The commit of *leaf* will replace the bytes that another client stored, so nothing is
        shown of them.  What it did to the attributes of the same bytes is merged (M5)."""
        if info.deleted:
            self._m.namespace.unset(leaf, info)
            return
        ours, known = leaf.attributes, leaf.info
        self._m.namespace.apply(info)
        leaf.attributes = ours
        if leaf.file.supplants and info.nuid == leaf.file.replaces:
            leaf.info = without_metadata(info)
        elif known is not None and known.nuid == info.nuid and isinstance(ours, Attributes):
            before, after = (of_object(meta, self._m.tree)[0] for meta in (known, info))
            leaf.attributes = merged(ours, before, after)
            self._m.notifier.changed([NodeChange(leaf)])

    def confirm(self, info: ObjectInfo) -> None:
        """The echo of this mount's own commit brings the server's time of it (M3).  Nothing else is
        taken from it: a name that was given to a new file meanwhile means something else already.
        """
        self._m.unconfirmed.discard(info.subject)
        if self._m.namespace.index.is_packed(info):
            return  # Told again after a gap: nothing of it is only a guess.
        node = self._m.namespace.find(info.subject)
        known = info_of(node)
        if known is None:
            return
        timed = known.stored(known.revision, info.time_ns)
        if isinstance(node, Leaf):
            node.info = timed
            if node.attributes is not None and not (node.file is not None and node.file.dirty):
                node.attributes = replace(node.attributes, ctime_ns=info.time_ns)
        elif isinstance(node, Directory):
            node.marker = timed
            node.attributes = None

    def _kind(self, info: ObjectInfo) -> int:
        return stat.S_IFMT(of_object(info, self._m.tree)[0].mode)


def _is_another_file(known: ObjectInfo | None, info: ObjectInfo) -> bool:
    """Whether another mount's rename gave the name of *known* to another file, which changes the
    directory.  That has another birth, which a put by any client leaves alone or does not know."""
    if known is None or known.nuid == info.nuid or "btime" not in info.metadata:
        return False
    return birth_ns(known) != birth_ns(info)
