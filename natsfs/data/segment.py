"""The file of one segment of the block cache: the only module that knows its format.

A segment is a part of a version, in a sparse file.  The file begins with a header that says whose
it is, and a table with a checksum for each block; then every block has its place.  A block is there
when its checksum is: that is written after the bytes, so that a kill leaves whole blocks.  What a
power cut leaves half-written, the checksums give away.

Everything here is synchronous file work for threads, and raises `OSError` when the disk fails.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from natsfs.data.version import Version

#: Bytes of a segment's blocks: so many that a file costs little beside them, and so few that what
#: is used last is kept without much that is not.
SEGMENT_BYTES = 16 * 1024 * 1024

_MAGIC = b"natsfsS2"
#: magic, hash of the version, block size, size of the version, number of the segment.
_HEADER = struct.Struct("<8s32sQQQ")
#: A line of the table: the checksum of a block, 0 for one that is not there.
_LINE = struct.Struct("<Q")

#: Bytes in which file systems hand out space.  Blocks begin at a multiple of it, except the only
#: one of a small object, which would otherwise cost twice.
_PAGE = 4096


#: Moves bytes between buffers and a place in a file, and says how many.
Transfer = Callable[[int, Sequence[memoryview], int], int]

#: Bytes that are worth a way past the kernel's page cache.  Whoever reads has them in the pages of
#: the mount, and pages of the file cost more than all else that is done for the cache: writing a
#: MiB takes 0.2 ms of processor time with them (1 to 2 in a virtual machine that asks its host for
#: the memory first) and 0.05 without, reading one 0.4 (cold) and 0.05.
DIRECT_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Segment:
    """Part *number* of *version*."""

    version: Version
    number: int

    @property
    def blocks(self) -> range:
        """The blocks that belong to it."""
        each = blocks_in_segment(self.version)
        return range(each * self.number, min(each * (self.number + 1), self.version.count))

    @property
    def header(self) -> bytes:
        """What its file begins with."""
        version = self.version
        return _HEADER.pack(_MAGIC, version.hash, version.block_size, version.size, self.number)

    @property
    def file_name(self) -> str:
        """Where it is, below the directory of segments."""
        version, digits = self.version, self.version.hash.hex()
        name = f"{version.block_size:x}-{version.size:x}-{self.number:x}"
        return f"{digits[:2]}/{digits[2:40]}-{name}"

    def line(self, index: int) -> int:
        """Where in the file the line of block *index* is."""
        return _HEADER.size + _LINE.size * (index - self.blocks.start)

    def place(self, index: int) -> int:
        """Where in the file the bytes of block *index* begin."""
        blocks = self.blocks
        head = self.line(blocks.stop)
        if len(blocks) > 1:
            head += -head % _PAGE
        return head + self.version.block_size * (index - blocks.start)


def blocks_in_segment(version: Version) -> int:
    """How many blocks of *version* a segment has."""
    return max(1, SEGMENT_BYTES // version.block_size)


def segment_of(version: Version, index: int) -> int:
    """The number of the segment that block *index* is in."""
    return index // blocks_in_segment(version)


def segments_of(version: Version, blocks: range) -> Iterator[tuple[Segment, range]]:
    """The segments that *blocks* are in, each with those that are in it."""
    while blocks:
        segment = Segment(version, segment_of(version, blocks.start))
        stop = min(segment.blocks.stop, blocks.stop)
        yield segment, range(blocks.start, stop)
        blocks = range(stop, blocks.stop)


def read_table(file: int, status: os.stat_result, segment: Segment) -> Sequence[int] | None:
    """The table of *segment*; None where the file is not the segment's."""
    if not stat.S_ISREG(status.st_mode):
        return None
    head = os.pread(file, segment.line(segment.blocks.stop), 0)
    # Another process may have created it a moment ago.
    if head and head[: _HEADER.size] != segment.header:
        return None
    lines = head[_HEADER.size :]
    # A table is as long as its last block needs; of a cut one the rest is not there.
    lines += bytes(_LINE.size * len(segment.blocks) - len(lines))
    return [line for (line,) in _LINE.iter_unpack(lines)]


