"""What the options of a mount change: who owns what has no owner, and what is refused to whom."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Mounter
from .differential import STRANGER, as_thread, attempt
from .foreign import ForeignClient
from .mounting import run, wait_until
from .syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2, utimensat

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users"),
]

OLD = 10**18


def looks(path: Path) -> str:
    """Mode and owners."""
    status = path.lstat()
    return f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"


def test_owners_of_what_has_none(mounter: Mounter, py: ForeignClient) -> None:
    """M2: owner and mode of objects without metadata are those of the options."""
    py.put("file", b"x")
    py.put("directory/file", b"x")
    top = mounter("-o", "uid=1234,gid=2345,umask=027").directory
    wait_until((top / "directory/file").exists, "the objects")
    assert looks(top) == "drwxr-x--- 1234:2345"
    assert looks(top / "file") == "-rw-r----- 1234:2345"
    assert looks(top / "directory") == "drwxr-x--- 1234:2345"
    other = mounter("-o", "uid=1,file_mode=640,dir_mode=0711,umask=0").directory
    wait_until((other / "directory/file").exists, "the objects")
    assert looks(other / "file") == "-rw-r----- 1:0"
    assert looks(other / "directory") == "drwx--x--x 1:0"
    # What has metadata keeps its own; what is created is its creator's.
    (other / "directory/file").chmod(0o600)
    (other / "new").touch(0o644)
    assert looks(other / "new") == "-rw-r--r-- 0:0"
    wait_until(lambda: looks(top / "directory/file") == "-rw------- 1234:2345", "the new mode")


# -- read-only ------------------------------------------------------------------------------------


def _fill(top: Path) -> None:
    (top / "file").write_bytes(b"content")
    os.setxattr(top / "file", "user.a", b"1")
    (top / "full").mkdir()
    (top / "full/x").touch()
    (top / "empty").mkdir()
    (top / "link").symlink_to("file")
    (top / "dangling").symlink_to("nothing")
    os.mkfifo(top / "fifo")


def _opened(path: str, flags: int) -> None:
    os.close(os.open(path, flags, 0o644))


READ_ONLY: dict[str, Callable[[], object]] = {
    "create": lambda: _opened("new", os.O_CREAT | os.O_WRONLY),
    "create for reading": lambda: _opened("new", os.O_CREAT | os.O_RDONLY),
    "create what exists": lambda: _opened("file", os.O_CREAT | os.O_RDONLY),
    "create for writing what exists": lambda: _opened("file", os.O_CREAT | os.O_WRONLY),
    "create exclusively what exists": lambda: _opened("file", os.O_CREAT | os.O_EXCL),
    "create through a link": lambda: _opened("dangling", os.O_CREAT | os.O_WRONLY),
    "open for writing": lambda: _opened("file", os.O_WRONLY),
    "open for both": lambda: _opened("file", os.O_RDWR),
    "open and cut": lambda: _opened("file", os.O_RDONLY | os.O_TRUNC),
    "open for appending": lambda: _opened("file", os.O_WRONLY | os.O_APPEND),
    "open nothing for writing": lambda: _opened("nothing", os.O_WRONLY),
    "open a directory for writing": lambda: _opened("full", os.O_WRONLY),
    "open a FIFO for both": lambda: _opened("fifo", os.O_RDWR),
    "mkdir": lambda: os.mkdir("new"),
    "mkdir of what exists": lambda: os.mkdir("full"),
    "mkfifo": lambda: os.mkfifo("new"),
    "mknod": lambda: os.mknod("new"),
    "symlink": lambda: os.symlink("x", "new"),
    "symlink over what exists": lambda: os.symlink("x", "file"),
    "link": lambda: os.link("file", "new"),
    "link over what exists": lambda: os.link("file", "fifo"),
    "rename": lambda: os.rename("file", "new"),
    "rename of nothing": lambda: os.rename("nothing", "new"),
    "rename over": lambda: os.rename("file", "link"),
    "rename to itself": lambda: os.rename("file", "file"),
    "rename without replacing": lambda: renameat2("file", "link", RENAME_NOREPLACE),
    "exchange": lambda: renameat2("file", "link", RENAME_EXCHANGE),
    "unlink": lambda: os.unlink("file"),
    "unlink of nothing": lambda: os.unlink("nothing"),
    "unlink of a directory": lambda: os.unlink("empty"),
    "rmdir": lambda: os.rmdir("empty"),
    "rmdir of a full one": lambda: os.rmdir("full"),
    "rmdir of a file": lambda: os.rmdir("file"),
    "chmod": lambda: os.chmod("file", 0o600),
    "chown": lambda: os.chown("file", 1, 1),
    "chown to nobody": lambda: os.chown("file", -1, -1),
    "lchown": lambda: os.lchown("link", 1, 1),
    "truncate": lambda: os.truncate("file", 0),
    "truncate of a directory": lambda: os.truncate("full", 0),
    "utimensat": lambda: utimensat("file", 1, 1),
    "utimensat to now": lambda: utimensat("file", None, None),
    "setxattr": lambda: os.setxattr("file", "user.b", b"1"),
    "removexattr": lambda: os.removexattr("file", "user.a"),
    "access for writing": lambda: os.access("file", os.W_OK),
    "access for writing of a FIFO": lambda: os.access("fifo", os.W_OK),
    "access for reading": lambda: os.access("file", os.R_OK),
    "read": lambda: Path("file").read_bytes(),
    "getxattr": lambda: os.getxattr("file", "user.a"),
    "readlink": lambda: os.readlink("link"),
    "listdir": lambda: sorted(os.listdir()),
    "flag": lambda: os.statvfs(".").f_flag & os.ST_RDONLY,
}


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A local directory that is mounted read-only."""
    place, view = tmp_path / "local", tmp_path / "view"
    place.mkdir()
    view.mkdir()
    _fill(place)
    run(["mount", "--bind", place, view]).check()
    try:
        run(["mount", "-o", "remount,bind,ro", view]).check()
        yield view
    finally:
        run(["umount", view]).check()


