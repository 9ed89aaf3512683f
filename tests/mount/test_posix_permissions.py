"""Who may do what: modes, owners, sticky and set-ID bits, groups.

Every test runs on a local file system first, as the control.  Other users are played by threads
with other file system credentials, which only root can have.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .mounting import Mount
from .syscalls import as_user, utimensat

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users"),
]

#: Users and groups that own nothing else, and need no name.
OWNER, OTHER = 4321, 4322
GROUP, FOREIGN_GROUP = 5321, 5322


@pytest.fixture
def here(directory: Path) -> Iterator[Path]:
    """A directory for everybody, and the working one: those above it may be closed to others."""
    place = directory / "place"
    place.mkdir()
    place.chmod(0o777)
    before = Path.cwd()
    os.chdir(place)
    yield Path()
    os.chdir(before)


def owned(path: Path, mode: int, *, directory: bool = False) -> Path:
    """A file, or a directory, of `OWNER` and `GROUP`."""
    if directory:
        path.mkdir()
    else:
        path.write_bytes(b"content")
    os.chown(path, OWNER, GROUP)
    path.chmod(mode)
    return path


def bits(path: Path) -> str:
    """The permissions of *path*, set-ID and sticky bits among them, in octal."""
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def outcome(
    uid: int, call: Callable[[], object], gid: int = 65534, groups: tuple[int, ...] = ()
) -> str:
    """The name of the errno that *call* fails with for a user, or "done"."""
    try:
        as_user(uid, call, gid=gid, groups=groups)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def opening(path: Path, flags: int) -> Callable[[], None]:
    """Open and close."""
    return lambda: os.close(os.open(path, flags))


def test_permission_bits(here: Path) -> None:
    """M1: owner, group, supplementary group and others may do what their own bits say."""
    users: list[tuple[int, int, int, tuple[int, ...]]] = [
        (6, OWNER, 65534, ()),
        (3, OTHER, GROUP, ()),
        (3, OTHER, FOREIGN_GROUP, (FOREIGN_GROUP, GROUP)),
        (0, OTHER, FOREIGN_GROUP, ()),
    ]
    for mode in range(8):
        for shift, uid, gid, groups in users:
            path = owned(here / "f", mode << shift)
            for flags, needed in ((os.O_RDONLY, 4), (os.O_WRONLY, 2), (os.O_RDWR, 6)):
                allowed = mode & needed == needed
                found = outcome(uid, opening(path, flags), gid, groups)
                assert found == ("done" if allowed else "EACCES"), (mode, shift, flags)
            path.unlink()


def test_directory_bits(here: Path) -> None:
    """M1: to look up needs x of a directory, to list r, to create and to remove w and x."""
    for mode in range(8):
        path = owned(here / "d", 0o700, directory=True)
        for name in ("f", "g"):
            owned(path / name, 0o666)
        path.chmod(mode << 6)
        expected = {
            "look up": bool(mode & 1),
            "list": bool(mode & 4),
            "create": mode & 3 == 3,
            "rename": mode & 3 == 3,
            "remove": mode & 3 == 3,
        }
        calls: dict[str, Callable[[], object]] = {
            "look up": lambda path=path: (path / "f").stat(),  # type: ignore[misc]
            "list": lambda path=path: os.listdir(path),  # type: ignore[misc]
            "create": lambda path=path: (path / "new").mkdir(),  # type: ignore[misc]
            "rename": lambda path=path: (path / "g").rename(path / "h"),  # type: ignore[misc]
            "remove": lambda path=path: (path / "f").unlink(),  # type: ignore[misc]
        }
        for name, allowed in expected.items():
            found = outcome(OWNER, calls[name])
            assert found == ("done" if allowed else "EACCES"), (mode, name)
        for below in path.iterdir():
            below.rmdir() if below.is_dir() else below.unlink()
        path.rmdir()


def test_only_the_owner_changes_attributes(here: Path) -> None:
    """M1: chmod, utimensat with times, and ACL-like changes are the owner's; EPERM for others."""
    path = owned(here / "f", 0o666)
    assert outcome(OTHER, lambda: path.chmod(0o777), GROUP) == "EPERM"
    assert outcome(OTHER, lambda: utimensat(path, 1, 1), GROUP) == "EPERM"
    assert outcome(OTHER, lambda: utimensat(path, None, None), GROUP) == "done"
    assert outcome(OWNER, lambda: path.chmod(0o604)) == "done"
    assert outcome(OTHER, lambda: utimensat(path, None, None), GROUP) == "EACCES"
    assert outcome(OWNER, lambda: utimensat(path, 1, 1)) == "done"
    assert bits(path) == "0604"


