"""The log of a journal: records, one after the other, in segments that are used again and again.

A segment is kept while somebody *needs* it.  Everything is synchronous and atomic.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from natsfs.data.records import HEAD_BYTES, RECORD_BYTES, Kind, head, header
from natsfs.store.primitives import Data

#: Bytes of a segment: what an entry keeps on disk at the least, and a few seconds of small files.
SEGMENT = 4 * 1024 * 1024

#: Segments without anything in them that are kept for later: making one costs three times as much
#: as using one again.
SPARE = 4


class Segment:
    """A file of the log.  *needed* says how many need it.  Errors: `OSError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.needed = 0
        self.position = 0
        self.file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self.file, 0, SEGMENT)
        except OSError:
            self.discard()
            raise

    def begin(self, sequence: int) -> None:
        """The next record has this *sequence*, and is the first."""
        os.pwrite(self.file, head(sequence), 0)
        self.position = HEAD_BYTES

    def sync(self) -> None:
        """Wait until the disk has it.  Errors: `OSError`."""
        os.fdatasync(self.file)

    def discard(self) -> None:
        """Nobody will ask for it any more."""
        os.close(self.file)
        with suppress(OSError):
            self.path.unlink()


class Log:
    """The log in the directory that *made* gives, which may be another one when somebody has
    removed it.  *on_rotation* is called when a segment is full and another one begun.  While the
    disk *hangs* nothing is removed."""

    def __init__(
        self,
        made: Callable[[], Path],
        on_rotation: Callable[[], None],
        hangs: Callable[[], bool] = lambda: False,
    ) -> None:
        self._hangs = hangs
        self._made = made
        self._on_rotation = on_rotation
        #: The sequence of the last record.
        self.sequence = 0
        #: Those that the disk may not have.
        self.unsynced: set[Segment] = set()
        #: Whether a thread is busy with some of them, so that none may be closed.
        self.syncing = False
        self._current: Segment | None = None
        self._spare: list[Segment] = []
        self._files = 0

    def append(self, kind: Kind, entry: int, count: int, offset: int, body: Data) -> Segment:
        """Write a record, and return the segment that has it, which is not needed yet.

        Errors: `OSError`, those of *made*."""
        size = RECORD_BYTES + len(body)
        if size > SEGMENT // 2:
            raise OSError(errno.EFBIG, "a record is too large for a segment")
        while (segment := self._current) is None or segment.position + size > SEGMENT:
            self._rotate()
        before = header(kind, self.sequence + 1, entry, count, offset, time.time_ns(), body)
        if os.pwritev(segment.file, [before, body], segment.position) != size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.sequence += 1
        segment.position += size
        self.unsynced.add(segment)
        return segment

    def need(self, segment: Segment) -> None:
        """Somebody needs a record in *segment*."""
        segment.needed += 1

    def release(self, segment: Segment) -> None:
        """Somebody does not need *segment* any more."""
        segment.needed -= 1
        if not segment.needed and segment is not self._current:
            self._free(segment)

    def begin_anew(self) -> None:
        """The directory is another one: the segments of the old one are not used any more."""
        self._spare, self._current = [], None

    def _rotate(self) -> None:
        left, segment = self._current, self._fresh()
        segment.begin(self.sequence + 1)
        self._current = segment
        if left is not None and not left.needed:
            self._free(left)
        self._on_rotation()

    def _fresh(self) -> Segment:
        if self._spare:
            return self._spare.pop()
        self._files += 1
        return Segment(self._made() / f"{self._files:08}.log")

    def _free(self, segment: Segment) -> None:
        """Keep *segment* for later, if it is where the log goes on."""
        here = self._current is not None and segment.path.parent == self._current.path.parent
        busy = self.syncing or self._hangs()
        if here and (busy or len(self._spare) < SPARE):
            self._spare.append(segment)
        elif not busy:  # a descriptor must not be closed under the thread that uses it
            self.unsynced.discard(segment)
            segment.discard()
