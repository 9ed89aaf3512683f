"""The bytes of open files: the only module that knows when a content turns into another kind.

A file begins as a `Small` one.  Grown beyond that by appending, it is an `Outflow`, which leaves
while the program writes.  Whatever else is done to a file is done in a `Spool` on top of a version:
the one that it had, or what an outflow has stored until then.

Concurrency: `settled` and `room` wait, and what they waited for is to be looked at again.  `read`
gives the bytes that the file has when it is called.  All others are atomic.
"""

from __future__ import annotations

from collections.abc import Callable

from natsfs.data.coverage import Held
from natsfs.data.outflow import GAP, Outflow
from natsfs.data.reader import VersionReader
from natsfs.data.small import SMALL_BYTES, Small
from natsfs.data.spool import Spool
from natsfs.filesystem.journaling import is_named
from natsfs.filesystem.state import Mounted
from natsfs.handles import Content, OpenFile
from natsfs.store.model import ObjectInfo
from natsfs.store.primitives import Data


class Contents:
    """Changes the bytes of the open files of one mount."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        self._shared = mounted.outflows

    async def settled(self, file: OpenFile) -> bool:
        """Wait while an outflow is being committed: nothing can be added to it, and what it will be
        is not known yet.  Gives whether there was one; *file* may have been let go meanwhile.
        """
        waited = False
        while isinstance(file.content, Outflow) and file.content.sealed and file.lock.locked():
            waited = True
            async with file.lock:
                pass
        return waited

    async def room(self, file: OpenFile) -> None:
        """Wait until the next write may come.  Errors: those of `Outflow.room`."""
        await self.settled(file)
        while isinstance(file.content, Outflow) and not file.content.sealed:
            content = file.content
            await content.room()
            if file.content is content and not content.sealed:
                return
            await self.settled(file)

    def write(self, file: OpenFile, start: int, data: bytes) -> bool:
        """Put *data* at *start*; a gap behind the old end reads as zeros.

        Gives whether a spool held bytes there already.
        Errors: those of `Spool.write` and `Outflows.begin`.
        """
        content = self._writable(file, start, start + len(data))
        held = isinstance(content, Spool) and content.coverage.holds(start, start + len(data))
        content.write(start, data)
        return held

    def truncate(self, file: OpenFile, size: int) -> None:
        """Set the size.  What is cut off is forgotten: growing again brings zeros.

        Errors: as `write`.
        """
        content = file.content
        if size == 0 and (content is None or isinstance(content, Outflow)):
            if isinstance(content, Outflow) and not content.committing:
                content.close()  # otherwise it ends with the commit
            # Also where the base is empty: what is on its way now may become the base.
            file.content = Small(self._shared.memory)
            return
        if size == file.size and not isinstance(content, Spool):
            return
        content = self._writable(file, size, size, cut=size < file.size)
        if isinstance(content, Outflow):
            content.extend(size)
        else:
            content.truncate(size)

    def _writable(
        self, file: OpenFile, start: int, stop: int, *, cut: bool = False
    ) -> Spool | Small | Outflow:
        """The content of *file*, fit for bytes in [*start*, *stop*), or for being *cut*."""
        content = file.content
        if content is None and file.size == 0:
            content = file.content = Small(self._shared.memory)
        if isinstance(content, Small):
            grows = stop > content.size
            if not grows or (stop <= SMALL_BYTES and not self._shared.memory.full):
                return content
            if is_named(file) and content.size <= start <= content.size + GAP:
                return self._begin(file, content)
        elif isinstance(content, Outflow):
            if not cut and is_named(file) and content.fits(start):
                return content
        elif content is not None:
            return content
        return self._spooled(file)

    def _begin(self, file: OpenFile, content: Small) -> Outflow:
        """Let the bytes of *file* leave while more are written."""
        outflow = self._shared.begin(file.leaf.heir.object_name)
        outflow.write(0, content.read(0, content.size))
        content.close()
        file.content = outflow
        return outflow

    def _spooled(self, file: OpenFile) -> Spool:
        """Turn *file*'s content into a spool, without losing what has been stored of it."""
        content = file.content
        stored = content.stored() if isinstance(content, Outflow) else None
        below = file.size if content is None else stored.size if stored is not None else 0
        spool = self._m.journal.of(file.bucket).spool(below)
        try:
            if isinstance(content, Outflow):
                content.pour(spool)
            elif isinstance(content, Small):
                spool.write(0, content.read(0, content.size))
        except BaseException:
            spool.close()
            raise
        if stored is not None:
            rest_on(self._m, file, stored)
        if content is not None:
            content.close()
        file.content = spool
        return spool


def rest_on(mounted: Mounted, file: OpenFile, version: ObjectInfo) -> None:
    """Bytes of *file* that its content does not hold are those of *version* from now on; the
    version that they were of can go."""
    for handle in file.handles:
        if handle.stream is not None:
            handle.stream.close()
            handle.stream = None
    if file.base is not None:
        mounted.purger.release(file.base.nuid)
    mounted.purger.hold(version.nuid)
    file.base = version


async def read(file: OpenFile, stream: Callable[[], VersionReader], offset: int, size: int) -> Data:
    """Bytes of *file*, as it is when the reading begins: a commit may give it another content and
    another base before the end.  *stream* gives a reader of what is below the content."""
    if file.content is None and file.base is None:
        return b""
    return await read_content(file.content, stream, offset, size)


async def read_content(
    content: Content | None, stream: Callable[[], VersionReader], offset: int, size: int
) -> Data:
    """Bytes of *content* where it holds them, of what is below it elsewhere, which *stream* gives a
    reader of."""
    if content is None:
        return await stream().read(offset, size)
    pieces = content.pieces(offset, offset + size)
    held = {
        piece: content.read(piece.start, piece.stop) for piece in pieces if isinstance(piece, Held)
    }
    version = stream() if isinstance(content, Spool) and len(held) < len(pieces) else None
    parts: list[Data] = []
    for piece in pieces:
        if isinstance(piece, Held):
            parts.append(held[piece])
        elif isinstance(content, Outflow):
            parts.append(await content.read_stored(piece.start, piece.stop))
        elif version is not None:
            parts.append(await version.read(piece.start, piece.stop - piece.start))
    return parts[0] if len(parts) == 1 else b"".join(parts)