def test_chown(here: Path) -> None:
    """M1: a user gives files to nobody, and to groups only of which he is a member."""
    path = owned(here / "f", 0o644)

    def chown(uid: int, gid: int) -> Callable[[], None]:
        return lambda: os.chown(path, uid, gid)

    assert outcome(OWNER, chown(OTHER, -1)) == "EPERM"
    assert outcome(OWNER, chown(-1, FOREIGN_GROUP)) == "EPERM"
    assert outcome(OWNER, chown(OWNER, -1)) == "done"
    assert outcome(OWNER, chown(-1, FOREIGN_GROUP), groups=(FOREIGN_GROUP,)) == "done"
    assert outcome(OTHER, chown(-1, GROUP), GROUP) == "EPERM"
    assert (path.stat().st_uid, path.stat().st_gid) == (OWNER, FOREIGN_GROUP)


def test_chmod_by_a_stranger_to_the_group_drops_set_gid(here: Path) -> None:
    """M1: an owner outside the file's group cannot set its set-group-ID bit."""
    path = owned(here / "f", 0o755)
    assert outcome(OWNER, lambda: path.chmod(0o2755)) == "done"
    assert bits(path) == "0755"
    assert outcome(OWNER, lambda: path.chmod(0o2755), GROUP) == "done"
    assert bits(path) == "2755"


def _write(path: Path) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.write(b"x")


