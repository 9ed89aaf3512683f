"""The same calls in two worlds, and everything that can be seen of them.

A `Probe` is one act of one user in a small tree of its own.  `observe` runs many of them below one
directory and describes each in a few lines: how the act ended, what the tree is like after it, and
which times moved.  A table that is described alike on a local file system and on a mount has no
difference that a program could see.

Users are played by threads.  On Linux credentials, umask, root and working directory belong to the
thread as soon as one asks the kernel and not the C library, so that no process has to be forked.
"""

from __future__ import annotations

import ctypes
import difflib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from .mounting import wait_until
from .syscalls import system_call, utimensat

#: Nanoseconds since the epoch, long before every test; atime is the older one, so that relatime
#: renews it at the first look.
OLD_ATIME = 10**18
OLD_MTIME = 10**18 + 1

#: Nanoseconds: more than one tick of the coarse clock that file systems read, which is 4 ms.
TICK = 20_000_000

_CLONE_FS = 0x200


@dataclass(frozen=True)
class User:
    """Whose credentials an act has."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


#: Users and groups that own nothing else, and need no name.
GROUP, SECOND_GROUP, FOREIGN_GROUP = 5321, 5322, 5323
ROOT = User(0, 0)
OWNER = User(4321, GROUP, (SECOND_GROUP,))
MEMBER = User(4322, GROUP)
SUPPLEMENTARY = User(4323, FOREIGN_GROUP, (GROUP,))
STRANGER = User(4324, FOREIGN_GROUP)
USERS = {
    "root": ROOT,
    "owner": OWNER,
    "member": MEMBER,
    "supplementary": SUPPLEMENTARY,
    "stranger": STRANGER,
}


def nothing() -> None:
    """Prepares an empty directory."""


@dataclass(frozen=True)
class Probe:
    """An *act* of *user* in a directory that is everybody's, which root *prepared*.

    *timeless* are names of entries whose times are known to differ, for a reason given there.
    """

    act: Callable[[], object]
    prepare: Callable[[], object] = nothing
    user: User = ROOT
    umask: int = 0o022
    timeless: tuple[str, ...] = ()


def sample(probes: Mapping[str, Probe], most: int) -> dict[str, Probe]:
    """At most *most* of *probes*, evenly spread; the same ones in every run."""
    stride = -(-len(probes) // most)
    # A stride that shares a factor with the length of a row would see one column only.
    stride += stride > 1 and stride % 2 == 0
    return {name: probes[name] for name in list(probes)[::stride]}


def owned(
    name: str, mode: int, user: User = OWNER, content: bytes = b"content", *, gid: int = -1
) -> None:
    """A file of *user*, and of his group or *gid*; a directory if its name ends in a slash."""
    if name.endswith("/"):
        os.mkdir(name)
    else:
        Path(name).write_bytes(content)
    os.chown(name, user.uid, user.gid if gid < 0 else gid)
    os.chmod(name, mode)


def attempt(call: Callable[[], object]) -> str:
    """What *call* returns, or the name of the errno that it fails with."""
    try:
        return repr(call())
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def observe(top: Path, probes: Mapping[str, Probe]) -> dict[str, list[str]]:
    """Run *probes*, each in a directory of its own below *top*, and describe what came of each."""
    places = {name: top / f"{number}" for number, name in enumerate(probes)}
    for name, place in places.items():
        place.mkdir()
        as_thread(place, ROOT, 0, probes[name].prepare)
        place.chmod(0o777)
    before = {name: _aged(place) for name, place in places.items()}
    newest = max(found.st_ctime_ns for found in before[name].values() for name in before)
    wait_until(lambda: time.time_ns() > newest + TICK, "the next tick of the clock")
    described = {}
    for name, probe in probes.items():
        act = probe.act
        outcome = as_thread(places[name], probe.user, probe.umask, partial(attempt, act))
        described[name] = [outcome, *_description(places[name], before[name], probe.timeless)]
    return described


def as_thread(place: Path, user: User, umask: int, call: Callable[[], object]) -> str:
    """Run *call* in a thread that is *user*, in *place*; returns its result as text."""
    found: list[object] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            system_call("unshare", _CLONE_FS)
            os.umask(umask)
            os.chdir(place)
            _become(user)
            found.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return str(found[0])


def _become(user: User) -> None:
    if user == ROOT:
        return
    numbers = (ctypes.c_uint32 * len(user.groups))(*user.groups)
    system_call("setgroups", len(user.groups), numbers)
    system_call("setresgid", user.gid, user.gid, user.gid)
    system_call("setresuid", user.uid, user.uid, user.uid)


def _walk(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """*top* and all below it, each looked at before it is listed, which changes atime."""
    status = top.lstat()
    yield top, status
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(top)):
            yield from _walk(top / name)


def _aged(top: Path) -> dict[int, os.stat_result]:
    """Give everything in *top* old times; what it is like then, by inode number."""
    paths = [path for path, _ in _walk(top)]
    for path in paths:
        utimensat(path, OLD_ATIME, OLD_MTIME, follow_symlinks=False)
    return {status.st_ino: status for status in map(Path.lstat, paths)}


def _description(
    top: Path, before: Mapping[int, os.stat_result], timeless: tuple[str, ...]
) -> list[str]:
    lines = []
    for path, status in list(_walk(top)):
        times = "" if path.name in timeless else _times(status, before.get(status.st_ino))
        lines.append(f"{path.relative_to(top)}: {_look(path, status)} {times}")
    return lines


def _look(path: Path, status: os.stat_result) -> str:
    parts = [
        stat.filemode(status.st_mode),
        f"{status.st_uid}:{status.st_gid}",
        f"links={status.st_nlink}",
    ]
    if stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
        shown = content if len(content) < 100 else f"{len(content)} bytes"
        parts += [f"size={status.st_size}", f"{shown!r}"]
    elif stat.S_ISLNK(status.st_mode):
        parts += [f"size={status.st_size}", f"-> {os.readlink(path)[:100]}"]
    elif status.st_rdev:
        parts.append(f"rdev={status.st_rdev:x}")
    return " ".join(parts)


def _times(status: os.stat_result, before: os.stat_result | None) -> str:
    """Which times moved, for what was there; whether they are of now, for what is new."""
    now = time.time_ns()
    text = []
    for letter in "amc":
        time_ns = getattr(status, f"st_{letter}time_ns")
        if before is not None and time_ns == getattr(before, f"st_{letter}time_ns"):
            continue
        recent = now - 10 * 10**9 < time_ns < now + TICK
        text.append(letter if recent else f"{letter}={time_ns}")
    return ("new:" if before is None else "moved:") + ",".join(text)


@dataclass(frozen=True)
class Worlds:
    """A local directory, the control, and one of a mount."""

    local: Path
    mounted: Path

    def compare(self, probes: Mapping[str, Probe]) -> None:
        """Fails the test, naming every probe that is not described alike in both."""
        expected, found = observe(self.local, probes), observe(self.mounted, probes)
        differing = {
            name: "\n".join(
                line
                for line in difflib.ndiff(expected[name], found[name])
                if line.startswith(("-", "+"))
            )
            for name in probes
            if expected[name] != found[name]
        }
        if differing:
            text = "\n\n".join(f"{name}\n{difference}" for name, difference in differing.items())
            pytest.fail(f"{len(differing)} of {len(probes)} differ\n\n{text}", pytrace=False)