def read_sound(
    file: int, segment: Segment, table: Sequence[int], part: range, into: memoryview
) -> list[int] | None:
    """Those of *part* that are there, their bytes in *into*; None if one of them is damaged."""
    version, first = segment.version, segment.blocks.start
    found = [index for index in part if table[index - first]]
    base = version.start(part.start)
    for run in runs(found):
        piece = into[version.start(run.start) - base : version.start(run.stop) - base]
        if _read_all(file, piece, segment.place(run.start)) != len(piece):
            return None
        expected = table[run.start - first : run.stop - first]
        if list(_checksums(version, run, piece)) != list(expected):
            return None
    return found


def bits(table: Sequence[int]) -> int:
    """A bit for each block that is there according to *table*."""
    return sum(1 << number for number, line in enumerate(table) if line)


def _checksums(version: Version, blocks: range, data: memoryview) -> Iterator[int]:
    """A checksum for each of *blocks*, whose bytes *data* has; none is 0, or that of another block.

    XXH3 takes 1 µs for a block of 128 KiB, the CRC-32C of `crc32c` 4, the CRC-32 of zlib 19.
    """
    base = version.start(blocks.start)
    for index in blocks:
        block = data[version.start(index) - base : version.start(index + 1) - base]
        yield xxh3_64_intdigest(block, seed=index) or 1


def write_header(file: int, segment: Segment) -> bool:
    """Make sure that *file* begins as *segment* does, or say that it is another's."""
    header = segment.header
    found = os.pread(file, len(header), 0)
    if not found:
        _write_all(file, memoryview(header), 0)
    return found in (b"", header)


def write_blocks(
    file: int, segment: Segment, part: range, pieces: Sequence[memoryview], *, direct: bool
) -> None:
    """Write *part* of the blocks, first their bytes, which *pieces* have one after the other, whole
    blocks each, and then that they are there; if *direct*, without the kernel's page cache where
    that can be done."""
    lines: list[bytes] = []
    index = part.start
    for piece in pieces:
        blocks = range(index, index + -(-len(piece) // segment.version.block_size))
        lines += map(_LINE.pack, _checksums(segment.version, blocks, piece))
        index = blocks.stop
    place = segment.place(part.start)
    done = _past_memory(file, os.pwritev, pieces, place) if direct else 0
    for piece in between(pieces, done, sum(map(len, pieces))):
        _write_all(file, piece, place + done)
        done += len(piece)
    _write_all(file, memoryview(b"".join(lines)), segment.line(part.start))


def between(pieces: Sequence[memoryview], start: int, stop: int) -> list[memoryview]:
    """The bytes [*start*, *stop*) of all that *pieces* have, one after the other."""
    found, begin = [], 0
    for piece in pieces:
        part = piece[max(start - begin, 0) : max(stop - begin, 0)]
        if part:
            found.append(part)
        begin += len(piece)
    return found


def _past_memory(file: int, transfer: Transfer, pieces: Sequence[memoryview], offset: int) -> int:
    """How many bytes *transfer* has moved between *pieces* and *file* without the page cache of the
    kernel: all whole pages where they are many and it can be done, else none."""
    size = sum(map(len, pieces))
    whole = size - size % _PAGE
    if whole < DIRECT_BYTES or offset % _PAGE:
        return 0
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT)
        return transfer(file, between(pieces, 0, whole), offset)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system, or this buffer, cannot
            raise
        return 0
    finally:
        fcntl.fcntl(file, fcntl.F_SETFL, flags)


def _write_all(file: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(file, data, offset)
        data, offset = data[count:], offset + count


def _read_all(file: int, into: memoryview, offset: int) -> int:
    """How many bytes of *into* were filled before the file ended."""
    filled = _past_memory(file, os.preadv, [into], offset)
    while filled < len(into) and (count := os.preadv(file, [into[filled:]], offset + filled)):
        filled += count
    return filled


def runs(indices: Sequence[int]) -> Iterator[range]:
    """Ascending *indices* as runs without gaps."""
    first = 0
    for place, index in enumerate(indices):
        if place + 1 == len(indices) or indices[place + 1] != index + 1:
            yield range(indices[first], index + 1)
            first = place + 1
