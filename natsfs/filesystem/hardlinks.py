"""Hard links (K7): several names of one file on a store that has one name an object.

One name, the primary, is the object.  Every other is a native link to it whose metadata calls it
hard, so that foreign clients that follow links read the file under each name.  What changes the
set of names also rewrites the object's meta, in the same atomic step: that moves its ctime, as
POSIX wants, and makes sure that the object is still the one which the link was decided on.

Concurrency: the names of the file are reserved while its set of names changes.
"""

from __future__ import annotations

from dataclasses import replace

from natsfs.errors import ExistsError, NotFoundError, NotPermitted
from natsfs.filesystem.attributes import HARD_LINK_KEY, with_times
from natsfs.filesystem.commits import Commits
from natsfs.filesystem.naming import Naming, both, names_of
from natsfs.filesystem.publisher import TOMBSTONE_TTL, Publisher
from natsfs.filesystem.relocation import Relocation, Step
from natsfs.filesystem.state import Mounted, now_ns
from natsfs.filesystem.times import Times
from natsfs.store.base import tombstone
from natsfs.store.model import Link, MetaWrite, ObjectInfo
from natsfs.tree.nodes import Directory, Hardlink, Leaf, Node


class Hardlinks:
    """The names of files that have more than one."""

    def __init__(
        self,
        mounted: Mounted,
        publisher: Publisher,
        relocation: Relocation,
        commits: Commits,
        naming: Naming,
        times: Times,
    ) -> None:
        self._m = mounted
        self._publisher = publisher
        self._relocation = relocation
        self._commits = commits
        self._naming = naming
        self._times = times

    async def link(self, node: Node, parent: Directory, name: bytes) -> Leaf:
        """Give a file another name.

        Errors: `NotPermitted` (a directory), `NotFoundError` (the file has no name any more),
        `ExistsError`, `NameTooLongError`, those of `Commits.commit` and `ObjectStore.commit`.
        """
        if not isinstance(node, Leaf) or isinstance(node, Hardlink):
            raise NotPermitted("only files have hard links")
        object_name = self._naming.check_free(parent, name)
        if node.file is not None:
            await self._commits.commit(node.file)
        async with self._m.reservations.hold(lambda: names_of(self._m, node) | both(object_name)):
            self._naming.check_free(parent, name)
            link = Hardlink(None, b"", None)
            stored = await self._publisher.publish(lambda: self._link_writes(node, object_name))
            self._m.notifier.changed(self._m.namespace.place(link, parent, name))
            self._confirm(link, stored[0])
            self._confirm(node, stored[1])
        self._times.entry_changed(parent, now_ns())
        return node

    async def unlink(self, entry: Leaf) -> None:
        """Take away one name, *entry*, of a file that has others.  The caller holds `names_of`.

        Errors: those of `ObjectStore.commit`.
        """
        if isinstance(entry, Hardlink):
            stored = await self._publisher.publish(lambda: self._unlink_writes(entry))
            self._m.namespace.bury(stored[0])
            for info in stored[1:]:
                file = self._m.namespace.primary(entry)
                if isinstance(file, Leaf) and file is not entry:
                    self._confirm(file, info)
            if entry.parent is not None:
                self._m.notifier.changed(self._m.namespace.detach(entry))
            return
        done = await self._relocation.publish(lambda: self.promotion(entry))
        heir = self._heir(entry)
        self._m.notifier.changed(self._m.namespace.detach(entry))
        self.inherit(entry, heir)
        self._relocation.settle(done)

    def promotion(self, file: Leaf) -> list[Step]:
        """The steps by which another name of *file* becomes the primary one."""
        heir, *others = self._m.namespace.links_to(file)
        assert file.info is not None
        assert heir.info is not None
        moved = replace(file.info, name=heir.info.name, subject=heir.info.subject)
        return [Step(file, file.info, moved), *retargeted(others, heir.info.name)]

    def inherit(self, file: Leaf, heir: Hardlink) -> None:
        """*file*, which has lost its own place, takes that of *heir*."""
        parent, name = heir.parent, heir.name
        assert parent is not None
        self._m.namespace.supersede(heir)
        self._m.notifier.changed(self._m.namespace.place(file, parent, name))

    def _heir(self, file: Leaf) -> Hardlink:
        return self._m.namespace.links_to(file)[0]

    def _link_writes(self, file: Leaf, name: str) -> list[MetaWrite]:
        subject = self._publisher.subject_of(name)
        if self._m.namespace.find(subject) is not None:
            raise ExistsError(f"{name!r} was just created by another client")
        if file.parent is None or file.info is None:
            raise NotFoundError("a file without a name cannot be linked")
        bucket = self._m.store.bucket
        link = ObjectInfo(
            name,
            bucket,
            subject,
            link=Link(bucket, file.info.name),
            metadata={HARD_LINK_KEY: "true"},
        )
        return [
            MetaWrite(link, self._m.namespace.last_revision(subject)),
            self._m.rewrite(with_times(file.info), file.info.revision),
        ]

    def _unlink_writes(self, entry: Hardlink) -> list[MetaWrite]:
        if entry.info is None or entry.parent is None:
            raise NotFoundError("another client removed it")
        writes = [MetaWrite(tombstone(entry.info), entry.info.revision, ttl=TOMBSTONE_TTL)]
        file = self._m.namespace.primary(entry)
        if isinstance(file, Leaf) and file is not entry and file.info is not None:
            writes.append(self._m.rewrite(with_times(file.info), file.info.revision))
        return writes

    def _confirm(self, leaf: Leaf, info: ObjectInfo) -> None:
        self._m.namespace.confirm(leaf, info)
        self._m.unconfirmed.add(info.subject)
        if leaf.attributes is not None:
            leaf.attributes = replace(leaf.attributes, ctime_ns=info.time_ns)


def retargeted(links: list[Hardlink], name: str) -> list[Step]:
    """The steps by which *links* follow their file to its new object *name*."""
    steps = []
    for link in links:
        info = link.info
        if info is not None and info.link is not None:
            steps.append(Step(link, info, replace(info, link=Link(info.link.bucket, name))))
    return steps
