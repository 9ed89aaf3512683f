"""Every combination of open(2) flags on every kind of entry, and what came of it.

`scripts/record-open-flags` records with this module on a local file system, the test compares with
it on the mount.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

#: What was recorded, and from which kernel and file system.
TABLE = Path(__file__).with_name("open_flags.json")

ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR")
FLAGS = ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_DIRECTORY", "O_NOFOLLOW")
KINDS = ("nothing", "file", "directory", "link to file", "link to directory", "dangling link")

OLD = b"old content"
NEW = b"NEW"

#: Linux before 6.4 made a regular file and then said ENOTDIR; since then it says EINVAL.
CHANGED_IN_LINUX = frozenset({"O_CREAT", "O_DIRECTORY"})


def combinations() -> Iterator[str]:
    """Every combination, as its names joined by bars."""
    for access in ACCESS:
        for count in range(len(FLAGS) + 1):
            for chosen in itertools.combinations(FLAGS, count):
                yield "|".join((access, *chosen))


def observe(directory: Path, kind: str, flags: str) -> str:
    """Make an entry of *kind* in the empty *directory*, open it, write, read, close; a line says
    how each ended and what is there after it."""
    path = directory / "entry"
    _make(path, kind)
    steps = [_opened(path, flags), _look(path)]
    if "link" in kind:
        steps.append(_look(directory / "target"))
    for found in directory.iterdir():
        found.rmdir() if stat.S_ISDIR(found.lstat().st_mode) else found.unlink()
    return "; ".join(steps)


def _make(path: Path, kind: str) -> None:
    target = path.with_name("target")
    if kind == "file":
        path.write_bytes(OLD)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link to file":
        target.write_bytes(OLD)
    elif kind == "link to directory":
        target.mkdir()
    if "link" in kind:
        path.symlink_to(target.name)


def _opened(path: Path, flags: str) -> str:
    number = 0
    for name in flags.split("|"):
        number |= getattr(os, name)
    try:
        descriptor = os.open(path, number, 0o640)
    except OSError as error:
        return _name(error)
    try:
        wrote = _attempt(lambda: os.write(descriptor, NEW))
        read = _attempt(lambda: os.pread(descriptor, 100, 0))
        return f"open, write {wrote}, read {read}"
    finally:
        os.close(descriptor)


def _attempt(call: Callable[[], object]) -> object:
    try:
        return call()
    except OSError as error:
        return _name(error)


def _name(error: OSError) -> str:
    return errno.errorcode[error.errno or 0]


def _look(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return "nothing"
    content = path.read_bytes() if stat.S_ISREG(mode) else b""
    return f"{stat.filemode(mode)} {content!r}"
