"""What one operation of the model does, in the working directory, and what came of it.

Each operation is a method of `Actor`, called by name with the arguments that were recorded.  Names,
flags and numbers travel as JSON, so that a failure is a list that can be read and replayed.
Results are what two POSIX file systems must agree on: inode numbers, device numbers and the time
"now" are not among them.

Nothing here knows which side it runs on.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
import time
from collections.abc import Callable
from typing import Any

from tests.mount.syscalls import UTIME_OMIT, futimens, link, renameat2, utimensat

#: Stands for the absolute path of the directory in a symbolic link's text.
ROOT = "@"

#: The directory of a run is below its own, where links to `..` stay within the run.
TOP = "top"

#: Nanoseconds: a time this near is "now".  Explicit times of the model are years away.
NOW = 3600 * 10**9

#: Seconds to wait until a foreign change can be seen.
FOREIGN_TIMEOUT = 5.0

#: How many descriptors may be open.
SLOTS = 4

#: How many bytes are shown as they are.
SHOWN = 64


class Actor:
    """One side: open descriptors and directory streams by slot, everything else by path."""

    def __init__(self, base: str) -> None:
        self._files: dict[int, int] = {}
        self._base = self._root = base

    def act(self, name: str, arguments: list[Any]) -> Any:
        """The result of an operation, or ["error", errno name]."""
        try:
            return getattr(self, f"do_{name}")(*arguments)
        except OSError as error:
            return ["error", errno.errorcode[error.errno or 0]]

    # -- descriptors ------------------------------------------------------------------------------

    def do_open(self, slot: int, path: str, flags: int, mode: int) -> Any:
        # Opening a FIFO would wait for the other end, and a device has no file behind it.
        if _is_device(path):
            return "a device"
        self.do_close(slot)
        self._files[slot] = os.open(path, flags | os.O_NONBLOCK, mode)
        return "open"

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

    def do_ftruncate(self, slot: int, size: int) -> Any:
        return self._with(slot, lambda fd: os.ftruncate(fd, size))

    def do_fsync(self, slot: int) -> Any:
        return self._with(slot, os.fsync)

    def do_fstat(self, slot: int) -> Any:
        return self._with(slot, lambda fd: shown(os.fstat(fd)))

    def do_fchmod(self, slot: int, mode: int) -> Any:
        return self._with(slot, lambda fd: os.fchmod(fd, mode))

    def do_fchown(self, slot: int, uid: int, gid: int) -> Any:
        return self._with(slot, lambda fd: os.fchown(fd, uid, gid))

    def do_futimens(self, slot: int, atime: int | None, mtime: int | None) -> Any:
        def change(descriptor: int) -> Any:
            futimens(descriptor, atime, mtime)
            return _times(os.fstat(descriptor), atime)

        return self._with(slot, change)

    def do_map_write(self, slot: int, offset: int, text: str) -> Any:
        """Write through a shared mapping, which is synced and unmapped."""

        def change(descriptor: int) -> Any:
            size = os.fstat(descriptor).st_size
            if not size:
                return "empty"
            data = text.encode()[: size - offset % size]
            with mmap.mmap(descriptor, size, mmap.MAP_SHARED) as view:
                view[offset % size : offset % size + len(data)] = data
                view.flush()
            return len(data)

        return self._with(slot, change)

    def do_map_read(self, slot: int, private: bool) -> Any:
        def look(descriptor: int) -> Any:
            size = os.fstat(descriptor).st_size
            if not size:
                return "empty"
            kind = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
            with mmap.mmap(descriptor, size, kind, mmap.PROT_READ) as view:
                return brief(bytes(view))

        return self._with(slot, look)

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

    # -- names ------------------------------------------------------------------------------------

    def do_unlink(self, path: str) -> Any:
        os.unlink(path)

    def do_rmdir(self, path: str) -> Any:
        os.rmdir(path)

    def do_mkdir(self, path: str, mode: int) -> Any:
        os.mkdir(path, mode)

    def do_rename(self, old: str, new: str, flags: int) -> Any:
        renameat2(old, new, flags)

    def do_link(self, old: str, new: str, follow: bool) -> Any:
        link(old, new, follow_symlinks=follow)

    def do_symlink(self, text: str, path: str) -> Any:
        os.symlink(text.replace(ROOT, self._root), path)

    def do_readlink(self, path: str) -> Any:
        return os.readlink(path).replace(self._root, ROOT)

    def do_mknod(self, path: str, mode: int, minor: int) -> Any:
        os.mknod(path, mode, os.makedev(1, minor))

    def do_list(self, path: str) -> Any:
        return sorted(os.listdir(path))

    def do_access(self, path: str, mode: int) -> Any:
        return os.access(path, mode)

    # -- attributes -------------------------------------------------------------------------------

    def do_stat(self, path: str, follow: bool) -> Any:
        return shown(os.stat(path, follow_symlinks=follow))

    def do_truncate(self, path: str, size: int) -> Any:
        if _is_device(path):
            return "a device"
        os.truncate(path, size)
        return None

    def do_chmod(self, path: str, mode: int) -> Any:
        os.chmod(path, mode)

    def do_chown(self, path: str, uid: int, gid: int, follow: bool) -> Any:
        os.chown(path, uid, gid, follow_symlinks=follow)

    def do_utimens(self, path: str, atime: int | None, mtime: int | None, follow: bool) -> Any:
        utimensat(path, atime, mtime, follow_symlinks=follow)
        return _times(os.stat(path, follow_symlinks=follow), atime)

    def do_setxattr(self, path: str, name: str, value: str, flags: int) -> Any:
        os.setxattr(path, name, bytes.fromhex(value), flags, follow_symlinks=False)

    def do_getxattr(self, path: str, name: str) -> Any:
        return os.getxattr(path, name, follow_symlinks=False).hex()

    def do_removexattr(self, path: str, name: str) -> Any:
        os.removexattr(path, name, follow_symlinks=False)

    # -- what another client does -----------------------------------------------------------------

    def do_foreign_sight(self, path: str) -> str:
        """What a foreign client would change at *path*: "file", "nothing", or with "nothing in
        nothing" the directories above as well; "no" where it must not.

        That is where *path* has a second name or is not a file, or is open: then a reader keeps the
        old version (R1) as long as its chunks live, and of two writers the last wins (A4).  A local
        directory knows nothing of either.
        """
        parts = path.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if any(os.path.lexists(one) and not stat.S_ISDIR(os.lstat(one).st_mode) for one in above):
            return "no"
        if not all(map(os.path.lexists, above)):
            return "nothing in nothing"
        if not os.path.lexists(path):
            return "nothing"
        status = os.lstat(path)
        alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        return "file" if alone and not self._is_open(status) else "no"

    def _is_open(self, status: os.stat_result) -> bool:
        return any(os.path.samestat(os.fstat(opened), status) for opened in self._files.values())

    def do_replace(self, path: str, body: str) -> Any:
        """What a foreign put looks like: a file with owner and mode of the mount's choice."""
        parent = os.path.dirname(path) or "."
        self._imply(parent)
        before = os.stat(parent)
        existed = os.path.exists(path)
        with open(path + ".new", "x") as file:
            file.write(body)
        # In a set-group-ID directory, too, owners are those of the mount.
        os.chown(path + ".new", os.geteuid(), os.getegid())
        os.rename(path + ".new", path)
        if existed:
            os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _imply(self, directory: str) -> None:
        if not os.path.exists(directory):
            self._imply(os.path.dirname(directory) or ".")
            os.mkdir(directory)
            os.chown(directory, os.geteuid(), os.getegid())
            os.chmod(directory, 0o755)

    def do_drop(self, path: str) -> Any:
        """What a foreign delete looks like."""
        os.unlink(path)

    def do_await(self, path: str, body: str | None) -> Any:
        """Wait until *path* has *body*, or is gone."""
        deadline = time.monotonic() + FOREIGN_TIMEOUT
        while (seen := _content(path)) != (None if body is None else brief(body.encode())):
            if time.monotonic() > deadline:
                return f"{path} has {seen}"
            time.sleep(0.001)
        return None

    # -- everything -------------------------------------------------------------------------------

    def do_tree(self, contents: bool) -> Any:
        """Every entry; with *contents* also what is in files, links and attributes."""
        found: dict[str, Any] = {".": shown(os.stat("."))}
        for top, directories, files in os.walk("."):
            for name in (*directories, *files):
                path = os.path.join(top, name)
                found[path] = shown(os.lstat(path))
                if contents:
                    found[path]["content"] = self._contents(path)
        return found

    def _contents(self, path: str) -> Any:
        mode = os.lstat(path).st_mode
        attributes: Any = {}
        if not stat.S_ISLNK(mode):
            names = os.listxattr(path, follow_symlinks=False)
            attributes = {name: os.getxattr(path, name).hex() for name in sorted(names)}
        if stat.S_ISREG(mode):
            return [attributes, _content(path)]
        return [attributes, self.do_readlink(path) if stat.S_ISLNK(mode) else None]

    def do_reset(self, name: str) -> Any:
        """Close everything and go on in a new directory *name*."""
        for slot in list(self._files):
            self.do_close(slot)
        os.mkdir(os.path.join(self._base, name))
        self._root = os.path.join(self._base, name, TOP)
        os.mkdir(self._root)
        os.chdir(self._root)

    def do_go(self, name: str) -> Any:
        """Go back to a directory that was left."""
        self._root = os.path.join(self._base, name, TOP)
        os.chdir(self._root)

    def do_leave(self) -> Any:
        """Close everything and be nowhere in the directory, which is about to be unmounted."""
        for slot in list(self._files):
            self.do_close(slot)
        os.chdir("/")


