"""Appending from several hosts: what was appended here goes behind what others stored meanwhile.

A commit whose file was only appended to, and that finds another version in its place, puts its
bytes behind that version's and tries again, so that no line of any host is lost (A4, W3).

Concurrency: the caller holds the file's lock.  Programs may go on writing: what they append
meanwhile is taken along, and anything else they do ends the merging.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import trio

from natsfs.data.reader import VersionReader
from natsfs.data.small import Small
from natsfs.data.spool import Spool
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.contents import read, rest_on
from natsfs.filesystem.journaling import Journaling
from natsfs.filesystem.state import Mounted, now_ns
from natsfs.handles import Content, OpenFile
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import NodeChange

#: Bytes that are moved without letting others run: 0.5 ms of page cache.
PIECE = 1024 * 1024


async def put_behind(
    mounted: Mounted,
    journaling: Journaling,
    file: OpenFile,
    stream: Callable[[], VersionReader],
    version: ObjectInfo,
) -> None:
    """Make *version* the base of *file*, followed by what was appended here since its last commit.
    *stream* gives a reader of what is below the file's content.

    Nothing happens if a program does something else to the bytes meanwhile; the commit then goes by
    the rules for conflicts.  Errors: `NoSpaceError`, `FileTooBig`, `CacheError`, those of `read`,
    with the file as it was.
    """
    spool: Spool | None = None
    copied = 0
    try:
        while file.appended_from is not None and file.appended_from + copied < file.size:
            start = file.appended_from + copied
            data = await read(file, stream, start, min(PIECE, file.size - start))
            spool = spool or mounted.journal.of(file.bucket).spool(version.size)
            spool.write(version.size + copied, data)
            copied += len(data)
            if start + len(data) < file.size:
                await trio.lowlevel.checkpoint()
        if file.append_only:
            left, spool = _exchange(mounted, file, version, spool), None
            await _part_with(journaling, file, left)
    finally:
        if spool is not None:
            spool.close()


async def _part_with(journaling: Journaling, file: OpenFile, left: Content | None) -> None:
    """Let *left* go, once the journal needs it no more."""
    safe = False
    try:
        safe = await journaling.rebased(file)
    finally:
        if left is not None:
            if not (safe or isinstance(left, Small)):
                left.keep()
            left.close()


def _exchange(
    mounted: Mounted, file: OpenFile, version: ObjectInfo, spool: Spool | None
) -> Content | None:
    """Let *file* be *version* with *spool* on it; its old content comes back."""
    left, file.content = file.content, spool
    rest_on(mounted, file, version)
    file.replaces = version.nuid
    file.appended_from = version.size
    leaf = file.leaf
    # Whatever the kernel has of the file is out of place now.  It drops that when it asks for the
    # attributes and finds another mtime.
    leaf.attributes = replace(attributes_of(mounted, leaf), size=file.size, mtime_ns=now_ns())
    file.pages_true = False
    mounted.notifier.changed([NodeChange(leaf)])
    return left
