"""Snapshots of trees on local disk, one file for each bucket.

The directory is private (0700), and may be shared by any number of mounts: a file appears whole
and in one step, and the last one wins.  A file says which layout it has and ends in a checksum; one
that is damaged, or of another layout, is as good as none.  The disk may fail in any way: no error
leaves this module, and nothing is lost by one but the time of loading.

Concurrency: everything here may block for as long as the disk does, and is called in threads.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from natsfs.data.ownership import others_may_replace

log = logging.getLogger(__name__)

#: Changes whenever the bytes mean something else, here or in `tree.snapshot` and `tree.packed`.
LAYOUT = "trees-1"

_MAGIC = b"natsfs tree 1\n"
_CHECKSUM = 4

#: Seconds after which a file that nobody has used or written goes: mounts may be for the season.
UNUSED = 90 * 24 * 3600.0

#: Seconds after which a half-written file is one of a process that was killed.
ABANDONED = 3600.0

#: The share of the disk that stays free, as for blocks.
MIN_FREE = 0.05


class SnapshotFile:
    """The snapshot of the bucket with this *identity*, below *directory*."""

    def __init__(self, directory: Path, identity: str) -> None:
        self._directory = directory / LAYOUT
        self._name = _name(identity)

    def read(self) -> memoryview | None:
        """What was written last; None if nothing was, or it cannot be read."""
        path = self._directory / self._name
        try:
            if not _is_ours(self._directory):
                return None
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.info("the snapshot of the tree cannot be read: %s", error)
            return None
        body = memoryview(data)[:-_CHECKSUM]
        sound = data.startswith(_MAGIC) and len(data) >= len(_MAGIC) + _CHECKSUM
        if not sound or zlib.crc32(body) != int.from_bytes(data[-_CHECKSUM:]):
            log.warning("the snapshot of the tree in %s is damaged and not used", path)
            self.discard()
            return None
        return body[len(_MAGIC) :]

    def discard(self) -> None:
        """Remove what is there, if anything is."""
        with suppress(OSError):
            (self._directory / self._name).unlink()

    def begin(self) -> Writing | None:
        """Begin to write another one; None where the disk does not allow it."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(self._directory):
                return None
            _tidy(self._directory)
            handle, name = tempfile.mkstemp(prefix=".new-", dir=self._directory)
        except OSError as error:
            log.info("no snapshot of the tree is kept: %s", error)
            return None
        return Writing(os.fdopen(handle, "wb"), Path(name), self._directory / self._name)


def usage(directory: Path, identity: str | None = None) -> tuple[int, int]:
    """How many snapshots there are below *directory*, and their bytes; of the bucket with this
    *identity* alone, if one is given."""
    sizes = []
    for path in _finished(directory, identity):
        with suppress(OSError):
            sizes.append(path.lstat().st_size)
    return len(sizes), sum(sizes)


def clear(directory: Path, identity: str | None = None) -> tuple[int, int]:
    """Remove what `usage` counts.  Those that are being written stay."""
    count = freed = 0
    for path in _finished(directory, identity):
        with suppress(OSError):
            size = path.lstat().st_size
            path.unlink()
            count, freed = count + 1, freed + size
    return count, freed


def _finished(directory: Path, identity: str | None) -> list[Path]:
    try:
        found = list((directory / LAYOUT).iterdir())
    except OSError:
        return []
    wanted = None if identity is None else _name(identity)
    return [path for path in found if path.name[0] != "." and wanted in (None, path.name)]


class Writing:
    """A file that is being written, and takes its place at the end."""

    def __init__(self, file: BinaryIO, temporary: Path, path: Path) -> None:
        self._file = file
        self._temporary = temporary
        self._path = path
        self._checksum = 0
        self._failed = False
        self.add(_MAGIC)

    def add(self, data: bytes) -> bool:
        """Write *data* behind the rest; whether that, and all before, has worked."""
        with self._noting():
            if not self._failed and _has_room(self._file):
                self._file.write(data)
                self._checksum = zlib.crc32(data, self._checksum)
                return True
            self._failed = True
        return False

    def finish(self) -> bool:
        """Put it into its place; whether it is there."""
        if self.add(self._checksum.to_bytes(_CHECKSUM)):
            with self._noting():
                self._file.close()
                self._temporary.rename(self._path)
                return True
        self.abandon()
        return False

    def abandon(self) -> None:
        """Forget it."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed = True
            log.info("no snapshot of the tree is kept: %s", error)


def _name(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:40]


def _is_ours(directory: Path) -> bool:
    """Whether nobody else can have put anything into *directory*."""
    status = directory.lstat()
    foreign = status.st_uid != os.geteuid() or status.st_mode & 0o022
    if foreign or others_may_replace(directory):
        log.info("%s may be changed by others: no snapshot of a tree is kept there", directory)
        return False
    return True


def _has_room(file: BinaryIO) -> bool:
    space = os.fstatvfs(file.fileno())
    return space.f_bavail >= space.f_blocks * MIN_FREE


def _tidy(directory: Path) -> None:
    """Remove what nobody uses any more."""
    now = time.time()
    for path in directory.iterdir():
        age = ABANDONED if path.name.startswith(".new-") else UNUSED
        with suppress(OSError):
            if path.lstat().st_mtime < now - age:
                path.unlink()
