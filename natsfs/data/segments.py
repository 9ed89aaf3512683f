"""The directory of the block cache: which file each segment is in, and which of them go.

The segments of a version are files under ``DIRECTORY/blocks-2/HH/``, named by a hash of the
version, so that no nuid, however hostile, leaves the directory.  Damage of any kind takes the
segment with it.

The directory may be shared by any number of processes, who write the same bytes where they write
the same block.  None of them keeps an index: the files are the truth, and their mtime is the time
of last use.

Everything here is synchronous file work for threads.  Threads share nothing but the directory,
where each step is one system call that another process might as well have made.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from natsfs.data.ownership import others_may_replace
from natsfs.data.segment import (
    Segment,
    between,
    bits,
    read_sound,
    read_table,
    segment_of,
    segments_of,
    write_blocks,
    write_header,
)
from natsfs.data.version import Version, version_hash

log = logging.getLogger(__name__)

#: The layout's name.  Another format gets another number, and earlier ones are thrown away.
_LAYOUT = "blocks-2"
_LAYOUT_NAME = re.compile(r"blocks-([0-9]+)")
_SEGMENT_NAME = re.compile(r"[0-9a-f]{38}-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+")

#: Seconds: a segment's time of last use is brought up to date only if it is older, like relatime.
TOUCH_AFTER = 60.0

#: Eviction goes down to this share of the limit, and the directory is looked through again after
#: one such step of writing: the scan (2.5 µs a file) is then spread over what was written.
KEEP = 15 / 16

#: Segments to both sides of one that is not there that are looked for as well: a program that reads
#: here and there then learns at once that a large version is not cached.  A look that finds nothing
#: takes 2 µs, a thread to do it in 100.
NEIGHBOURS = 32


@dataclass(slots=True)
class Look:
    """What a look into the cache has shown: the *found* blocks were there and sound; *there* has
    for each segment that was looked at a bit for each of its blocks that is there."""

    found: list[int] = field(default_factory=list)
    there: dict[int, int] = field(default_factory=dict)


class SegmentFiles:
    """The segments below *directory*.

    Every method may be called from any thread, and raises `OSError` when the disk fails.
    """

    def __init__(self, directory: Path) -> None:
        self.root = directory / _LAYOUT
        self._safe = False
        self._damage_seen = False

    def read(self, version: Version, blocks: range, into: memoryview) -> Look:
        """Read those of *blocks* that are there into *into*, each at its own place."""
        look = Look()
        for segment, part in segments_of(version, blocks):
            at = version.start(part.start) - version.start(blocks.start)
            size = version.start(part.stop) - version.start(part.start)
            there = self._read(segment, part, into[at : at + size], look.found)
            look.there[segment.number] = there
        if not any(look.there.values()):
            self._look_around(version, look)
        return look

    def write(
        self,
        version: Version,
        first: int,
        pieces: Sequence[memoryview],
        min_free: float,
        *,
        direct: bool = True,
    ) -> int | None:
        """Store the blocks from *first* on, which *pieces* have one after the other, whole blocks
        each, and return how many more bytes are used by that; None if the disk has too little free
        space.  If *direct*, large writes wait for the disk instead of filling the kernel's page
        cache."""
        start, used = version.start(first), 0
        size = sum(map(len, pieces))
        for segment, part in segments_of(version, version.blocks(start, start + size)):
            begin, end = version.start(part.start) - start, version.start(part.stop) - start
            more = self._write(segment, part, between(pieces, begin, end), min_free, direct=direct)
            if more is None:
                return None
            used += more
        return used

    def discard(self, bucket_identity: str, nuid: str) -> None:
        """Remove every block of a version."""
        digits = version_hash(bucket_identity, nuid).hex()
        with suppress(FileNotFoundError):
            for entry in _entries(self.root / digits[:2]):
                if entry.name.startswith(digits[2:40] + "-"):
                    _remove(entry.path)

    def usage(self, versions: Collection[str] | None = None) -> tuple[int, int]:
        """How many segments there are, and the bytes that they take; of *versions* alone, which are
        named as `named` has it, if some are given."""
        costs = [cost for _, cost in self._of(versions)]
        return len(costs), sum(costs)

    def clear(self, versions: Collection[str] | None = None) -> tuple[int, int]:
        """Remove what `usage` counts, whoever uses it: it is fetched again."""
        if not self._is_safe():
            return 0, 0
        if versions is None:
            self._discard_earlier_layouts()
        count = freed = 0
        for path, cost in self._of(versions):
            _remove(path)
            count, freed = count + 1, freed + cost
        return count, freed

    def evict(self, max_bytes: int, min_free: float) -> int:
        """Remove the segments that were not used for longest, if a limit is reached; also what an
        earlier format left.  Return how many bytes are used then.

        Raises `OSError` (ENOSPC) if without all segments the disk would still be too full.
        """
        self._discard_earlier_layouts()
        by_age: Counter[int] = Counter()
        for _, status in self._segments():
            by_age[int(status.st_mtime)] += _disk_cost(status)
        used = by_age.total()
        excess = used - int(max_bytes * KEEP) if used > max_bytes else 0
        missing = _missing_space(self.root, min_free) if self.root.exists() else 0
        if missing > 0:
            excess = max(excess, missing + int(max_bytes * (1 - KEEP)))
        freed = self._remove_oldest(by_age, excess) if excess else 0
        if missing > freed:
            raise OSError(errno.ENOSPC, f"less than {min_free:.0%} of the disk is free")
        return used - freed

    def ask(self) -> None:
        """Have the disk say anything: a network file system asks its server for this."""
        with suppress(OSError):
            os.statvfs(self.root.parent)

    # -- one segment ------------------------------------------------------------------------------

    def _read(self, segment: Segment, part: range, into: memoryview, found: list[int]) -> int:
        """`Look.there` of *segment*, and those of *part* that are sound into *into* and *found*."""
        path = self.root / segment.file_name
        file = self._open(path)
        if file is None:
            return 0
        try:
            status = os.fstat(file)
            table = read_table(file, status, segment)
            sound = [] if table is None else read_sound(file, segment, table, part, into)
        except OSError:
            _remove(path)  # one bad sector must not be met again and again
            raise
        finally:
            os.close(file)
        if table is None or sound is None:
            self._drop_damaged(path)
            return 0
        found += sound
        if sound and status.st_mtime < time.time() - TOUCH_AFTER:
            with suppress(OSError):  # on a read-only disk blocks are of use all the same
                os.utime(path)
        return bits(table)

    def _look_around(self, version: Version, look: Look) -> None:
        last = segment_of(version, version.count - 1)
        near = range(
            max(min(look.there) - NEIGHBOURS, 0), min(max(look.there) + NEIGHBOURS, last + 1)
        )
        for number in near:
            if number not in look.there:
                segment = Segment(version, number)
                look.there[number] = self._read(segment, range(0), memoryview(b""), [])

    def _write(
        self,
        segment: Segment,
        part: range,
        pieces: Sequence[memoryview],
        min_free: float,
        *,
        direct: bool,
    ) -> int | None:
        path = self.root / segment.file_name
        if not self._is_safe() or not path.parent.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._safe = False  # what is around the directory has not been looked at
            self._is_safe()
        if _missing_space(path.parent, min_free) > 0:
            return None
        try:
            while (more := _write(path, segment, part, pieces, direct=direct)) is None:
                _remove(path)
        except OSError:
            # It may be half written, and on a full disk every byte counts.
            _remove(path)
            raise
        return more

    def _open(self, path: Path) -> int | None:
        if not self._is_safe():
            return None
        try:
            # Without O_NONBLOCK a FIFO that somebody left there would be waited for.
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def _drop_damaged(self, path: Path) -> None:
        """Remove a segment that is not what it should be.  After a power cut there may be many: the
        first one is worth a warning."""
        level = logging.DEBUG if self._damage_seen else logging.WARNING
        self._damage_seen = True
        log.log(level, "cached blocks in %s are damaged and will be fetched again", path)
        with suppress(OSError):  # it counts as missing whether it can be removed or not
            path.unlink()

    # -- all segments -----------------------------------------------------------------------------

    def _remove_oldest(self, by_age: Counter[int], excess: int) -> int:
        """Remove segments of *excess* bytes and return their exact sum.  Ages are compared by the
        second, so that what has to be remembered does not grow with the number of segments."""
        boundary, rest = 0, excess  # all before *boundary* go, and *rest* bytes of it
        for boundary in sorted(by_age):
            if rest <= by_age[boundary]:
                break
            rest -= by_age[boundary]
        freed = 0
        for path, status in self._segments():
            age = int(status.st_mtime)
            if age < boundary or (age == boundary and rest > 0):
                _remove(path)
                cost = _disk_cost(status)
                freed += cost
                rest -= cost if age == boundary else 0
        return freed

    def _of(self, versions: Collection[str] | None) -> Iterator[tuple[str, int]]:
        """Path and cost of each segment of *versions*."""
        for path, status in self._segments():
            shard, name = path.split("/")[-2:]
            if versions is None or shard + name.partition("-")[0] in versions:
                yield path, _disk_cost(status)

    def _segments(self) -> Iterator[tuple[str, os.stat_result]]:
        """Every segment's path and status."""
        for shard in _entries(self.root):
            for entry in _entries(shard.path):
                with suppress(FileNotFoundError):  # another process evicts, too
                    if _SEGMENT_NAME.fullmatch(entry.name):
                        yield entry.path, entry.stat(follow_symlinks=False)

    def _discard_earlier_layouts(self) -> None:
        """A later one is left alone: it is of a natsfs that may be running."""
        ours = _layout_number(_LAYOUT)
        for entry in _entries(self.root.parent):
            if 0 < _layout_number(entry.name) < ours:
                shutil.rmtree(entry.path, ignore_errors=True)

    def _is_safe(self) -> bool:
        """Whether the directory exists, and nobody else can read or replace the blocks: the
        checksums guard against accidents, not against other users of this host."""
        if not self._safe:
            try:
                status = self.root.lstat()
            except FileNotFoundError:
                return False
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "not a directory of this user", str(self.root))
            if others_may_replace(self.root):
                parent = str(self.root.parent)
                raise PermissionError(errno.EPERM, "others may change what is in it", parent)
            if status.st_mode & 0o077:
                self.root.chmod(0o700)
            self._safe = True
        return True


