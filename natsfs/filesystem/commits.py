"""The commit of what was written: it makes the bytes of an open file the object's version, and
returns when JetStream has acknowledged (W1).

Concurrency: `commit` holds the file's lock and the reservation of its name; writes go on meanwhile
and leave the file dirty, but those to an outflow wait.  After the wait for the reservation the file
may have been unlinked.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial

from natsfs.data.journal import Entry
from natsfs.data.outflow import Outflow
from natsfs.data.reader import VersionReader
from natsfs.data.small import Small
from natsfs.data.spool import Spool
from natsfs.errors import (
    ConflictError,
    ConflictKnown,
    NotSent,
    OutOfMemory,
    ReplacedBucket,
    StaleVersion,
    WrongRevision,
)
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.appending import put_behind
from natsfs.filesystem.conflicts import Conflicts, SupersededError
from natsfs.filesystem.contents import read_content, rest_on
from natsfs.filesystem.journaling import Journaling
from natsfs.filesystem.naming import name_of
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.state import Mounted
from natsfs.handles import OpenFile, is_open_for_writing
from natsfs.store.contention import Contention
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.store.primitives import Data, Place
from natsfs.tree.nodes import Directory, Leaf, Node, NodeChange, is_below

log = logging.getLogger(__name__)

#: Bytes that a commit takes from a spool at once: large against the cost of a step, small
#: against what the store keeps in flight.
COMMIT_PIECE = 1024 * 1024


#: Begins to give the bytes of a version, from the first on.
Source = Callable[[], AsyncGenerator[Data, None]]


class Commits:
    """Saves files."""

    def __init__(self, mounted: Mounted, publisher: Publisher, journaling: Journaling) -> None:
        self._m = mounted
        self._publisher = publisher
        self._journaling = journaling
        self._conflicts = Conflicts(mounted)
        #: Files that nobody has open any more and whose bytes are not acknowledged.
        self.waiting: set[OpenFile] = set()
        #: Those that an attempt may have stored whose answer was lost.
        self._unclear: set[OpenFile] = set()

    async def commit(self, file: OpenFile, *, closed: bool = False) -> None:
        """Make what was written the object's version, and return when JetStream has it (W1).

        Nothing happens for a file that is clean, or has no name any more (W5), or where nobody asks
        for more than what was *closed*, that a program has begun to write again (W2).
        Errors: those of `ObjectStore.upload_version` and, for bytes never rewritten, of `read`;
        `ConflictError` (another client stored a version meanwhile, and this mount gives way);
        `ReplacedBucket` (the one that it was opened in is gone, and there is another);
        `OutOfMemory`.
        """
        async with file.lock:
            if file.refused:
                raise ConflictKnown("the file gave way to another version, or bucket")
            if not file.dirty:
                return
            if file.bucket != self._m.store.identity:
                raise ReplacedBucket(f"{file.leaf.object_name!r} was written to an earlier bucket")
            leaf = file.leaf
            async with self._m.reservations.hold(lambda: name_of(leaf.heir)):
                if closed and self.is_unfinished(file):
                    return
                if leaf.heir.parent is not None and file.dirty:
                    await self._commit(file, leaf)
                self.waiting.discard(file)

    def is_unfinished(self, file: OpenFile) -> bool:
        """Whether *file* is half of what a program writes.  The kernel may tell late that it does
        not write any more: then the journal knows that it is closed."""
        return is_open_for_writing(file) and not self._journaling.has_promised(file)

    def abandon(self) -> None:
        """There is no bucket any more that anything could be stored in, or asked about."""
        self.waiting.clear()
        self._unclear.clear()

    def inherit(self, file: OpenFile, other: OpenFile) -> None:
        """*file* has the name of *other* now: what attempts to store that have come to is under the
        name of *file*."""
        if other.tried:
            file.tried |= other.tried
            self._unclear.add(file)

    async def clear_up(self, node: Node) -> None:
        """*node* is about to lose its name: find out what the bucket has under it and under those
        below, where attempts to store files were not answered.  The caller holds the names.

        Errors: those of `ObjectStore.get_info_at`.
        """
        for file in list(self._unclear):
            leaf = file.leaf
            concerned = leaf is node or (isinstance(node, Directory) and is_below(leaf, node))
            if concerned and leaf.info is None and leaf.parent is not None:
                await self._publisher.refresh(leaf)

    async def _commit(self, file: OpenFile, leaf: Leaf) -> None:
        contention = Contention(self._m.store)
        try:
            while file.dirty and not await self._save(file, leaf, contention):
                pass
        except ConflictError:
            self._conflicts.give_way(file)
            self.waiting.discard(file)
            raise
        except MemoryError as error:
            # For those who wait with it, and try it again, one more thing that can go wrong.
            raise OutOfMemory(f"no memory to store {leaf.object_name!r}") from error

    async def _save(self, file: OpenFile, leaf: Leaf, contention: Contention) -> bool:
        """Store a version, or find that what was appended has to go behind another one first."""
        try:
            self._reclaim(file, leaf)
            await self._store(file, leaf, contention)
        except SupersededError as superseded:
            with self.reading(file) as stream:
                await put_behind(self._m, self._journaling, file, stream, superseded.version)
            if file.content is None and file.changes == 1:
                # Nothing but its creation waited here, and it exists.
                file.committed = file.changes
                leaf.attributes = None
            return False
        except StaleVersion:
            if file.append_only and await self._was_replaced(file, leaf):
                return False
            raise
        return True

    async def _store(self, file: OpenFile, leaf: Leaf, contention: Contention) -> None:
        changes, size, appended_from = file.changes, file.size, file.appended_from
        written, file.written = file.written, 0
        content, entry = file.content, file.entry
        told = None if entry is None else (entry, entry.alterations)
        outflow = content if isinstance(content, Outflow) else None

        def judge(other: ObjectInfo | None) -> list[MetaWrite]:
            if other is not None and outflow is not None and other.nuid == outflow.nuid:
                return []  # an attempt before, whose answer was lost
            appended = appended_from is not None and file.append_only
            conflict = self._conflicts.check(file, other, appended=appended)
            return self._conflicts.kept(leaf, other) if conflict and other is not None else []

        tried = frozenset(file.tried)
        # What programs append from here on goes behind the version that is being stored.
        file.appended_from = size
        try:
            info = await self._publisher.put(
                leaf,
                partial(self._upload, file, self._source(file, size), told),
                judge,
                contention,
            )
        except BaseException as error:
            file.appended_from = appended_from if file.append_only else None
            file.written += written
            if isinstance(error, NotSent):
                file.tried = set(tried)
            if file.tried:
                self._unclear.add(file)
            if outflow is not None and file.content is not outflow:
                outflow.close()  # it was cut meanwhile
            raise
        file.committed, file.troubled = changes, False
        rest_on(self._m, file, info)
        file.replaces, file.supplants, file.yields = info.nuid, False, ""
        file.tried.clear()
        self._unclear.discard(file)
        if file.content is outflow:
            file.content = None
        self._journaling.saved(file)
        if not file.dirty:
            leaf.attributes = replace(attributes_of(self._m, leaf), ctime_ns=info.time_ns)
            if not size:
                # No write has made the kernel forget what it was told when the file was created.
                self._m.notifier.changed([NodeChange(leaf)])

    def _source(self, file: OpenFile, size: int) -> Outflow | Source:
        """The bytes to be stored, whatever becomes of *file* meanwhile: a program that cuts it
        gives it another content, and what is small is copied."""
        content = file.content
        if isinstance(content, Outflow):
            return content
        if isinstance(content, Small):
            data = content.read(0, size)
            return lambda: self._whole(data)
        return lambda: self._content(file, content, size)

    async def _upload(
        self,
        file: OpenFile,
        source: Outflow | Source,
        told: tuple[Entry, int] | None,
        place: Place,
    ) -> tuple[ObjectInfo, ...]:
        name = file.leaf.object_name

        async def noted(version: ObjectInfo, lost: WrongRevision | None) -> Sequence[MetaWrite]:
            self._journaling.about_to_store(file, told, version.nuid)
            file.tried.add(version.nuid)
            return await place(version, lost)

        if isinstance(source, Outflow):
            return await source.commit(name, noted)
        async with aclosing(source()) as pieces:
            return await self._m.store.upload_version(name, pieces, noted)

    def _reclaim(self, file: OpenFile, leaf: Leaf) -> None:
        """Another client wrote a version between the opening of *leaf* and now.  The last commit
        wins (A4), so the name goes back to *leaf*, unless this mount is to give way.

        Errors: `ConflictError`.
        """
        holder = leaf.heir
        if holder is leaf or holder.parent is None:
            return
        with suppress(SupersededError):
            self._conflicts.check(file, holder.info, appended=file.append_only)
        self._m.notifier.changed(self._m.namespace.reclaim(leaf, holder))
        holder.successor, leaf.successor = leaf, None

    async def _was_replaced(self, file: OpenFile, leaf: Leaf) -> bool:
        """Whether the version that appended bytes stand on went because there is another one."""
        await self._publisher.refresh(leaf)
        current = leaf.info
        if current is None or file.base is None:
            return False
        return current.nuid not in (file.base.nuid, file.replaces)

    async def _content(
        self, file: OpenFile, content: Spool | None, size: int
    ) -> AsyncGenerator[Data, None]:
        with self.reading(file) as stream:
            for start in range(0, size, COMMIT_PIECE):
                piece = await read_content(content, stream, start, min(COMMIT_PIECE, size - start))
                yield piece
                self._m.metrics.stored.inc(len(piece))

    async def _whole(self, data: bytes) -> AsyncGenerator[Data, None]:
        if data:
            yield data
            self._m.metrics.stored.inc(len(data))

    @contextmanager
    def reading(self, file: OpenFile) -> Iterator[Callable[[], VersionReader]]:
        """A reader of what is below *file*, which is opened when it is asked for first."""
        streams: list[VersionReader] = []

        def stream() -> VersionReader:
            if not streams:
                streams.append(self.stream(file))
            return streams[0]

        try:
            yield stream
        finally:
            for opened in streams:
                opened.close()

    def stream(self, file: OpenFile) -> VersionReader:
        """A reader of the version below *file*.  Errors: `StaleVersion` (it has none)."""
        if file.base is None:
            raise StaleVersion("the file has no version to read")
        return self._m.reader.open(file.base)

    def let_go(self, file: OpenFile) -> None:
        """Let go of a file that nobody has open and that has nothing to save."""
        if file.handles or file.leaf.file is not file:
            return
        if file.dirty and file.leaf.heir.parent is not None:
            self.waiting.add(file)
            return
        self.waiting.discard(file)
        self._unclear.discard(file)
        self._journaling.ended(file)
        file.leaf.file = None
        file.leaf.cached = file.base.nuid if file.pages_true and file.base is not None else ""
        if file.content is not None:
            file.content.close()
        if file.base is not None:
            self._m.purger.release(file.base.nuid)
