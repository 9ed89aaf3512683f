"""Operations on what is open: descriptors and directory streams, by slot."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from itertools import islice
from typing import Any

from tests.model.looking import Looking, brief, shown, shown_time
from tests.model.streams import DirectoryStream
from tests.mount.syscalls import UTIME_OMIT, futimens, link

#: Nanoseconds since the epoch: the times of what was allocated.
ALLOCATED = 10**18 + 1


class Descriptors(Looking):
    """Descriptors, and the streams of directories that are being read."""

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[int, int] = {}
        self._readings: dict[int, _Reading] = {}

    def close_all(self) -> None:
        """Keep nothing open."""
        for slot in list(self._files):
            self.do_close(slot)
        for number in list(self._readings):
            self.do_closedir(number)

    def is_open(self, status: os.stat_result, slots: list[int] | None = None) -> bool:
        """Whether a descriptor, one of *slots* if given, is of the file with this status."""
        return any(
            os.path.samestat(os.fstat(descriptor), status)
            for slot, descriptor in self._files.items()
            if slots is None or slot in slots
        )

    def do_open(self, slot: int, path: str, flags: int, mode: int) -> Any:
        if is_device(path):
            return "a device"
        self.do_close(slot)
        self._files[slot] = os.open(path, flags | os.O_NONBLOCK, mode)
        self.note_read(os.fstat(self._files[slot]))
        return "open"

    def do_open_again(self, slot: int, other: int, flags: int) -> Any:
        """Open the file of another slot, which may have no name any more."""
        descriptor = self._files.get(other)
        if descriptor is None or slot == other:
            return "not open"
        return self.do_open(slot, f"/proc/self/fd/{descriptor}", flags, 0)

    def do_close(self, slot: int) -> Any:
        descriptor = self._files.pop(slot, None)
        if descriptor is not None:
            os.close(descriptor)
        return None

    def do_pread(self, slot: int, offset: int, size: int) -> Any:
        return self._with(slot, lambda fd: brief(os.pread(fd, size, offset)))

    def do_read(self, slot: int, size: int) -> Any:
        return self._with(slot, lambda fd: brief(os.read(fd, size)))

    def do_pwrite(self, slot: int, offset: int, text: str, times: int) -> Any:
        return self._with(slot, lambda fd: os.pwrite(fd, text.encode() * times, offset))

    def do_write(self, slot: int, text: str, times: int) -> Any:
        return self._with(slot, lambda fd: os.write(fd, text.encode() * times))

    def do_seek(self, slot: int, offset: int, whence: int) -> Any:
        """Not for directories: what their end is, is each file system's own affair."""

        def move(descriptor: int) -> Any:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                return "a directory"
            return os.lseek(descriptor, offset, whence)

        return self._with(slot, move)

    def do_seek_hole(self, slot: int, offset: int) -> Any:
        """Only whether there is one: a file system need not know of holes, only of the end."""

        def look(descriptor: int) -> Any:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                return "a directory"
            here = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.lseek(descriptor, offset, os.SEEK_HOLE)
            os.lseek(descriptor, here, os.SEEK_SET)
            return "there is one"

        return self._with(slot, look)

    def do_ftruncate(self, slot: int, size: int) -> Any:
        return self._with(slot, lambda fd: os.ftruncate(fd, size))

    def do_allocate(self, slot: int, offset: int, size: int) -> Any:
        """posix_fallocate(3), which the C library makes of writes where a file system cannot.

        That needs a descriptor that reads and does not append, and changes other times.
        """

        def allocate(descriptor: int) -> Any:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            if flags & os.O_ACCMODE != os.O_RDWR or flags & os.O_APPEND:
                return "not so"
            os.posix_fallocate(descriptor, offset, size)
            return futimens(descriptor, ALLOCATED, ALLOCATED)

        return self._with(slot, allocate)

    def do_fsync(self, slot: int) -> Any:
        return self._with(slot, os.fsync)

    def do_fstat(self, slot: int) -> Any:
        return self._with(slot, lambda fd: shown(os.fstat(fd), self.since_ns))

    def do_fchmod(self, slot: int, mode: int) -> Any:
        return self._with(slot, lambda fd: os.fchmod(fd, mode))

    def do_fchown(self, slot: int, uid: int, gid: int) -> Any:
        return self._with(slot, lambda fd: os.fchown(fd, uid, gid))

    def do_futimens(self, slot: int, atime: int | None, mtime: int | None) -> Any:
        def change(descriptor: int) -> Any:
            futimens(descriptor, atime, mtime)
            return self.times(os.fstat(descriptor), atime)

        return self._with(slot, change)

    def do_fsetxattr(self, slot: int, name: str, value: str, flags: int) -> Any:
        return self._with(slot, lambda fd: os.setxattr(fd, name, bytes.fromhex(value), flags))

    def do_fgetxattr(self, slot: int, name: str) -> Any:
        return self._with(slot, lambda fd: os.getxattr(fd, name).hex())

    def do_fremovexattr(self, slot: int, name: str) -> Any:
        return self._with(slot, lambda fd: os.removexattr(fd, name))

    def do_flink(self, slot: int, path: str) -> Any:
        """Give a name to an open file, which is refused to one that has lost its last."""
        source = "/proc/self/fd/{}"
        return self._with(slot, lambda fd: link(source.format(fd), path, follow_symlinks=True))

    def do_copy_range(self, source: int, target: int, size: int, start: int, to: int) -> Any:
        if source not in self._files or target not in self._files:
            return "not open"
        return os.copy_file_range(self._files[source], self._files[target], size, start, to)

    def do_sendfile(self, source: int, target: int, size: int, start: int) -> Any:
        if source not in self._files or target not in self._files:
            return "not open"
        return os.sendfile(self._files[target], self._files[source], start, size)

    def _with(self, slot: int, action: Callable[[int], Any]) -> Any:
        descriptor = self._files.get(slot)
        if descriptor is None:
            return "not open"
        try:
            return action(descriptor)
        except ValueError as error:  # mmap says so of a descriptor that is no file
            return str(error)

    def times(self, status: os.stat_result, atime: int | None) -> Any:
        """atime and mtime after they were set."""
        # An atime that was not set follows reads, which the kernel does not tell the mount of.
        if atime == UTIME_OMIT:
            return [None, shown_time(status.st_mtime_ns, self.since_ns)]
        if not self.is_open(status):
            self.note_atime(status)
        return [
            shown_time(time_ns, self.since_ns)
            for time_ns in (status.st_atime_ns, status.st_mtime_ns)
        ]

    # -- directory streams ------------------------------------------------------------------------

    def do_scan(self, path: str) -> Any:
        """Two streams of one directory at a time, one of which goes back to where it was."""
        one, other = DirectoryStream(path), DirectoryStream(path)
        try:
            first = list(islice(one, 1))
            place = one.tell()
            beside = sorted(other)
            rest = list(one)
            one.seek(place)
            return [sorted(first + rest), beside, list(one) == rest]
        finally:
            one.close()
            other.close()

    def do_opendir(self, number: int, path: str) -> Any:
        self.do_closedir(number)
        self._readings[number] = _Reading(path)
        return "open"

    def do_readdir(self, number: int, again: bool) -> Any:
        """Which entries a reading misses or repeats that were there all the time, with *again* one
        that starts anew.  What came or went since the opening may be read or not."""
        reading = self._readings.get(number)
        return "not open" if reading is None else reading.faults(again=again)

    def do_closedir(self, number: int) -> Any:
        reading = self._readings.pop(number, None)
        if reading is not None:
            reading.close()
        return None