def shown(status: os.stat_result) -> dict[str, Any]:
    """What two file systems must agree on.  Times that nobody set are only "now"."""
    link = stat.S_ISLNK(status.st_mode)
    directory = stat.S_ISDIR(status.st_mode)
    return {
        "mode": stat.filemode(status.st_mode) + f" {stat.S_IMODE(status.st_mode):o}",
        "nlink": status.st_nlink,
        "uid": status.st_uid,
        "gid": status.st_gid,
        # An absolute link's text has the path of its side in it.
        "size": None if directory or link else status.st_size,
        "mtime": _time(status.st_mtime_ns),
        "ctime": _time(status.st_ctime_ns),
        "rdev": status.st_rdev if stat.S_ISCHR(status.st_mode) else 0,
    }


def brief(data: bytes) -> str:
    """Bytes for a report: all of a few, the digest of many."""
    if len(data) <= SHOWN:
        return data.decode("latin-1")
    return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()[:16]}"


def _time(time_ns: int) -> int | str:
    return "now" if abs(time.time_ns() - time_ns) < NOW else time_ns


def _times(status: os.stat_result, atime: int | None) -> Any:
    # An atime that was not set follows reads, which the kernel does not tell the mount of.
    shown_atime = None if atime == UTIME_OMIT else _time(status.st_atime_ns)
    return [shown_atime, _time(status.st_mtime_ns)]


def _is_device(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _content(path: str) -> str | None:
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
