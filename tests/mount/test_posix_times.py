"""Which call changes which times, on the object and on the directories around it.

Every test runs on a local file system first, as the control.
"""

from __future__ import annotations

import mmap
import os
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from .foreign import ForeignClient
from .mounting import Mount, wait_until
from .syscalls import UTIME_OMIT, utimensat

pytestmark = pytest.mark.mount

#: Nanoseconds since the epoch, long before every test: atime and mtime of all that is looked at.
#: The atime is the older one, so that relatime renews it at the first look.
OLD_ATIME = 10**18
OLD_MTIME = 10**18 + 1

#: Nanoseconds: more than one tick of the coarse clock that file systems read, which is 4 ms.
TICK = 20_000_000


@dataclass(frozen=True)
class Case:
    """What a call changes: letters of atime, mtime, ctime for `d/f`, `d` and `e`."""

    act: Callable[[Path], object]
    file: str = ""
    parent: str = ""
    other: str = ""


def _write(path: Path, data: bytes, flags: int = os.O_WRONLY) -> None:
    descriptor = os.open(path, flags)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _map_write(path: Path) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:3] = b"NEW"
        view.flush()


def _bind(path: Path) -> None:
    # The path of a socket has 108 bytes; the directory is entered by its descriptor.
    directory = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def _copy_range(source: Path, target: Path) -> None:
    with open(source, "rb") as reading, open(target, "r+b") as writing:
        os.copy_file_range(reading.fileno(), writing.fileno(), 4)


def _ftruncate(path: Path, size: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size)


CASES = {
    "chmod": Case(lambda top: (top / "d/f").chmod(0o600), "c"),
    "chmod to the same": Case(lambda top: (top / "d/f").chmod(0o644), "c"),
    "chmod of the directory": Case(lambda top: (top / "d").chmod(0o700), "", "c"),
    "chown": Case(lambda top: os.chown(top / "d/f", os.getuid(), os.getgid()), "c"),
    "chown to nobody": Case(lambda top: os.chown(top / "d/f", -1, -1), "c"),
    "link": Case(lambda top: os.link(top / "d/f", top / "e/g"), "c", "", "mc"),
    "link beside": Case(lambda top: os.link(top / "d/f", top / "d/g"), "c", "mc"),
    "unlink of another name": Case(lambda top: (top / "d/h").unlink(), "c", "mc"),
    "unlink": Case(lambda top: (top / "d/l").unlink(), "", "mc"),
    "rename beside": Case(lambda top: (top / "d/l").rename(top / "d/m"), "", "mc"),
    "rename": Case(lambda top: (top / "d/l").rename(top / "e/l"), "", "mc", "mc"),
    "rename of another name": Case(lambda top: (top / "d/h").rename(top / "e/h"), "c", "mc", "mc"),
    "rename over": Case(lambda top: (top / "d/l").rename(top / "e/x"), "", "mc", "mc"),
    "rename over another name": Case(lambda top: (top / "d/l").rename(top / "d/h"), "c", "mc"),
    "rename of a directory": Case(lambda top: (top / "d/s").rename(top / "e/s"), "", "mc", "mc"),
    "rename to itself": Case(lambda top: (top / "d/f").rename(top / "d/h")),
    "mkdir": Case(lambda top: (top / "d/new").mkdir(), "", "mc"),
    "rmdir": Case(lambda top: (top / "d/s").rmdir(), "", "mc"),
    "create": Case(lambda top: (top / "d/new").touch(), "", "mc"),
    "open of an existing file": Case(lambda top: _write(top / "d/f", b"", os.O_CREAT | os.O_RDWR)),
    "O_TRUNC": Case(lambda top: _write(top / "d/f", b"", os.O_TRUNC | os.O_WRONLY), "mc"),
    "truncate": Case(lambda top: os.truncate(top / "d/f", 3), "mc"),
    "truncate up": Case(lambda top: os.truncate(top / "d/f", 30_000), "mc"),
    "truncate to the same size": Case(lambda top: os.truncate(top / "d/f", 7), "mc"),
    "ftruncate": Case(lambda top: _ftruncate(top / "d/f", 3), "mc"),
    "ftruncate to the same size": Case(lambda top: _ftruncate(top / "d/f", 7), "mc"),
    "write": Case(lambda top: _write(top / "d/f", b"NEW"), "mc"),
    "write of nothing": Case(lambda top: _write(top / "d/f", b"")),
    "write to a mapping": Case(lambda top: _map_write(top / "d/f"), "amc"),
    "copy_file_range to": Case(lambda top: _copy_range(top / "e/x", top / "d/f"), "mc"),
    "copy_file_range from": Case(lambda top: _copy_range(top / "d/f", top / "e/x"), "a"),
    "read": Case(lambda top: (top / "d/f").read_bytes(), "a"),
    "readdir": Case(lambda top: os.listdir(top / "d"), "", "a"),
    "symlink": Case(lambda top: (top / "d/new").symlink_to("f"), "", "mc"),
    "mkfifo": Case(lambda top: os.mkfifo(top / "d/new"), "", "mc"),
    "mknod": Case(lambda top: os.mknod(top / "d/new", stat.S_IFREG | 0o600), "", "mc"),
    "bind": Case(lambda top: _bind(top / "d/new"), "", "mc"),
    "setxattr": Case(lambda top: os.setxattr(top / "d/f", "user.b", b"1"), "c"),
    "removexattr": Case(lambda top: os.removexattr(top / "d/f", "user.a"), "c"),
    "setxattr of the directory": Case(lambda top: os.setxattr(top / "d", "user.b", b""), "", "c"),
    "getxattr": Case(lambda top: os.getxattr(top / "d/f", "user.a")),
    "stat": Case(lambda top: (top / "d/f").stat()),
    "utimensat": Case(lambda top: utimensat(top / "d/f", 5, 6), "amc"),
    "utimensat now": Case(lambda top: utimensat(top / "d/f", None, None), "amc"),
    "utimensat of atime": Case(lambda top: utimensat(top / "d/f", 5, UTIME_OMIT), "ac"),
    "utimensat of mtime": Case(lambda top: utimensat(top / "d/f", UTIME_OMIT, None), "mc"),
    "utimensat of nothing": Case(lambda top: utimensat(top / "d/f", UTIME_OMIT, UTIME_OMIT)),
}


