"""System calls that Python's `os` lacks, or gives too little of, by their C names and numbers.

Each raises `OSError` as the functions of `os` do.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

#: `AT_FDCWD` of fcntl.h.
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

#: Nanoseconds that mean something else to utimensat(2).
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2

Path = str | bytes | os.PathLike[str]

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


def _call(function: Callable[..., int], *arguments: object) -> int:
    result = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _timespec(time: int | None) -> _Timespec:
    """None is now, `UTIME_OMIT` leaves the time as it is, anything else is nanoseconds."""
    if time is None or time == UTIME_OMIT:
        return _Timespec(0, UTIME_NOW if time is None else UTIME_OMIT)
    return _Timespec(*divmod(time, 10**9))


def renameat2(old: Path, new: Path, flags: int = 0) -> None:
    """Rename with `RENAME_NOREPLACE` or `RENAME_EXCHANGE`."""
    _call(_libc.renameat2, AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def link(old: Path, new: Path, *, follow_symlinks: bool) -> None:
    """What os.link should be: it never follows, whatever its argument says."""
    flags = AT_SYMLINK_FOLLOW if follow_symlinks else 0
    _call(_libc.linkat, AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def utimensat(
    path: Path, atime: int | None, mtime: int | None, *, follow_symlinks: bool = True
) -> None:
    """Set times in nanoseconds; None is now and `UTIME_OMIT` is no change."""
    times = (_Timespec * 2)(_timespec(atime), _timespec(mtime))
    flags = 0 if follow_symlinks else AT_SYMLINK_NOFOLLOW
    _call(_libc.utimensat, AT_FDCWD, os.fsencode(path), times, flags)


def futimens(descriptor: int, atime: int | None, mtime: int | None) -> None:
    """The same for an open file."""
    times = (_Timespec * 2)(_timespec(atime), _timespec(mtime))
    _call(_libc.futimens, descriptor, times)


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """The system call itself, without the emulation of posix_fallocate(3)."""
    _call(_libc.fallocate, descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length))


def sync_file_range(descriptor: int, offset: int, count: int, flags: int) -> None:
    """Start, or wait for, the writing of a range."""
    _call(_libc.sync_file_range, descriptor, ctypes.c_long(offset), ctypes.c_long(count), flags)


#: What the C library does to every thread of the process, and the call itself to one; on the other
#: architectures that natsfs runs on the numbers are those of asm-generic/unistd.h.
_GENERIC = {"setgroups": 159, "setresuid": 147, "setresgid": 149, "unshare": 97, "openat2": 437}
_X86_64 = {"setgroups": 116, "setresuid": 117, "setresgid": 119, "unshare": 272, "openat2": 437}


def system_call(name: str, *arguments: object) -> int:
    """The call itself, without what the C library adds to it."""
    numbers = _X86_64 if os.uname().machine == "x86_64" else _GENERIC
    return _call(_libc.syscall, numbers[name], *arguments)


def as_user(
    uid: int, call: Callable[[], Result], *, gid: int = 65534, groups: Sequence[int] = ()
) -> Result:
    """What *call* returns or raises, for another user; only root can do that.

    A thread of its own gets other file system credentials and loses root's rights over files,
    which is all that a file system looks at.  The other threads stay what they are.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_as_user, uid, gid, groups, call).result()


def _as_user(uid: int, gid: int, groups: Sequence[int], call: Callable[[], Result]) -> Result:
    numbers = (ctypes.c_uint32 * len(groups))(*groups)
    system_call("setgroups", len(groups), numbers)
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    # The answer to an impossible change is the number in force.
    assert (_libc.setfsuid(-1), _libc.setfsgid(-1)) == (uid, gid)
    return call()
