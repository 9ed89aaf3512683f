"""The commit of what was written, and what becomes of files that cannot be saved.

A commit makes the bytes of an open file the object's version and returns when JetStream has
acknowledged (W1).  What cannot be saved when the last handle goes is kept, and tried again until
the mount ends; nothing is thrown away in silence (W7).

Concurrency: `commit` holds the file's lock and the reservation of its name; writes go on meanwhile
and leave the file dirty.  After the wait for the reservation the file may have been unlinked.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import trio

from natsfs.data.reader import VersionReader
from natsfs.data.spool import Held
from natsfs.errors import NatsfsError, ReadOnlyError, StaleVersion
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.naming import name_of
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.state import Mounted
from natsfs.handles import OpenFile
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import EntryChange, Leaf, NodeChange

log = logging.getLogger(__name__)

#: Bytes that a commit takes from the spool at once: large against the cost of a step, small
#: against what the store keeps in flight.
COMMIT_PIECE = 1024 * 1024

#: Seconds between attempts to save what could not be saved when it was closed.
RETRY_UNSAVED = 5.0


class Commits:
    """Saves files."""

    def __init__(self, mounted: Mounted, publisher: Publisher) -> None:
        self._m = mounted
        self._publisher = publisher
        #: Files that nobody has open any more and whose bytes are not acknowledged.
        self._unsaved: set[OpenFile] = set()

    async def commit(self, file: OpenFile) -> None:
        """Make what was written the object's version, and return when JetStream has it (W1).

        Nothing happens for a file that is clean, or has no name any more (W5).
        Errors: those of `ObjectStore.upload` and, for bytes never rewritten, of `read`.
        """
        async with file.lock:
            if not file.dirty:
                return
            leaf = file.leaf
            async with self._m.reservations.hold(lambda: name_of(leaf.heir)):
                self._reclaim(leaf)
                if leaf.parent is not None and file.dirty:
                    await self._commit(file, leaf)
                self._unsaved.discard(file)

    def _reclaim(self, leaf: Leaf) -> None:
        """Another client wrote a version between the opening of *leaf* and now: the last commit
        wins (A4), so the name goes back to *leaf*."""
        holder = leaf.heir
        if holder is leaf or holder.parent is None:
            return
        self._m.notifier.changed(self._m.namespace.reclaim(leaf, holder))
        holder.successor, leaf.successor = leaf, None

    async def _commit(self, file: OpenFile, leaf: Leaf) -> None:
        changes = file.changes
        attributes = attributes_of(self._m, leaf)
        info = await self._publisher.put(leaf, lambda: self._content(file), attributes)
        file.committed = changes
        self._rebase(file, info)
        if not file.dirty:
            leaf.attributes = replace(attributes, ctime_ns=info.time_ns)

    async def retry_unsaved(self) -> None:
        """Try again what could not be saved, until cancelled."""
        while True:
            await trio.sleep(RETRY_UNSAVED)
            for file in list(self._unsaved):
                await self.commit_or_keep(file)
                self.let_go(file)

    async def finish(self, files: list[OpenFile]) -> int:
        """Commit *files* and everything unsaved because the mount ends; return how many failed."""
        for file in [*files, *self._unsaved]:
            await self.commit_or_keep(file)
            self.let_go(file)
        return len(self._unsaved)

    def abandon(self, files: list[OpenFile]) -> None:
        """Forget what *files* and those unsaved have on local disk: there is no bucket for it."""
        for file in {*files, *self._unsaved}:
            if file.spool is not None:
                file.spool.close()
        self._unsaved.clear()

    def pending_bytes(self, files: list[OpenFile]) -> int:
        """How many bytes JetStream has not acknowledged, in *files* and in those unsaved."""
        waiting = {file for file in (*files, *self._unsaved) if file.dirty}
        return sum(file.size for file in waiting if file.leaf.heir.parent is not None)

    async def commit_or_keep(self, file: OpenFile) -> None:
        try:
            await self.commit(file)
        except ReadOnlyError as error:
            self._abandon(file, error)
        except NatsfsError as error:
            if file not in self._unsaved:
                name = file.leaf.object_name
                log.error("%r is not saved yet and will be tried again: %s", name, error)
            self._unsaved.add(file)

    def _abandon(self, file: OpenFile, error: ReadOnlyError) -> None:
        """The bucket was sealed: what was written can never be stored.  close(2) has said so; the
        tree goes back to what the bucket holds, instead of showing what is in no bucket."""
        leaf = file.leaf
        log.error("%r cannot be saved, its changes are dropped: %s", leaf.object_name, error)
        file.committed = file.changes
        self._unsaved.discard(file)
        file.pages_true = False
        if leaf.info is not None:
            leaf.attributes = None
            self._m.notifier.changed([NodeChange(leaf)])
        elif leaf.parent is not None:
            parent, name = leaf.parent, leaf.name
            changes = self._m.namespace.detach(leaf)
            self._m.notifier.changed([EntryChange(parent, name, gone=leaf), *changes])

    async def _content(self, file: OpenFile) -> AsyncGenerator[bytes, None]:
        streams: list[VersionReader] = []

        def stream() -> VersionReader:
            if not streams:
                streams.append(self.stream(file))
            return streams[0]

        try:
            for start in range(0, file.size, COMMIT_PIECE):
                yield await read(file, stream, start, COMMIT_PIECE)
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
            self._unsaved.add(file)
            return
        self._unsaved.discard(file)
        file.leaf.file = None
        file.leaf.cached = file.base.nuid if file.pages_true and file.base is not None else ""
        if file.spool is not None:
            file.spool.close()
        if file.base is not None:
            self._m.purger.release(file.base.nuid)

    def _rebase(self, file: OpenFile, info: ObjectInfo) -> None:
        """What was written is *info* now: bytes that the spool does not hold are the same in it, so
        that the version before can go."""
        for handle in file.handles:
            if handle.stream is not None:
                handle.stream.close()
                handle.stream = None
        if file.base is not None:
            self._m.purger.release(file.base.nuid)
        self._m.purger.hold(info.nuid)
        file.base = info


async def read(
    file: OpenFile, stream: Callable[[], VersionReader], offset: int, size: int
) -> bytes:
    """Bytes from the spool where it holds them, from the base version elsewhere."""
    spool = file.spool
    if spool is None:
        return await stream().read(offset, size) if file.base is not None else b""
    parts = []
    for piece in spool.pieces(offset, offset + size):
        if isinstance(piece, Held):
            parts.append(spool.read(piece.start, piece.stop))
        else:
            parts.append(await stream().read(piece.start, piece.stop - piece.start))
    return parts[0] if len(parts) == 1 else b"".join(parts)
