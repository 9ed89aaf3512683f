"""Calls on descriptors of every sort, and open of every kind of path: as on a local file system.

Tables as in `test_posix_calls_names`.  Left out is what is a limit of ext4 and not of POSIX (the
alignment of O_DIRECT, its largest offset), and what FUSE keeps to itself: an atime that moves when
a file is opened for reading, because nobody hears of reads from the kernel's pages.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from .differential import ROOT, STRANGER, Probe, Worlds, attempt, owned, sample
from .syscalls import sync_file_range

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users"),
]

SIZE = 10_000
LARGEST = 2**63 - 1

#: Of fcntl.h; Python has no name for it.
F_OFD_SETLK = 37

#: Ways to open a file.
WAYS = {
    "reading": os.O_RDONLY,
    "writing": os.O_WRONLY,
    "both": os.O_RDWR,
    "appending": os.O_RDWR | os.O_APPEND,
    "synchronously": os.O_RDWR | os.O_SYNC,
    "data synchronously": os.O_RDWR | os.O_DSYNC,
    "without atime": os.O_RDWR | os.O_NOATIME,
    "as a path": os.O_PATH,
    "without waiting": os.O_RDWR | os.O_NONBLOCK,
}

Step = Callable[[int], object]


def _file() -> None:
    owned("f", 0o644, content=struct.pack("<I", 0x01020304) * (SIZE // 4))


def _read(offset: int, count: int, file: int) -> bytes:
    return os.pread(file, count, offset)


def _write(offset: int, count: int, file: int) -> int:
    return os.pwrite(file, b"x" * count, offset)


def _cut(size: int, file: int) -> None:
    os.ftruncate(file, size)


def _seek(offset: int, whence: int, file: int) -> int:
    return os.lseek(file, offset, whence)


def _advise(offset: int, count: int, advice: int, file: int) -> None:
    os.posix_fadvise(file, offset, count, advice)


def _allocate(offset: int, count: int, file: int) -> None:
    os.posix_fallocate(file, offset, count)


def _map(protection: int, flags: int, file: int) -> bytes:
    with mmap.mmap(file, 100, flags, protection) as view:
        return view[:4]


def _duplicate(file: int) -> int:
    """Where a descriptor stands after a copy of it went somewhere."""
    copy = os.dup(file)
    try:
        os.lseek(copy, 7, os.SEEK_SET)
    finally:
        os.close(copy)
    return os.lseek(file, 0, os.SEEK_CUR)


def _flags(file: int) -> str:
    return f"{fcntl.fcntl(file, fcntl.F_GETFL):o}"


def _set_flags(flags: int, file: int) -> int:
    return fcntl.fcntl(file, fcntl.F_SETFL, flags)


def _size(file: int) -> int:
    return os.fstat(file).st_size


def _lock(command: int, kind: int, start: int, count: int, file: int) -> bytes:
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, count, 0)
    return bytes(fcntl.fcntl(file, command, lock))


def _flock(operation: int, file: int) -> None:
    fcntl.flock(file, operation)


STEPS: dict[str, Sequence[Step]] = {
    "pread": [
        partial(_read, offset, count)
        for offset in (0, 1, 4095, SIZE - 1, SIZE, SIZE + 1, 2**40, -1)
        for count in (0, 1, 3, 100)
    ],
    "pwrite": [
        *(
            partial(_write, offset, count)
            for offset in (0, 4095, SIZE, SIZE + 50, -1, LARGEST, LARGEST - 10)
            for count in (0, 1, 20)
        ),
        _size,
    ],
    "read and write": [
        lambda file: os.read(file, 5),
        lambda file: os.write(file, b"abc"),
        lambda file: os.lseek(file, 0, os.SEEK_CUR),
        lambda file: os.read(file, 4),
        lambda file: os.lseek(file, 5, os.SEEK_END),
        lambda file: os.write(file, b"end"),
        lambda file: os.lseek(file, 0, os.SEEK_CUR),
        _size,
        _duplicate,
    ],
    "vectors": [
        lambda file: os.readv(file, [bytearray(3), bytearray(0), bytearray(4)]),
        lambda file: os.writev(file, [b"ab", b"", b"cd"]),
        lambda file: os.preadv(file, [bytearray(5000), bytearray(6000)], 1),
        lambda file: os.preadv(file, [bytearray(3)], -1),
        lambda file: os.pwritev(file, [b"x", b"y"], 2 * SIZE),
        lambda file: os.writev(file, []),
        lambda file: os.writev(file, [b"x"] * 1024),
        lambda file: os.writev(file, [b"x"] * 1025),
        _size,
    ],
    "flags": [
        _flags,
        partial(_set_flags, os.O_APPEND),
        _flags,
        lambda file: os.pwrite(file, b"at the end", 0),
        _size,
        partial(_set_flags, 0),
        _flags,
        lambda file: os.pwrite(file, b"at the start", 0),
        _size,
    ],
    "sync": [
        os.fsync,
        os.fdatasync,
        *(
            partial(sync_file_range, offset=offset, count=count, flags=flags)
            for offset, count in ((0, 0), (0, 100), (-1, 5), (5, -1), (LARGEST, 1))
            for flags in (0, 1, 2, 4, 7, 8)
        ),
    ],
    "advice": [
        partial(_advise, offset, count, advice)
        for offset, count in ((0, 0), (0, 100), (5, -1))
        for advice in (*range(7), 99)
    ],
    "truncate": [
        step for size in (5000, 0, 10, -1, 10, LARGEST) for step in (partial(_cut, size), _size)
    ],
    "map": [
        partial(_map, protection, flags)
        for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE)
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE)
    ],
    "seek": [
        partial(_seek, offset, whence)
        for whence in (0, 1, 2, os.SEEK_DATA, os.SEEK_HOLE, 5, 99, -1)
        for offset in (0, 5, SIZE - 1, SIZE, SIZE + 1, -1, -SIZE, -SIZE - 1)
    ],
    "attributes": [
        lambda file: os.fchmod(file, 0o600),
        lambda file: os.fchown(file, 1, 1),
        lambda file: os.utime(file, (1, 1)),
        lambda file: os.setxattr(file, "user.x", b"1"),
        lambda file: os.getxattr(file, "user.x"),
        lambda file: os.fstat(file).st_mode,
        os.fchdir,
        lambda file: os.unlink("f"),
        lambda file: os.setxattr(file, "user.y", b"2"),
        os.listxattr,
        lambda file: os.removexattr(file, "user.x"),
        lambda file: os.fstat(file).st_nlink,
    ],
    "allocate": [
        *(
            partial(_allocate, offset, count)
            for offset, count in ((0, 100), (9000, 5000), (-1, 1), (0, 0), (5, -1), (LARGEST, 10))
        ),
        _size,
    ],
    "locks": [
        *(
            partial(_lock, command, kind, start, count)
            for command in (fcntl.F_SETLK, fcntl.F_GETLK, F_OFD_SETLK)
            for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK, 9)
            for start, count in ((0, 10), (5, -5), (5, -6), (-1, 5), (LARGEST, 1), (LARGEST, 2))
        ),
        *(partial(_flock, kind) for kind in (1, 2, 4 | 1, 8, 99, 0)),
    ],
}


def _all(steps: Sequence[Step], flags: int) -> list[str]:
    """What each step does, with one descriptor."""
    file = os.open("f", flags)
    try:
        return [attempt(partial(step, file)) for step in steps]
    finally:
        os.close(file)


def descriptors() -> dict[str, Probe]:
    """Every sequence of steps on a file that was opened in every way."""
    return {
        f"{name} of a file opened for {way}": Probe(
            partial(_all, steps, flags), _file, timeless=("f",) if _may_read(flags, name) else ()
        )
        for name, steps in STEPS.items()
        for way, flags in WAYS.items()
        # FUSE has fallocate and pyfuse3 has not; the C library's substitute reads what it keeps and
        # so refuses (EBADF) to work on descriptors that cannot, or that append.
        if name != "allocate" or (flags & os.O_ACCMODE == os.O_RDWR and not flags & os.O_APPEND)
    }


def _may_read(flags: int, name: str) -> bool:
    """Whether atime may differ; it does also where the C library's posix_fallocate reads, where the
    kernel reads ahead as advised, and where it has the pages already."""
    reading = ("allocate", "advice", "map", "read and write")
    return flags & os.O_ACCMODE == os.O_RDONLY or name in reading


#: Paths of a tree that `_entries` made, and others.
PATHS = (
    *("f", "empty", "d", "p", "l", "ld", "dangling", "nothing", "f/", "d/", "d/.", "l/", "ld/"),
    *("new/", "", "."),
)

OPENINGS = (
    *("O_RDONLY|O_NONBLOCK", "O_WRONLY|O_NONBLOCK", "O_RDWR|O_NONBLOCK", "O_PATH"),
    *("O_CREAT|O_WRONLY|O_NONBLOCK", "O_CREAT|O_EXCL|O_RDWR", "O_RDONLY|O_DIRECTORY"),
    *("O_RDWR|O_NOFOLLOW|O_NONBLOCK", "O_PATH|O_NOFOLLOW", "O_PATH|O_DIRECTORY"),
    *("O_CREAT|O_TRUNC|O_RDWR|O_NONBLOCK", "O_WRONLY|O_NOATIME|O_NONBLOCK"),
    *("O_CREAT|O_EXCL|O_NOFOLLOW|O_RDWR", "O_CREAT|O_DIRECTORY", "O_ACCMODE|O_NONBLOCK"),
)


def _entries() -> None:
    owned("f", 0o644)
    owned("empty", 0o644, content=b"")
    owned("d/", 0o755)
    os.mkfifo("p")
    os.symlink("f", "l")
    os.symlink("d", "ld")
    os.symlink("new", "dangling")


def _open(path: str, words: str) -> None:
    flags = 0
    for word in words.split("|"):
        flags |= getattr(os, word)
    os.close(os.open(path, flags, 0o640))


def openings() -> dict[str, Probe]:
    """open with every mixture of flags on every kind of path."""
    return {
        f"open of {path!r} with {words} by {user.uid}": Probe(
            partial(_open, path, words), _entries, user, timeless=("f", "empty", "d")
        )
        for path in PATHS
        for words in OPENINGS
        for user in (ROOT, STRANGER)
    }


#: Each table, and how many of its probes the default mode takes.
TABLES = {descriptors: 50, openings: 30}


@pytest.mark.timeout(300)
def test_calls(worlds: Worlds) -> None:
    """W3: calls on descriptors, and a sample of openings, do what they do on ext4."""
    worlds.compare(
        {k: v for table, most in TABLES.items() for k, v in sample(table(), most).items()}
    )


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_all_calls(worlds: Worlds, table: Callable[[], dict[str, Probe]]) -> None:
    """W3: every one of them does."""
    worlds.compare(table())
