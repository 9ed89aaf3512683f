"""The directory of the block cache: the only module that knows its layout and file format.

Each block is a file of its own under ``DIRECTORY/blocks-1/HH/``, named by a hash of its key, so
that no nuid, however hostile, leaves the directory.  The file begins with a header that repeats the
key and has a CRC of the data; what does not fit is removed and counts as not there.  Files are
written under another name and renamed: a kill leaves whole files, a power cut perhaps damaged ones.

The directory may be shared by any number of processes.  None of them keeps an index: the files are
the truth, and their mtime is the time of last use.

Everything here is synchronous file work for threads.  Threads share nothing but the directory,
where each step is one system call that another process might as well have made.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import stat
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

log = logging.getLogger(__name__)

_MAGIC = b"natsfsB1"
#: magic, hash of the version, block size, index, length of the data, CRC of the data.  It has no
#: CRC of its own: a reader knows what every byte of it must be.
_HEADER = struct.Struct("<8s32sQQII")

#: The layout's name.  Another format gets another one, and old files then are nobody's.
_LAYOUT = "blocks-1"
_BLOCK_NAME = re.compile(r"[0-9a-f]{38}-[0-9a-f]+-[0-9a-f]+")
_TEMPORARY = "tmp-"

#: Bytes in which a file system hands out space: a block of a small object costs one of these.
_DISK_UNIT = 4096

#: Seconds: a block's time of last use is brought up to date only if it is older, like relatime.
TOUCH_AFTER = 60.0

#: Seconds after which a temporary file belongs to a process that was killed.
ABANDONED_AFTER = 3600.0

#: Eviction goes down to this share of the limit, and the directory is looked through again after
#: one such step of writing: the scan (2.5 µs a file) is then spread over thousands of blocks.
KEEP = 15 / 16


@dataclass(frozen=True)
class BlockKey:
    """Block *index* of the version *nuid*, cut into blocks of *block_size* bytes."""

    bucket_identity: str
    nuid: str
    block_size: int
    index: int

    @cached_property
    def version_hash(self) -> bytes:
        """32 bytes that stand for the version."""
        return version_hash(self.bucket_identity, self.nuid)

    @property
    def file_name(self) -> str:
        """Where the block is, below the directory of blocks."""
        digits = self.version_hash.hex()
        return f"{digits[:2]}/{digits[2:40]}-{self.block_size:x}-{self.index:x}"


class BlockFiles:
    """The blocks below *directory*.

    Every method may be called from any thread, and raises `OSError` when the disk fails.
    """

    def __init__(self, directory: Path) -> None:
        self.root = directory / _LAYOUT
        self._safe = False
        self._damage_seen = False

    def read_run(self, keys: Sequence[BlockKey]) -> list[bytes | None]:
        """Each block, or None where there is none that is sound."""
        if not self._is_safe():
            return [None] * len(keys)
        return [self._read(key) for key in keys]

    def write(self, key: BlockKey, data: bytes, min_free: float) -> bool:
        """Store a block; False if the disk has too little free space for it."""
        path = self.root / key.file_name
        if not self._is_safe() or not path.parent.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary, file = self._create(path.parent)
        try:
            roomy = _missing_space(file, min_free) <= 0
            if roomy:
                _write_all(file, _header(key, data), data)
                os.rename(temporary, path)
        finally:
            os.close(file)
            with suppress(OSError):  # renamed; or not, and then the first error says it all
                temporary.unlink()
        return roomy

    def discard(self, bucket_identity: str, nuid: str) -> None:
        """Remove every block of a version."""
        digits = version_hash(bucket_identity, nuid).hex()
        with suppress(FileNotFoundError):
            for entry in _entries(self.root / digits[:2]):
                if entry.name.startswith(digits[2:40] + "-"):
                    _remove(entry.path)

    def evict(self, max_bytes: int, min_free: float) -> int:
        """Remove the blocks that were not used for longest, if a limit is reached; also what killed
        processes left.  Return how many bytes are used then.

        Raises `OSError` (ENOSPC) if without all blocks the disk would still be too full.
        """
        by_age: Counter[int] = Counter()
        for _, status in self._blocks():
            by_age[int(status.st_mtime)] += _disk_cost(status.st_size)
        used = by_age.total()
        excess = used - int(max_bytes * KEEP) if used > max_bytes else 0
        missing = _missing_space(self.root, min_free) if self.root.exists() else 0
        if missing > 0:
            excess = max(excess, missing + int(max_bytes * (1 - KEEP)))
        freed = self._remove_oldest(by_age, excess) if excess else 0
        if missing > freed:
            raise OSError(errno.ENOSPC, f"less than {min_free:.0%} of the disk is free")
        return used - freed

    def _remove_oldest(self, by_age: Counter[int], excess: int) -> int:
        """Remove blocks of *excess* bytes and return their exact sum.  Ages are compared by the
        second, so that what has to be remembered does not grow with the number of blocks."""
        boundary, rest = 0, excess  # all before *boundary* go, and *rest* bytes of it
        for boundary in sorted(by_age):
            if rest <= by_age[boundary]:
                break
            rest -= by_age[boundary]
        freed = 0
        for path, status in self._blocks():
            age = int(status.st_mtime)
            if age < boundary or (age == boundary and rest > 0):
                _remove(path)
                cost = _disk_cost(status.st_size)
                freed += cost
                rest -= cost if age == boundary else 0
        return freed

    def _blocks(self) -> Iterator[tuple[str, os.stat_result]]:
        """Every block's path and status.  Abandoned temporary files are removed on the way."""
        abandoned = time.time() - ABANDONED_AFTER
        for shard in _entries(self.root):
            for entry in _entries(shard.path):
                with suppress(FileNotFoundError):  # another process evicts, too
                    if _BLOCK_NAME.fullmatch(entry.name):
                        yield entry.path, entry.stat(follow_symlinks=False)
                    elif entry.name.startswith(_TEMPORARY) and entry.stat().st_mtime < abandoned:
                        _remove(entry.path)

    def _read(self, key: BlockKey) -> bytes | None:
        path = self.root / key.file_name
        try:
            # Without O_NONBLOCK a FIFO that somebody left there would be waited for.
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(file)
            data = _block_in(file, status, key) if stat.S_ISREG(status.st_mode) else None
        except OSError:
            _remove(path)  # one bad sector must not be met again and again
            raise
        finally:
            os.close(file)
        if data is None:
            self._drop_damaged(path)
        elif status.st_mtime < time.time() - TOUCH_AFTER:
            with suppress(OSError):  # on a read-only disk blocks are of use all the same
                os.utime(path)
        return data

    def _drop_damaged(self, path: Path) -> None:
        """Remove a block that is not what it should be.  After a power cut there may be thousands:
        the first one is worth a warning."""
        level = logging.DEBUG if self._damage_seen else logging.WARNING
        self._damage_seen = True
        log.log(level, "cached block %s is damaged and will be fetched again", path)
        with suppress(OSError):  # it counts as missing whether it can be removed or not
            path.unlink()

    def _create(self, shard: Path) -> tuple[Path, int]:
        temporary = shard / f"{_TEMPORARY}{os.getpid():x}-{secrets.token_hex(8)}"
        return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def _is_safe(self) -> bool:
        """Whether the directory exists, and nobody else can read or replace the blocks: the CRCs
        guard against accidents, not against other users of this host."""
        if not self._safe:
            try:
                status = self.root.lstat()
            except FileNotFoundError:
                return False
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "not a directory of this user", str(self.root))
            if status.st_mode & 0o077:
                self.root.chmod(0o700)
            self._safe = True
        return True


