"""rename(2): metas get new names, bytes stay where they are (A2).

Concurrency: the old and the new name, with all that is below them and every hard link to it, are
reserved before the tree is looked at.  The tree follows after the server has acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from natsfs.errors import (
    InvalidArgument,
)
from natsfs.filesystem import attributes as attrs
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.claims import Claims
from natsfs.filesystem.commits import Commits
from natsfs.filesystem.entries import Entries
from natsfs.filesystem.hardlinks import Hardlinks, retargeted
from natsfs.filesystem.journaling import Journaling
from natsfs.filesystem.links import native_link, neighbour_of
from natsfs.filesystem.naming import Naming, both, name_of
from natsfs.filesystem.places import Place, Places, check_exchange, check_move
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.relocation import MAX_BATCH, Done, Relocation, Step
from natsfs.filesystem.reservations import Key
from natsfs.filesystem.resumption import absorb, arrived, is_half_moved
from natsfs.filesystem.state import Mounted, now_ns
from natsfs.filesystem.times import Times
from natsfs.filesystem.unsaved import Unsaved
from natsfs.handles import OpenFile
from natsfs.store.model import Link, ObjectInfo
from natsfs.tree.nodes import Directory, Hardlink, Leaf, Node, info_of, is_below, walk

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


class Moves:
    """Renames."""

    def __init__(
        self,
        mounted: Mounted,
        entries: Entries,
        naming: Naming,
        publisher: Publisher,
        relocation: Relocation,
        commits: Commits,
        unsaved: Unsaved,
        claims: Claims,
        hardlinks: Hardlinks,
        journaling: Journaling,
        times: Times,
    ) -> None:
        self._m = mounted
        self._entries = entries
        self._naming = naming
        self._publisher = publisher
        self._relocation = relocation
        self._commits = commits
        self._unsaved = unsaved
        self._claims = claims
        self._hardlinks = hardlinks
        self._journaling = journaling
        self._times = times

    async def rename(
        self, parent: Directory, name: bytes, new_parent: Directory, new_name: bytes, flags: int
    ) -> None:
        """Give an entry another name, replacing what has it.

        Errors: `NotFoundError`, `InvalidArgument` (a directory into itself, unknown *flags*, and
        RENAME_EXCHANGE where it cannot be one atomic batch), `IsADirectory`, `NotADirectory`,
        `NotEmptyError`, `ExistsError` (RENAME_NOREPLACE), `NameTooLongError`, those of
        `ObjectStore.commit` and, for what waits to be stored, `Commits.commit`.
        """
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise InvalidArgument(f"rename flags {flags:#x}")
        self._check_name(parent, name, new_parent, new_name)
        await self._load_neighbour(self._entries.entry(parent, name), new_parent)
        await self._unsaved.before_move(self._entries.entry(parent, name))
        if flags == RENAME_EXCHANGE and new_name in new_parent.children:
            await self._unsaved.before_move(new_parent.children[new_name])

        def places() -> tuple[Place, Place]:
            source = Place(parent, name, self._entries.entry(parent, name))
            return source, Place(new_parent, new_name, new_parent.children.get(new_name))

        def keys() -> frozenset[Key]:
            found = [both(place.object_name) for place in places()]
            linked = [name_of(link) for place in places() for link in self._links(place.node)]
            files = [self._primary_name(place.node) for place in places()]
            return frozenset[Key]().union(*found, *linked, *files)

        async with self._m.reservations.hold(keys):
            self._check_name(parent, name, new_parent, new_name)
            source, target = places()
            if target.node is not None and self._same(source.node, target.node):
                return
            left = source.object_name
            for place in (source, target) if flags == RENAME_EXCHANGE else (source,):
                if place.node is not None:
                    await self._commits.clear_up(place.node)
            if flags == RENAME_EXCHANGE:
                await self._exchange(places)
            else:
                await self._move(places, replace_allowed=not flags)
            self._journaling.moved(source.node, target.node)
            if isinstance(source.node, Leaf):
                await self._claims.withdraw(source.node, left)
        for directory in (parent, new_parent):
            self._times.entry_changed(directory, now_ns())

    async def _load_neighbour(self, node: Node, new_parent: Directory) -> None:
        """A symbolic link may mean something in another bucket from where it is moved to."""
        text = attrs.symlink_text(node.info) if isinstance(node, Leaf) and node.info else None
        if text is not None and node.parent is not new_parent:
            neighbour = neighbour_of(self._m.root, self._m.place, new_parent, text)
            if neighbour is not None:
                await self._m.neighbours.load(neighbour)

    def _check_name(
        self, parent: Directory, name: bytes, new_parent: Directory, new_name: bytes
    ) -> None:
        directory = isinstance(self._entries.entry(parent, name), Directory)
        self._naming.check_name(new_parent, new_name, directory=directory)

    async def _move(self, places: Places, *, replace_allowed: bool) -> None:
        source, target = places()
        node = source.node
        assert isinstance(node, Leaf | Directory)
        resumed = await self._is_resumed(node, target.node) if replace_allowed else False
        source, target = places()

        def steps() -> list[Step]:
            nonlocal source, target
            source, target = places()
            check_move(source, target, replace_allowed=replace_allowed, resumed=resumed)
            self._announce(source.node, target.node)
            inherited = self._inheritance(target.node)
            found = _merged([*self._steps(source, target), *inherited])
            return [self._with_arrived(step) for step in found] if resumed else found

        done = await self._relocation.publish(steps)
        node = source.node
        assert isinstance(node, Leaf | Directory)
        marker = target.node.marker if isinstance(target.node, Directory) else None
        if resumed and isinstance(node, Directory) and isinstance(target.node, Directory):
            self._m.notifier.changed(absorb(self._m, node, target.node))
        taken_over = self._version_taken_over(node, target.node)
        self._vacate(target.node, keep=taken_over is not None)
        self._m.notifier.changed(self._m.namespace.detach(node))
        self._m.notifier.changed(self._m.namespace.place(node, target.directory, target.name))
        self._settle(done, node)
        if isinstance(node, Leaf):
            self._succeed(node, target.node, taken_over)
        if isinstance(node, Directory) and node.marker is None:
            await self._mark_moved(node, marker)

    def _announce(self, node: Node | None, replaced: Node | None) -> None:
        """If the answer is lost, or this process dies before it, the bucket has the version of
        *node* under a name for which other bytes may wait."""
        file = replaced.file if isinstance(replaced, Leaf) else None
        if isinstance(node, Leaf) and node.info is not None and isinstance(file, OpenFile):
            self._journaling.about_to_yield(file, node.info.nuid)

    async def _is_resumed(self, node: Node, replaced: Node | None) -> bool:
        """Whether this is to finish a rename that was interrupted."""
        if not isinstance(node, Directory) or not isinstance(replaced, Directory):
            return False
        return bool(replaced.children) and await is_half_moved(self._m, node, replaced)

    def _with_arrived(self, step: Step) -> Step:
        return replace(step, arrived=arrived(self._m, step.moved, step.info))

    async def _mark_moved(self, directory: Directory, marker: ObjectInfo | None) -> None:
        """*directory*, implied by foreign objects, took a name that *marker* may mark already."""
        if marker is not None:
            self._m.namespace.confirm(directory, marker)
        elif not directory.children:
            # Nothing in the bucket implies it any more; without a marker it would be lost.
            attributes = attributes_of(self._m, directory)
            await self._publisher.mark(directory, directory.marker_name, attributes)

    async def _exchange(self, places: Places) -> None:
        if not self._m.atomic:
            raise InvalidArgument("RENAME_EXCHANGE needs a bucket with atomic batches")

        def steps() -> list[Step]:
            source, target = places()
            check_exchange(source, target)
            return _merged([*self._steps(source, target), *self._steps(target, source)])

        if len(steps()) > MAX_BATCH // 2:
            raise InvalidArgument("too many entries to change places in one atomic step")
        done = await self._relocation.publish(steps)
        source, target = places()
        here, there = source.node, target.node
        assert here is not None
        assert there is not None
        for node in (here, there):
            self._m.notifier.changed(self._m.namespace.detach(node))
        for node, place in ((here, target), (there, source)):
            self._m.notifier.changed(self._m.namespace.place(node, place.directory, place.name))
        self._settle(done, here, there)

    def _settle(self, done: list[Done], *moved: Node) -> None:
        self._relocation.settle(done)
        for node in moved:
            if info_of(node) is None:
                self._times.name_changed(node)

    # -- what is published ------------------------------------------------------------------------

    def _steps(self, source: Place, target: Place) -> list[Step]:
        """The metas that move, in the order in which they are published: what is in a directory
        before its marker, so that other mounts do not take it for newer than the mtime in that."""
        node = source.node
        if isinstance(node, Leaf):
            if node.info is None:
                return []
            moved = self._moved_leaf(node.info, source, target)
            links = self._m.namespace.links_to(node)
            step = Step(node, node.info, moved)
            return [step, *retargeted(links, moved.name), *self._touched(node)]
        assert isinstance(node, Directory)
        old, new = f"{source.object_name}/", f"{target.object_name}/"
        found = []
        for below in reversed((node, *walk(node))):
            assert isinstance(below, Leaf | Directory)
            info = below.info if isinstance(below, Leaf) else below.marker
            if info is not None:
                moved = self._moved_below(info, old, new, self._times.unstored(below))
                found.append(Step(below, info, moved))
                # Of a directory, each file below it brings its own.
                links = self._m.namespace.links_to(below) if isinstance(below, Leaf) else []
                outside = [link for link in links if not is_below(link, node)]
                found += retargeted(outside, moved.name)
        return found

    def _inheritance(self, replaced: Node | None) -> list[Step]:
        """A file that loses its primary name to a rename goes on under another one (K7)."""
        if not isinstance(replaced, Leaf):
            return []
        if self._m.namespace.links_to(replaced):
            return self._hardlinks.promotion(replaced)
        return self._touched(replaced)

    def _touched(self, name: Leaf) -> list[Step]:
        """The file behind a hard link that changes is written again where it is, for its ctime."""
        file = self._m.namespace.primary(name)
        if file is name or not isinstance(file, Leaf) or file.info is None:
            return []
        return [Step(file, file.info, file.info)]

    def _moved_leaf(self, info: ObjectInfo, source: Place, target: Place) -> ObjectInfo:
        name = target.object_name
        moved = replace(info, name=name, subject=self._subject(target.node, name))
        text = attrs.symlink_text(info)
        if text is None or source.directory is target.directory:
            return moved
        # The text stays (K6) and may mean something else from here.
        m, here = self._m, target.directory
        link = native_link(m.namespace, m.store.bucket, m.root, here, text, m.place, m.neighbours)
        return replace(moved, link=link, digest="" if link is not None else info.digest)

    def _moved_below(
        self, info: ObjectInfo, old: str, new: str, unstored: Mapping[str, str]
    ) -> ObjectInfo:
        name = new + info.name[len(old) :]
        link = info.link
        if link is not None and link.bucket == self._m.store.bucket and link.name is not None:
            inside = link.name.startswith(old)
            link = Link(link.bucket, new + link.name[len(old) :]) if inside else link
        subject = self._publisher.subject_of(name)
        metadata = {**info.metadata, **unstored} if unstored else info.metadata
        return replace(info, name=name, subject=subject, link=link, metadata=metadata)

    def _subject(self, replaced: Node | None, name: str) -> str:
        info = replaced.info if isinstance(replaced, Leaf) else None
        return info.subject if info is not None else self._publisher.subject_of(name)

    # -- the tree afterwards ----------------------------------------------------------------------

    def _version_taken_over(self, node: Node, replaced: Node | None) -> ObjectInfo | None:
        """A file that the bucket does not have yet takes over the version that has its new name,
        which its commit will replace; until then the bucket keeps it.  One with more names goes on
        under those."""
        if not (isinstance(node, Leaf) and node.info is None and isinstance(replaced, Leaf)):
            return None
        return None if self._m.namespace.links_to(replaced) else replaced.info

    def _succeed(self, node: Leaf, replaced: Node | None, taken_over: ObjectInfo | None) -> None:
        """*node* has the name of *replaced* now.  If the bucket does not have it, its commit may
        replace there everything that this mount knew of, or may have stored itself."""
        if node.info is not None:
            return
        file = node.file
        other = replaced.file if isinstance(replaced, Leaf) else None
        if isinstance(file, OpenFile) and isinstance(other, OpenFile):
            self._commits.inherit(file, other)
            self._journaling.supplanted(other, file)
        if taken_over is not None:
            self._m.namespace.confirm(node, attrs.without_metadata(taken_over))
            if isinstance(file, OpenFile):
                file.replaces, file.supplants = taken_over.nuid, True

    def _vacate(self, replaced: Node | None, *, keep: bool) -> None:
        """*replaced* has lost its name to a rename; who has it open keeps it (W5).  *keep* says
        that the bucket still has it under that name."""
        if isinstance(replaced, Leaf) and replaced.parent is not None:
            links = self._m.namespace.links_to(replaced)
            if links:
                self._m.namespace.supersede(replaced)
                self._hardlinks.inherit(replaced, links[0])
            elif replaced.info is None:
                self._m.notifier.changed(self._m.namespace.detach(replaced))
                self._times.name_changed(replaced)
            else:
                if not keep:
                    self._m.purger.schedule(replaced.info)
                self._m.namespace.supersede(replaced)
                self._times.name_changed(replaced)
        elif isinstance(replaced, Directory) and replaced.parent is not None:
            self._m.notifier.changed(self._m.namespace.retire(replaced))
            self._times.name_changed(replaced)

    def _primary_name(self, node: Node | None) -> frozenset[Key]:
        file = self._m.namespace.primary(node) if node is not None else None
        return name_of(file) if isinstance(file, Leaf) else frozenset()

    def _same(self, one: Node | None, other: Node) -> bool:
        """Whether both are names of one file: rename(2) does nothing then."""
        if one is None:
            return False
        return self._m.namespace.primary(one) is self._m.namespace.primary(other)

    def _links(self, node: Node | None) -> Iterator[Hardlink]:
        """The hard links to *node* and to what is below it."""
        if isinstance(node, Leaf):
            yield from self._m.namespace.links_to(node)
        elif isinstance(node, Directory) and self._m.namespace.has_links:
            for below in walk(node):
                if isinstance(below, Leaf):
                    yield from self._m.namespace.links_to(below)


def _merged(steps: list[Step]) -> list[Step]:
    """A hard link that changes places and whose file does, too, moves in one step to a new name
    with a new target."""
    found: dict[Node, Step] = {}
    for step in steps:
        known = found.get(step.node)
        if known is not None:
            named, linked = (step, known) if step.moved.name != step.info.name else (known, step)
            step = replace(named, moved=replace(named.moved, link=linked.moved.link))
        found[step.node] = step
    return list(found.values())