@pytest.mark.parametrize("name", CASES)
def test_times(directory: Path, name: str) -> None:
    """M1: the call changes the times that it changes on ext4, and no others."""
    case = CASES[name]
    _lay_out(directory)
    before = _times(directory)
    case.act(directory)
    after = _times(directory)
    found = {path: _changed(before[path], after[path]) for path in before if path in after}
    expected = {"d/f": case.file, "d": case.parent, "e": case.other}
    assert found == expected


def _lay_out(top: Path) -> None:
    for name in ("d", "e", "d/s"):
        (top / name).mkdir()
    (top / "d/f").write_bytes(b"content")
    (top / "d/f").chmod(0o644)
    os.setxattr(top / "d/f", "user.a", b"1")
    os.link(top / "d/f", top / "d/h")
    (top / "d/l").symlink_to("f")
    (top / "e/x").write_bytes(b"other")
    for name in ("d/f", "e/x", "d", "e"):
        utimensat(top / name, OLD_ATIME, OLD_MTIME)
    newest = max(status.st_ctime_ns for status in _times(top).values())
    wait_until(lambda: time.time_ns() > newest + TICK, "the next tick of the clock")


def _times(top: Path) -> dict[str, os.stat_result]:
    return {name: (top / name).lstat() for name in ("d/f", "d", "e") if (top / name).exists()}


def _changed(before: os.stat_result, after: os.stat_result) -> str:
    """The letters of the times that are later, or other, than before."""
    assert after.st_ctime_ns >= before.st_ctime_ns
    return "".join(
        letter
        for letter in "amc"
        if getattr(before, f"st_{letter}time_ns") != getattr(after, f"st_{letter}time_ns")
    )