class _Reading:
    """A directory stream that stays open between operations, and what it has to read."""

    def __init__(self, path: str) -> None:
        self._beside = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._stream = DirectoryStream(path)
        except OSError:
            os.close(self._beside)
            raise
        self._before = self._entries()
        self._seen: list[str] = []

    def faults(self, *, again: bool) -> dict[str, list[str]]:
        if again:
            self._stream.rewind()
            self._seen = []
            self._before = self._entries()
        self._seen += self._stream
        there = self._before & self._entries()
        once = set(self._seen)
        return {
            "missed": sorted(name for name, _ in there if name not in once),
            "repeated": sorted(name for name in once if self._seen.count(name) > 1),
        }

    def close(self) -> None:
        self._stream.close()
        os.close(self._beside)

    def _entries(self) -> set[tuple[str, int]]:
        with os.scandir(self._beside) as entries:
            return {(entry.name, entry.inode()) for entry in entries}


def is_device(path: str) -> bool:
    """Whether what opening *path* would open is not of the file system: a device or a FIFO, of
    whose writes the kernel does not tell it."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode)


def content(path: str) -> str | None:
    """What is in the file at *path*, briefly; None if there is none."""
    try:
        with open(path, "rb") as file:
            return brief(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        # nats-py frees the old chunks at once, even while somebody reads them (R1).
        if error.errno == errno.ESTALE:
            return "stale"
        raise