def named(bucket_identity: str, nuid: str) -> str:
    """What a version is called in `SegmentFiles.usage`."""
    return version_hash(bucket_identity, nuid).hex()[:40]


def _write(
    path: Path, segment: Segment, part: range, pieces: Sequence[memoryview], *, direct: bool
) -> int | None:
    """Write blocks and return how many more bytes are used by that; None if another's file is in
    the way."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    try:
        before = _disk_cost(os.fstat(file))
        if not write_header(file, segment):
            return None
        write_blocks(file, segment, part, pieces, direct=direct)
        return _disk_cost(os.fstat(file)) - before
    finally:
        os.close(file)


def _entries(directory: str | Path) -> Iterator[os.DirEntry[str]]:
    """What is in *directory*; nothing if it is missing or no directory."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        yield from entries


def _layout_number(name: str) -> int:
    """The number of the layout *name*, 0 if it is none."""
    found = _LAYOUT_NAME.fullmatch(name)
    return int(found[1]) if found else 0


def _remove(path: str | Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _disk_cost(status: os.stat_result) -> int:
    return status.st_blocks * 512


def _missing_space(place: int | Path, min_free: float) -> int:
    """How many bytes the disk lacks of the share that shall stay free; negative if it has more."""
    disk = os.statvfs(place)
    return int(min_free * disk.f_blocks * disk.f_frsize) - disk.f_bavail * disk.f_frsize
