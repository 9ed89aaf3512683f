"""How an entry looks: what two POSIX file systems must agree on, in a form that can be compared.

Inode numbers, device numbers and the exact time "now" are not among it.  Times that somebody set
are compared to the nanosecond.  Of those that the clock set, it is compared whether they moved
since the last look, which is told when that was.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import Any

#: Nanoseconds: a time this near is the clock's.  Explicit times of the model are years away.
NOW = 3600 * 10**9

#: How many bytes are shown as they are.
SHOWN = 64

#: What a time is called that the clock set, before the last look and since.
BEFORE = "before"
JUST = "just now"


def shown(status: os.stat_result, since_ns: int) -> dict[str, Any]:
    """One entry, some of whose times may have moved since the clock showed *since_ns*."""
    link = stat.S_ISLNK(status.st_mode)
    directory = stat.S_ISDIR(status.st_mode)
    device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return {
        "mode": stat.filemode(status.st_mode) + f" {stat.S_IMODE(status.st_mode):o}",
        "nlink": status.st_nlink,
        "uid": status.st_uid,
        "gid": status.st_gid,
        # An absolute link's text has the path of its side in it.
        "size": None if directory or link else status.st_size,
        "mtime": shown_time(status.st_mtime_ns, since_ns),
        "ctime": shown_time(status.st_ctime_ns, since_ns),
        "rdev": status.st_rdev if device else 0,
    }


def shown_time(time_ns: int, since_ns: int) -> int | str:
    """A time that somebody set, or whether the clock set it before *since_ns* or after."""
    if abs(time.time_ns() - time_ns) > NOW:
        return time_ns
    return JUST if time_ns >= since_ns else BEFORE


def brief(data: bytes) -> str:
    """Bytes for a report: all of a few, the digest of many."""
    if len(data) <= SHOWN:
        return data.decode("latin-1")
    return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()[:16]}"


class Looking:
    """Looks at everything in the working directory."""

    #: When the last look had ended and the clock had gone on.
    since_ns = 0

    def __init__(self) -> None:
        #: Files that may have been read, by inode: the kernel does not tell a mount of all reading,
        #: so of their atime nothing is said.
        self._read: set[int] = set()

    def note_read(self, status: os.stat_result) -> None:
        """Somebody opened this file, or read it."""
        self._read.add(status.st_ino)

    def note_atime(self, status: os.stat_result) -> None:
        """Somebody set the atime of this file, which had better stay."""
        self._read.discard(status.st_ino)

    def walk(self) -> dict[str, os.stat_result]:
        """Every entry with its status, in the order of their paths."""
        found = {".": os.stat(".")}
        for top, directories, files in os.walk("."):
            for name in (*directories, *files):
                path = os.path.join(top, name)
                found[path] = os.lstat(path)
        return dict(sorted(found.items()))

    def tree(self) -> dict[str, dict[str, Any]]:
        """Every entry as it is `shown`, with the first of the names that its file has here."""
        names: dict[int, str] = {}
        found = {}
        for path, status in self.walk().items():
            first = names.setdefault(status.st_ino, path)
            file = stat.S_ISREG(status.st_mode)
            found[path] = {
                **shown(status, self.since_ns),
                "file": first,
                "atime": shown_time(status.st_atime_ns, 0) if file else None,
                "read": status.st_ino in self._read,
            }
        # Numbers of files that are gone will be those of others.
        self._read &= names.keys()
        return found