def version_hash(bucket_identity: str, nuid: str) -> bytes:
    """32 bytes for a version.  The length keeps the two parts from running into each other."""
    text = f"{len(bucket_identity)}:{bucket_identity}{nuid}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _header(key: BlockKey, data: bytes) -> bytes:
    crc = zlib.crc32(data)
    return _HEADER.pack(_MAGIC, key.version_hash, key.block_size, key.index, len(data), crc)


def _block_in(file: int, status: os.stat_result, key: BlockKey) -> bytes | None:
    """The data of a block's file, or None if it is not that of *key*, whole and sound."""
    length = status.st_size - _HEADER.size
    if not 0 <= length <= key.block_size:
        return None
    header = os.read(file, _HEADER.size)
    data = os.read(file, length)
    return data if header == _header(key, data) else None


def _write_all(file: int, header: bytes, data: bytes) -> None:
    for part in header, data:
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(file, rest) :]


def _entries(directory: str | Path) -> Iterator[os.DirEntry[str]]:
    """What is in *directory*; nothing if it is missing or no directory."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        yield from entries


def _remove(path: str | Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def block_cost(length: int) -> int:
    """The disk space that a block of *length* bytes takes."""
    return _disk_cost(_HEADER.size + length)


def _disk_cost(size: int) -> int:
    return -(-size // _DISK_UNIT) * _DISK_UNIT


def _missing_space(place: int | Path, min_free: float) -> int:
    """How many bytes the disk lacks of the share that shall stay free; negative if it has more."""
    disk = os.statvfs(place)
    return int(min_free * disk.f_blocks * disk.f_frsize) - disk.f_bavail * disk.f_frsize
