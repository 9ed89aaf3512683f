"""The dirty bytes of one open file: the only module that knows which bytes a program has written.

A spool is a sparse, nameless file on local disk and the set of intervals that it holds.  What it
does not hold is still that of the base version, the one which the file had when it was opened.
Nothing outlives the process: the file has no name, so the kernel frees it with the last descriptor.

The methods are synchronous, and atomic for trio.  They move bytes between this process and the page
cache: a write of 128 KiB measured 0.3 ms, one of 4 KiB 8 µs; handing it to a thread costs 0.1 ms.
"""

from __future__ import annotations

import errno
import os
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from natsfs.errors import CacheError, FileTooBig, NatsfsError, NoSpaceError


@dataclass(frozen=True, slots=True)
class Held:
    """The bytes [*start*, *stop*) are in the spool."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Base:
    """The bytes [*start*, *stop*) are those of the base version."""

    start: int
    stop: int


class Spool:
    """The content of one file: *base_size* bytes of its base version, and what was changed since.

    *directory* is created when it is missing.  Errors: `NoSpaceError`, `CacheError`.
    """

    def __init__(self, directory: Path, base_size: int) -> None:
        self._file = _nameless_file(directory)
        self._size = base_size
        self._base_size = base_size  # how far the base shows; truncating takes it away for good
        self._written = _Intervals()  # where the base is covered; beyond it all is held
        self._generation = 0

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self._size

    @property
    def generation(self) -> int:
        """A number that grows with every change of content or size."""
        return self._generation

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put *data* at *offset*; a gap behind the old end reads as zeros.

        Errors: `NoSpaceError` (the disk or its quota is full), `FileTooBig`, `CacheError` (any
        other).  The content is then the old one, save that after an I/O error held bytes of this
        range may be lost.
        """
        if not data:
            return
        stop = offset + len(data)
        try:
            # Space is reserved first, because a write that fails half-way cannot be taken back.
            os.posix_fallocate(self._file, offset, len(data))
            _write_all(self._file, data, offset)
        except OSError as error:
            self._cut()
            raise _explained(error) from error
        if offset < self._base_size:
            self._written.add(offset, min(stop, self._base_size))
        self._size = max(self._size, stop)
        self._generation += 1

    def truncate(self, size: int) -> None:
        """Set the size.  What is cut off is forgotten: growing again brings zeros.

        Errors: `CacheError`, with the old state intact.
        """
        if size == self._size:
            return
        if size < self._size:
            try:
                self._cut(size)
            except OSError as error:
                raise _explained(error) from error
            self._base_size = min(self._base_size, size)
        self._size = size
        self._generation += 1

    def pieces(self, start: int, stop: int) -> list[Held | Base]:
        """Who has the bytes [*start*, *stop*), cut at the size: pieces in order and without gaps.

        What lies beyond the base and was never written is held, as zeros.
        """
        stop = min(stop, self._size)
        found: list[Held | Base] = []
        position = start
        for held_from, held_to in self._held(start, stop):
            if position < held_from:
                found.append(Base(position, held_from))
            found.append(Held(held_from, held_to))
            position = held_to
        if position < stop:
            found.append(Base(position, stop))
        return found

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of a `Held` piece, or of a part of one.  Errors: `CacheError`."""
        parts = []
        try:
            while start < stop and (part := os.pread(self._file, stop - start, start)):
                parts.append(part)
                start += len(part)
        except OSError as error:
            raise _explained(error) from error
        parts.append(bytes(stop - start))
        return b"".join(parts)

    def close(self) -> None:
        """Forget everything.  Closing again does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _held(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The held parts of [*start*, *stop*): what was written, then all beyond the base."""
        tail = max(start, self._base_size)
        for held_from, held_to in self._written.within(start, min(stop, tail)):
            if held_to == self._base_size:
                tail = held_from
            else:
                yield held_from, held_to
        if tail < stop:
            yield tail, stop

    def _cut(self, size: int | None = None) -> None:
        """Free what the spool's file has beyond *size*, by default the file's size."""
        size = self._size if size is None else size
        if os.fstat(self._file).st_size > size:
            os.ftruncate(self._file, size)


class _Intervals:
    """A set of integers as sorted intervals that neither overlap nor touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> None:
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The intervals in [*start*, *stop*), cut to it."""
        if start >= stop:
            return
        for index in range(bisect_right(self._stops, start), bisect_left(self._starts, stop)):
            yield max(start, self._starts[index]), min(stop, self._stops[index])


def _nameless_file(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            # What a file system without O_TMPFILE answers (open(2)): overlayfs of old, NFS, FUSE.
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                raise
        file, path = tempfile.mkstemp(prefix="spool-", dir=directory)
    except OSError as error:
        raise _explained(error) from error
    os.unlink(path)
    return file


def _write_all(file: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest = rest[written:]
        offset += written


def _explained(error: OSError) -> NatsfsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"the local disk is full: {error}")
    if error.errno == errno.EFBIG:
        return FileTooBig(f"the local disk cannot hold a file of that size: {error}")
    return CacheError(f"the spool on the local disk failed: {error}")
