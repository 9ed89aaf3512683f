"""Calls that change attributes, by every kind of user on files, directories and links.

Tables as in `test_posix_calls_names`.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable
from functools import partial

import pytest

from .differential import (
    FOREIGN_GROUP,
    GROUP,
    OWNER,
    SECOND_GROUP,
    STRANGER,
    USERS,
    Probe,
    Worlds,
    attempt,
    owned,
    sample,
)
from .syscalls import UTIME_OMIT, futimens, utimensat

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users"),
]


def opened(path: str, flags: int, call: Callable[[int], object]) -> object:
    """What *call* does with a descriptor."""
    descriptor = os.open(path, flags)
    try:
        return call(descriptor)
    finally:
        os.close(descriptor)


def _cut(size: int, file: int) -> None:
    os.ftruncate(file, size)


def _link() -> None:
    """A link of OWNER to a file that has more bits than it should."""
    owned("f", 0o6755)
    os.symlink("f", "l")
    os.lchown("l", OWNER.uid, GROUP)


def chmods() -> dict[str, Probe]:
    """chmod of files and directories in and outside the caller's groups."""
    found = {
        f"chmod of {kind} of group {gid} to {mode:o} by {who}": Probe(
            partial(os.chmod, kind, mode), partial(owned, kind, 0o644, gid=gid), user
        )
        for who, user in USERS.items()
        for mode in (0, 0o777, 0o4755, 0o2755, 0o6755, 0o1755, 0o2745, 0o7777)
        for kind in ("f", "d/")
        for gid in (GROUP, FOREIGN_GROUP)
    }
    found["chmod through a link"] = Probe(partial(os.chmod, "l", 0o600), _link)
    found["fchmod"] = Probe(
        partial(opened, "f", os.O_WRONLY, lambda file: os.fchmod(file, 0o600)), _link
    )
    found["fchmod by O_PATH"] = Probe(
        partial(opened, "f", os.O_PATH, lambda file: os.fchmod(file, 0o600)), _link
    )
    return found


#: Owners and groups to give to: none, the same, own groups, foreign ones.
GIFTS = (
    *((-1, -1), (OWNER.uid, GROUP), (OWNER.uid, -1), (-1, GROUP), (-1, SECOND_GROUP)),
    *((-1, FOREIGN_GROUP), (STRANGER.uid, -1), (STRANGER.uid, FOREIGN_GROUP), (0, 0)),
)


def chowns() -> dict[str, Probe]:
    """chown of files and directories with every set-ID bit, of links, and through them."""
    found = {
        f"chown of {kind} {mode:o} to {uid}:{gid} by {who}": Probe(
            partial(os.chown, kind, uid, gid), partial(owned, kind, mode), user
        )
        for who, user in USERS.items()
        for uid, gid in GIFTS
        for mode in (0o644, 0o6755, 0o6644, 0o6777, 0o2644)
        for kind in ("f", "d/")
        # Linux wants a stranger's chown to nobody to take the last bit off and refuses that with
        # EPERM.  FUSE has no word for the wish, so that here the call does nothing and says so.
        if (kind, who, uid, gid, mode) != ("f", "stranger", -1, -1, 0o2644)
    }
    for who, user in USERS.items():
        for call, (uid, gid) in itertools.product((os.lchown, os.chown), GIFTS):
            name = f"{call.__name__} of a link to {uid}:{gid} by {who}"
            found[name] = Probe(partial(call, "l", uid, gid), _link, user)
    return found


#: Seconds: around 1970, at and past the ends of 32 bits of either sign, and ext4's last one.  In
#: its first and its last second ext4 has no fractions.
FAR_TIMES = (-(2**31), -1, 0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 15_032_385_535)


def utimes() -> dict[str, Probe]:
    """utimensat with all mixtures of times, now and omit; times far away."""
    values = (None, UTIME_OMIT, 10**18 + 5)
    found = {
        f"utimensat {atime}, {mtime} of {mode:o} by {who}": Probe(
            partial(utimensat, "f", atime, mtime), partial(owned, "f", mode), user
        )
        for who, user in USERS.items()
        for mode in (0o644, 0o666, 0o664, 0o444)
        for atime, mtime in itertools.product(values, values)
    }
    for who, user in USERS.items():
        for times in ((5, 6), (None, None)):
            act = partial(utimensat, "l", *times, follow_symlinks=False)
            found[f"utimensat {times} of a link by {who}"] = Probe(act, _link, user)
            act = partial(utimensat, "d", *times)
            found[f"utimensat {times} of a directory by {who}"] = Probe(
                act, partial(owned, "d/", 0o757), user
            )
    whole = (FAR_TIMES[0], FAR_TIMES[-1])
    for second, nanosecond in itertools.product(FAR_TIMES, (0, 1, 999_999_999)):
        if nanosecond and second in whole:
            continue
        time_ns = second * 10**9 + nanosecond
        setting = partial(futimens, atime=time_ns, mtime=time_ns)
        found[f"futimens {time_ns}"] = Probe(
            partial(opened, "f", os.O_WRONLY, setting), partial(owned, "f", 0o644)
        )
    return found


