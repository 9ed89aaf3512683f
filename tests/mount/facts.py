"""What a program can see under a path, as one line of text, so that two places can be compared.

The only module that says what is compared when a test asks whether a mount is stale: the kind, the
mode, the number of links, the size, the bytes, a time that was set on purpose, the attributes, the
target of a link, the names in a directory, or the errno.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

#: By path, relative to the top.
Facts = dict[str, str]

#: Nanoseconds since the epoch.  An mtime from before this was set on purpose; a later one is the
#: moment of a change, which no two places agree on.
SET_ON_PURPOSE = 1_200_000_000 * 10**9

#: The attribute that the changes of these tests set.
ATTRIBUTE = "user.colour"


def look(top: Path, path: str, *, reference: bool = False) -> str:
    """The fact of *path* below *top*.  A *reference* is a local directory, whose file system may
    have a mind of its own about the number of links to a directory."""
    full = os.path.join(top, path)
    try:
        status = os.lstat(full)
        if stat.S_ISDIR(status.st_mode):
            return _directory(full, status, reference)
        if stat.S_ISLNK(status.st_mode):
            return f"link to {os.readlink(full)}, size {status.st_size}, links {status.st_nlink}"
        if not stat.S_ISREG(status.st_mode):
            return f"{stat.filemode(status.st_mode)} links {status.st_nlink}"
        return _file(full, status)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _file(full: str, status: os.stat_result) -> str:
    with open(full, "rb") as file:
        body = file.read()
    return " ".join(
        (
            f"{stat.filemode(status.st_mode)} links {status.st_nlink} size {status.st_size}",
            f"read {len(body)} {hashlib.md5(body).hexdigest()}",
            f"modified {_time(status)} {ATTRIBUTE} {_attribute(full)}",
        )
    )


def _directory(full: str, status: os.stat_result, reference: bool) -> str:
    with os.scandir(full) as entries:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    directories = sum(is_directory for _, is_directory in found)
    links = 2 + directories if reference else status.st_nlink
    names = " ".join(name + "/" * is_directory for name, is_directory in found)
    return f"{stat.filemode(status.st_mode)} links {links}: {names}"


def _time(status: os.stat_result) -> str:
    mtime = status.st_mtime_ns
    return str(mtime) if mtime < SET_ON_PURPOSE else "lately"


def _attribute(full: str) -> str:
    try:
        return os.getxattr(full, ATTRIBUTE).decode()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