@pytest.mark.parametrize("option", ["--read-only", "-oro"])
def test_read_only(mounter: Mounter, read_only: Path, option: str) -> None:
    """E: a read-only mount refuses with EROFS what one of ext4 refuses, and shows the same."""
    writable = mounter().directory
    _fill(writable)
    top = mounter(option).directory
    wait_until((top / "fifo").exists, "the entries")

    def outcomes() -> list[str]:
        return [f"{name}: {attempt(call)}" for name, call in READ_ONLY.items()]

    expected, found = (in_place(place, outcomes) for place in (read_only, top))
    assert found == expected
    assert sorted(os.listdir(writable)) == sorted(os.listdir(read_only))


def in_place(place: Path, call: Callable[[], list[str]]) -> list[str]:
    """What *call* returns with *place* as the working directory."""
    before = Path.cwd()
    os.chdir(place)
    try:
        return call()
    finally:
        os.chdir(before)


# -- others, and the words of mount(8) ------------------------------------------------------------


@pytest.mark.parametrize("allowed", [False, True])
def test_others(mounter: Mounter, tmp_path: Path, allowed: bool) -> None:
    """E: without `--allow-other` nobody else gets in, whatever the modes say; with it they rule."""
    tmp_path.chmod(0o711)
    top = mounter(*(["--allow-other"] if allowed else [])).directory
    (top / "open").write_bytes(b"x")
    (top / "open").chmod(0o666)
    (top / "closed").write_bytes(b"x")
    (top / "closed").chmod(0o600)
    calls: dict[str, Callable[[], object]] = {
        "stat": lambda: os.stat(f"{top.name}/open").st_size,
        "read": lambda: Path(top.name, "open").read_bytes(),
        "write": lambda: Path(top.name, "open").write_bytes(b"y"),
        "read what is closed": lambda: Path(top.name, "closed").read_bytes(),
        "create": lambda: Path(top.name, "new").touch(),
        "list": lambda: sorted(os.listdir(top.name)),
    }
    found = {
        name: as_thread(tmp_path, STRANGER, 0, lambda call=call: attempt(call))  # type: ignore[misc]
        for name, call in calls.items()
    }
    if allowed:
        assert found == {
            "stat": "1",
            "read": "b'x'",
            "write": "1",
            "read what is closed": "EACCES",
            "create": "EACCES",
            "list": "['closed', 'open']",
        }
    else:
        assert set(found.values()) == {"EACCES"}
    # Root is let in by the kernel where it is who mounted.
    assert (top / "open").read_bytes() == (b"y" if allowed else b"x")


def _atimes(top: Path) -> tuple[int, int, int]:
    """The atimes of a file, a link and a directory, all old, after each was read."""
    (top / "d").mkdir()
    (top / "d/f").write_bytes(b"x")
    (top / "d/l").symlink_to("f")
    for name in ("d/f", "d/l", "d"):
        utimensat(top / name, OLD, OLD + 1, follow_symlinks=False)
    (top / "d/f").read_bytes()
    os.readlink(top / "d/l")
    os.listdir(top / "d")
    file, link, directory = ((top / name).lstat().st_atime_ns for name in ("d/f", "d/l", "d"))
    return file, link, directory


def test_noatime(mounter: Mounter) -> None:
    """M1: `noatime` leaves every atime alone, `nodiratime` those of directories."""
    assert _atimes(mounter("-o", "noatime").directory) == (OLD, OLD, OLD)
    top = mounter("-o", "nodiratime").directory
    shutil.rmtree(top / "d")
    file, link, directory = _atimes(top)
    assert directory == OLD
    assert min(file, link) > OLD


def test_o_noatime(directory: Path) -> None:
    """M1: reading with O_NOATIME leaves no trace."""
    path = directory / "f"
    path.write_bytes(b"x")
    utimensat(path, OLD, OLD + 1)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
    assert os.read(descriptor, 1) == b"x"
    os.close(descriptor)
    assert path.stat().st_atime_ns == OLD


def _programs(top: Path) -> str:
    """Who a set-user-ID program runs as, and whether a device and a program can be opened."""
    shutil.copy("/usr/bin/id", top / "id")
    os.chown(top / "id", STRANGER.uid, STRANGER.gid)
    (top / "id").chmod(0o4755)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    opened = attempt(lambda: os.close(os.open(top / "null", os.O_RDONLY)))
    try:
        shown = subprocess.run([top / "id", "-u"], capture_output=True, check=True).stdout
    except OSError as error:
        return f"{opened} {errno.errorcode[error.errno or 0]}"
    for name in ("id", "null"):
        (top / name).unlink()
    return f"{opened} {shown.decode().strip()}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("async,nosuid,nodev,exec", "EACCES 0"),
        ("sync,dirsync,suid,dev", f"None {STRANGER.uid}"),
        ("noexec", "EACCES EACCES"),
    ],
)
def test_words_of_mount(mounter: Mounter, words: str, expected: str) -> None:
    """K8: set-ID programs and devices work where the mount says `suid` and `dev`; they do not
    otherwise, which is what mount(8) does for all of FUSE."""
    assert _programs(mounter("-o", words).directory) == expected