def test_times_of_what_is_moved_or_removed(directory: Path) -> None:
    """M3: ctime changes by rename and by unlink of an open file, whose mtime stays."""
    file = directory / "f"
    file.write_bytes(b"x")
    with open(file, "rb") as opened:
        first = os.fstat(opened.fileno())
        wait_until(lambda: time.time_ns() > first.st_ctime_ns + TICK, "the next tick")
        file.rename(directory / "g")
        second = os.fstat(opened.fileno())
        wait_until(lambda: time.time_ns() > second.st_ctime_ns + TICK, "the next tick")
        (directory / "g").unlink()
        third = os.fstat(opened.fileno())
    assert first.st_ctime_ns < second.st_ctime_ns < third.st_ctime_ns
    assert {first.st_mtime_ns, second.st_mtime_ns, third.st_mtime_ns} == {first.st_mtime_ns}
    assert third.st_nlink == 0


def test_times_of_what_is_new(directory: Path) -> None:
    """M1: all times of a new entry of every kind are the time of its creation."""
    before = time.time_ns() - TICK
    makers: dict[str, Callable[[Path], object]] = {
        "file": Path.touch,
        "directory": Path.mkdir,
        "link": lambda path: path.symlink_to("x"),
        "fifo": os.mkfifo,
        "socket": _bind,
    }
    for name, make in makers.items():
        make(directory / name)
    after = time.time_ns() + TICK
    for name in makers:
        status = (directory / name).lstat()
        times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
        assert all(before <= one <= after for one in times), name


def test_readlink_changes_atime(directory: Path) -> None:
    """M1: readlink renews the atime of a link, as relatime has it."""
    link = directory / "l"
    link.symlink_to("x")
    utimensat(link, OLD_ATIME, OLD_MTIME, follow_symlinks=False)
    assert os.readlink(link) == "x"
    status = link.lstat()
    assert status.st_atime_ns > OLD_MTIME
    assert status.st_mtime_ns == OLD_MTIME


def test_times_of_a_foreign_object_stay(mountpoint: Path, py: ForeignClient) -> None:
    """M2: what has its times from the server keeps them when its attributes or names change."""
    py.put("f", b"theirs")
    path = mountpoint / "f"
    wait_until(path.exists, "the object")
    before = path.stat()
    wait_until(lambda: time.time_ns() > before.st_ctime_ns + TICK, "the next tick of the clock")
    path.chmod(0o600)
    os.setxattr(path, "user.a", b"1")
    os.link(path, mountpoint / "g")
    path.rename(mountpoint / "h")
    (mountpoint / "g").unlink()
    after = (mountpoint / "h").stat()
    assert after.st_mtime_ns == before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns


#: Nanoseconds: what 32 bits of seconds cannot hold on either side, and what they just can.
FAR_TIMES = (-(2**31) * 10**9, -1, 0, 1, (2**31 - 1) * 10**9 + 999_999_999, 2**31 * 10**9, 10**19)


def _far_times(directory: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in sorted(directory.iterdir()):
        status = path.lstat()
        found[path.name] = (status.st_atime_ns, status.st_mtime_ns)
    return found


def _set_far_times(directory: Path) -> dict[str, tuple[int, int]]:
    expected = {}
    for number, mtime in enumerate(FAR_TIMES):
        for kind in ("file", "link", "directory"):
            path = directory / f"{kind} {number}"
            if kind == "file":
                path.touch()
            elif kind == "link":
                path.symlink_to("x")
            else:
                path.mkdir()
            atime = FAR_TIMES[-1 - number]
            utimensat(path, atime, mtime, follow_symlinks=False)
            expected[path.name] = (atime, mtime)
    return expected


def test_far_times(directory: Path) -> None:
    """M1: times before 1970 and after 2038 are kept to the nanosecond on every kind of entry."""
    assert _set_far_times(directory) == _far_times(directory)


def test_far_times_after_a_remount(mount: Mount) -> None:
    """M1: and they are still there after a remount."""
    expected = _set_far_times(mount.directory)
    mount.remount()
    assert _far_times(mount.directory) == expected