def _ftruncate(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(3)


LOSING: dict[str, Callable[[Path], object]] = {
    "write": _write,
    "truncate": lambda path: os.truncate(path, 3),
    "ftruncate": _ftruncate,
    "O_TRUNC": lambda path: path.write_bytes(b""),
    "chown": lambda path: os.chown(path, -1, -1),
    "chown of the group": lambda path: os.chown(path, -1, GROUP),
}


@pytest.mark.parametrize("name", LOSING)
@pytest.mark.parametrize("mode", [0o4777, 0o2777, 0o6777, 0o6767, 0o2767])
def test_set_id_bits_go(here: Path, name: str, mode: int) -> None:
    """M1: set-ID bits go where a user without privileges changes content or owner, as on ext4."""
    path = owned(here / "f", mode)
    assert outcome(OWNER, lambda: LOSING[name](path), GROUP) == "done"
    kept = mode & ~stat.S_ISUID
    # Without group execution the bit is a mark of mandatory locking and no privilege.
    if mode & stat.S_IXGRP:
        kept &= ~stat.S_ISGID
    assert bits(path) == f"{kept:04o}"


@pytest.mark.parametrize("name", [name for name in LOSING if not name.startswith("chown")])
@pytest.mark.parametrize("mode", [0o2646, 0o6646, 0o2767])
def test_set_gid_goes_for_strangers(here: Path, name: str, mode: int) -> None:
    """M1: who is not in the file's group leaves no set-group-ID bit behind, executable or not."""
    path = owned(here / "f", mode)
    assert outcome(OTHER, lambda: LOSING[name](path), FOREIGN_GROUP) == "done"
    assert bits(path) == f"{mode & 0o777:04o}"


def test_set_id_bits_stay_for_root(here: Path) -> None:
    """M1: what root writes keeps its set-ID bits; what root chowns does not."""
    path = owned(here / "f", 0o6777)
    _write(path)
    os.truncate(path, 2)
    assert bits(path) == "6777"
    os.chown(path, OTHER, -1)
    assert bits(path) == "0777"


def test_set_id_bits_of_directories_stay(here: Path) -> None:
    """M1: chown takes nothing from a directory."""
    path = owned(here / "d", 0o6777, directory=True)
    os.chown(path, OTHER, FOREIGN_GROUP)
    assert bits(path) == "6777"


def test_set_gid_directory(here: Path) -> None:
    """M1: in a set-group-ID directory everything gets its group, and directories the bit."""
    path = owned(here / "d", 0o2777, directory=True)

    def create() -> None:
        (path / "file").write_bytes(b"")
        (path / "directory").mkdir(0o755)
        (path / "link").symlink_to("x")
        os.mkfifo(path / "fifo")

    before = os.umask(0o022)
    try:
        as_user(OTHER, create, gid=FOREIGN_GROUP)
    finally:
        os.umask(before)
    assert {entry.lstat().st_gid for entry in path.iterdir()} == {GROUP}
    assert {entry.lstat().st_uid for entry in path.iterdir()} == {OTHER}
    assert bits(path / "directory") == "2755"
    assert bits(path / "file") == "0644"


def test_set_gid_of_a_new_file(here: Path) -> None:
    """M1: a user outside the directory's group makes no set-group-ID executable there."""
    path = owned(here / "d", 0o2777, directory=True)

    def create() -> None:
        os.close(os.open(path / "f", os.O_CREAT | os.O_WRONLY, 0o2775))

    before = os.umask(0)
    try:
        as_user(OTHER, create, gid=FOREIGN_GROUP)
    finally:
        os.umask(before)
    assert bits(path / "f") == "0775"


def test_sticky_directory(here: Path) -> None:
    """M1: in a sticky directory only the owners of file or directory remove and rename."""
    path = owned(here / "d", 0o1777, directory=True)
    for name in ("f", "g"):
        owned(path / name, 0o666)
        os.chown(path / name, OTHER, -1)
    stranger = 4323
    assert outcome(stranger, (path / "f").unlink) == "EPERM"
    assert outcome(stranger, lambda: (path / "f").rename(path / "x")) == "EPERM"
    (path / "mine").touch()
    os.chown(path / "mine", stranger, -1)
    assert outcome(stranger, lambda: (path / "mine").rename(path / "g")) == "EPERM"
    assert outcome(OTHER, (path / "f").unlink) == "done"
    assert outcome(OWNER, (path / "g").unlink) == "done"
    assert outcome(stranger, (path / "mine").unlink) == "done"


def test_link_and_unlink_need_the_directory_only(here: Path) -> None:
    """M1: a file of somebody else, closed to all, is removed by who may write the directory."""
    path = owned(here / "f", 0)
    assert outcome(OTHER, path.unlink) == "done"


def test_umask(here: Path) -> None:
    """M1: the umask takes bits from whatever is created."""
    makers: dict[str, Callable[[Path], object]] = {
        "file": lambda path: path.touch(0o777),
        "directory": lambda path: path.mkdir(0o777),
        "fifo": lambda path: os.mkfifo(path, 0o777),
        "node": lambda path: os.mknod(path, stat.S_IFREG | 0o777),
    }
    before = os.umask(0)
    try:
        for umask, (name, make) in itertools.product((0, 0o022, 0o077, 0o777), makers.items()):
            os.umask(umask)
            make(here / name)
            assert bits(here / name) == f"{0o777 & ~umask:04o}", name
            (here / name).rmdir() if name == "directory" else (here / name).unlink()
    finally:
        os.umask(before)


def test_special_bits_of_what_is_created(here: Path) -> None:
    """M1: open, mkdir and mknod take set-ID and sticky bits as ext4 does."""
    before = os.umask(0)
    try:
        os.close(os.open(here / "f", os.O_CREAT | os.O_WRONLY, 0o7777))
        os.mkdir(here / "d", 0o7777)
        os.mkfifo(here / "p", 0o7777)
    finally:
        os.umask(before)
    assert (bits(here / "f"), bits(here / "d"), bits(here / "p")) == ("7777", "1777", "7777")


def test_everything_is_kept(mount: Mount) -> None:
    """M1: owners and every bit of the mode are the same after a remount."""
    expected = {}
    for number, mode in enumerate((0, 0o777, 0o7777, 0o4755, 0o2070, 0o1000)):
        for kind in ("file", "directory"):
            path = owned(mount.directory / f"{kind} {number}", mode, directory=kind == "directory")
            expected[path.name] = (f"{mode:04o}", OWNER, GROUP)
    mount.remount()
    found = {
        path.name: (bits(path), path.stat().st_uid, path.stat().st_gid)
        for path in mount.directory.iterdir()
    }
    assert found == expected