def contents() -> dict[str, Probe]:
    """What truncates and writes: sizes, times, and the set-ID bits that go."""
    acts: dict[str, Callable[[], object]] = {
        "O_TRUNC": partial(opened, "f", os.O_WRONLY | os.O_TRUNC, os.fsync),
        "O_CREAT, O_TRUNC": partial(opened, "f", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, os.fsync),
        "write": partial(opened, "f", os.O_WRONLY, lambda file: os.write(file, b"x")),
        "write of nothing": partial(opened, "f", os.O_WRONLY, lambda file: os.write(file, b"")),
        "append": partial(
            opened, "f", os.O_WRONLY | os.O_APPEND, lambda file: os.write(file, b"x")
        ),
    }
    for size in (0, 3, 7, 5000, -1):
        acts[f"truncate to {size}"] = partial(os.truncate, "f", size)
        acts[f"ftruncate to {size}"] = partial(opened, "f", os.O_RDWR, partial(_cut, size))
    return {
        f"{name} of {mode:o} by {who}": Probe(act, partial(owned, "f", mode), user)
        for who, user in USERS.items()
        for mode in (0o644, 0o666, 0o6777, 0o2767, 0o6666, 0o444)
        for name, act in acts.items()
    }


def _accesses(kind: str) -> list[bool]:
    return [os.access(kind, wanted) for wanted in range(8)]


def accesses() -> dict[str, Probe]:
    """access with every wish, of every single bit."""
    return {
        f"access of {kind} {mode:o} by {who}": Probe(
            partial(_accesses, kind), partial(owned, kind, mode), user
        )
        for who, user in USERS.items()
        for mode in (0, *(1 << bit for bit in range(9)), 0o070, 0o707, 0o777)
        for kind in ("f", "d/")
    }


#: Names of extended attributes, stored and not, allowed and not, too short and too long.
ATTRIBUTES = (
    *("user.a", "user.b", "trusted.a", "security.a", "system.a", "other.a", "user", "user."),
    *("trusted.", "", "user." + "x" * 250, "user." + "x" * 251),
)

XATTR_CALLS: dict[str, Callable[[str, str], object]] = {
    "setxattr": lambda path, name: os.setxattr(path, name, b"2"),
    "lsetxattr": lambda path, name: os.setxattr(path, name, b"2", follow_symlinks=False),
    "XATTR_CREATE": lambda path, name: os.setxattr(path, name, b"2", os.XATTR_CREATE),
    "XATTR_REPLACE": lambda path, name: os.setxattr(path, name, b"2", os.XATTR_REPLACE),
    "getxattr": os.getxattr,
    "lgetxattr": lambda path, name: os.getxattr(path, name, follow_symlinks=False),
    "removexattr": os.removexattr,
}


def _on_all_attributes(call: Callable[[str, str], object], path: str) -> list[str]:
    return [f"{name[:20]!r} {attempt(partial(call, path, name))}" for name in ATTRIBUTES]


def _attributed() -> None:
    for name in ("f", "w", "d/", "s/"):
        owned(name, {"f": 0o644, "w": 0o666, "d/": 0o755, "s/": 0o1777}[name])
        os.setxattr(name, "user.a", b"1")
    os.symlink("f", "l")
    os.symlink("nothing", "dangling")
    os.mkfifo("p", 0o666)
    os.mknod("c", stat.S_IFCHR | 0o666, os.makedev(1, 3))


def xattrs() -> dict[str, Probe]:
    """Extended attributes of every namespace on every kind of entry."""
    return {
        f"{name} on {kind} by {who}": Probe(
            partial(_on_all_attributes, call, kind), _attributed, USERS[who]
        )
        for who in ("root", "owner", "stranger")
        for kind in ("f", "w", "d", "s", "l", "p", "c", "dangling", "nothing")
        for name, call in XATTR_CALLS.items()
    }


#: Each table, and how many of its probes the default mode takes.
TABLES = {chmods: 30, chowns: 50, utimes: 40, contents: 50, accesses: 20, xattrs: 12}


@pytest.mark.timeout(300)
def test_calls(worlds: Worlds) -> None:
    """M1: a sample of all calls that change attributes does what it does on a local file system."""
    worlds.compare(
        {k: v for table, most in TABLES.items() for k, v in sample(table(), most).items()}
    )


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_all_calls(worlds: Worlds, table: Callable[[], dict[str, Probe]]) -> None:
    """M1: every call that changes attributes does what it does on a local file system."""
    worlds.compare(table())
