"""What one operation of the model does, in the working directory, and what came of it.

Each operation is a method of `Actor`, called by name with the arguments that were recorded.  Names,
flags and numbers travel as JSON, so that a failure is a list that can be read and replayed.

Nothing here knows which side it runs on.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from typing import Any

from tests.model.descriptors import content, is_device
from tests.model.looking import shown
from tests.model.standin import StandIn
from tests.mount.syscalls import link, renameat2, utimensat

#: Stands for the absolute path of the directory in a symbolic link's text.
ROOT = "@"

#: The directory of a run is below its own, where links to `..` stay within the run.
TOP = "top"

#: How many descriptors may be open, and how many directory streams.
SLOTS = 4
STREAMS = 2

#: Permission bits that new entries do not get, until an operation says otherwise.
UMASK = 0o022

#: The file by whose mtime one mount tells others how far it is, and seconds to wait for that.
SIGNAL = "signal"
SIGNAL_TIMEOUT = 10.0

#: A path from the directory that a slot has open, wherever that is by now: openat(2) and its kin.
FROM_SLOT = re.compile(r"%(\d)/")


class Actor(StandIn):
    """One side: open descriptors and directory streams by slot, everything else by path."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base
        #: What `ROOT` stands for in the texts of links.
        self._root = base

    def act(self, name: str, arguments: list[Any]) -> Any:
        """The result of an operation, or ["error", errno name]."""
        try:
            return getattr(self, f"do_{name}")(*map(self._path, arguments))
        except OSError as error:
            return ["error", errno.errorcode[error.errno or 0]]

    def _path(self, argument: Any) -> Any:
        found = FROM_SLOT.match(argument) if isinstance(argument, str) else None
        if found is None:
            return argument
        descriptor = self._files.get(int(found[1]), -1)
        return f"/proc/self/fd/{descriptor}/{argument[found.end() :]}"

    def do_umask(self, mask: int) -> Any:
        os.umask(mask)

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
        return shown(os.stat(path, follow_symlinks=follow), self.since_ns)

    def do_truncate(self, path: str, size: int) -> Any:
        if is_device(path):
            return "a device"
        os.truncate(path, size)
        return None

    def do_chmod(self, path: str, mode: int) -> Any:
        os.chmod(path, mode)

    def do_chown(self, path: str, uid: int, gid: int, follow: bool) -> Any:
        os.chown(path, uid, gid, follow_symlinks=follow)

    def do_utimens(self, path: str, atime: int | None, mtime: int | None, follow: bool) -> Any:
        utimensat(path, atime, mtime, follow_symlinks=follow)
        return self.times(os.stat(path, follow_symlinks=follow), atime)

    def do_setxattr(self, path: str, name: str, value: str, flags: int) -> Any:
        os.setxattr(path, name, bytes.fromhex(value), flags, follow_symlinks=False)

    def do_getxattr(self, path: str, name: str) -> Any:
        return os.getxattr(path, name, follow_symlinks=False).hex()

    def do_removexattr(self, path: str, name: str) -> Any:
        os.removexattr(path, name, follow_symlinks=False)

    # -- everything -------------------------------------------------------------------------------

    def do_tree(self, contents: bool) -> Any:
        """Every entry; with *contents* also what is in files, links and attributes."""
        found = self.tree()
        if contents:
            for path, entry in found.items():
                entry["content"] = self._contents(path)
        return found

    def do_times(self) -> Any:
        """mtime and ctime of every entry to the nanosecond; of directories only the mtime, for
        storing that is a change of its own."""
        return {
            path: [status.st_mtime_ns, None if stat.S_ISDIR(status.st_mode) else status.st_ctime_ns]
            for path, status in self.walk().items()
        }

    def _contents(self, path: str) -> Any:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return [{}, self.do_readlink(path)]
        names = sorted(os.listxattr(path, follow_symlinks=False))
        attributes = {name: os.getxattr(path, name).hex() for name in names}
        if not stat.S_ISREG(status.st_mode):
            return [attributes, None]
        self.note_read(status)
        return [attributes, content(path)]

    def do_reset(self, name: str) -> Any:
        """Close everything and go on in a new directory *name*, which another side may have made
        already."""
        self.close_all()
        os.umask(UMASK)
        os.makedirs(os.path.join(self._base, name, TOP), exist_ok=True)
        self.do_go(name)

    def do_signal(self, number: int) -> Any:
        """Leave *number* where all mounts of the bucket see it, behind all that was done."""
        path = os.path.join(self._base, SIGNAL)
        if number == 1:
            os.mknod(path)
        os.utime(path, ns=(number, number))

    def do_await_signal(self, number: int) -> Any:
        """Wait until *number* can be seen here."""
        deadline = time.monotonic() + SIGNAL_TIMEOUT
        while (seen := self._signal()) != number:
            if time.monotonic() > deadline:
                return f"{seen} is the last signal"
            time.sleep(0.0005)
        return None

    def _signal(self) -> int:
        try:
            return os.stat(os.path.join(self._base, SIGNAL)).st_mtime_ns
        except FileNotFoundError:
            return 0

    def do_go(self, name: str, made_below: str = "") -> Any:
        """Go back to a directory that was left, or that was made where the bucket is mounted on
        *made_below*: its links lead there."""
        self._root = os.path.join(made_below or self._base, name, TOP)
        os.chdir(os.path.join(self._base, name, TOP))

    def do_leave(self) -> Any:
        """Close everything and be nowhere in the directory, which is about to be unmounted."""
        self.close_all()
        os.chdir("/")
