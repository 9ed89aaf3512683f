"""What is mounted where, and which directories can become a mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from natsfs.cli import mountpoint
from natsfs.cli.mountpoint import (
    Mount,
    check_fuse,
    check_mount_point,
    located,
    mount_above,
    mount_at,
    natsfs_mounts,
)
from natsfs.cli.outcome import SystemFailure
from natsfs.cli.places import control_directory, log_file
from natsfs.errors import MountFailed, UsageError

MOUNTINFO = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:50 / /mnt/a\040b\134c rw shared:7 master:2 - fuse.natsfs nats://h:1,i:2/x\040y rw,user_id=0
41 22 0:51 / /mnt/other rw - fuse.sshfs host: rw
42 22 0:52 / /mnt/two rw - fuse.natsfs embedded:demo rw
43 42 0:53 / /mnt/two/inner rw - tmpfs none rw
44 22 0:54 / /mnt/covered rw - fuse.natsfs embedded:demo rw
45 44 0:55 / /mnt/covered rw - tmpfs none rw
""".lstrip()


@pytest.fixture
def mountinfo(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO)
    return path


def test_natsfs_mounts(mountinfo: Path) -> None:
    """natsfs's own mounts are found, with blanks in their names, unless something covers them."""
    assert natsfs_mounts(mountinfo) == [
        Mount(Path("/mnt/a b\\c"), "fuse.natsfs", "nats://h:1,i:2/x y"),
        Mount(Path("/mnt/two"), "fuse.natsfs", "embedded:demo"),
    ]


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("/mnt/two", "/mnt/two"),
        ("/mnt/two/deep/down", "/mnt/two"),
        ("/mnt/two/inner/x", None),
        ("/mnt/twofold", None),
        ("/mnt/other/x", None),
        ("/mnt/covered/x", None),
        ("/", None),
    ],
)
def test_mount_above(mountinfo: Path, path: str, directory: str | None) -> None:
    """A path belongs to the innermost mount around it, if that is natsfs's."""
    found = mount_above(Path(path), mountinfo)
    assert (found and str(found.directory)) == directory


def test_mount_at(mountinfo: Path) -> None:
    """Only the mount point itself is a mount."""
    assert mount_at(Path("/mnt/two"), mountinfo) is not None
    assert mount_at(Path("/mnt/two/deep"), mountinfo) is None


def test_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories are absolute and free of symlinks on the way, as the kernel lists them."""
    (tmp_path / "real" / "mnt").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert located("link/mnt/") == Path(os.path.realpath(tmp_path)) / "real" / "mnt"
    assert located("link/../real/mnt") == Path(os.path.realpath(tmp_path)) / "real" / "mnt"
    assert located("/") == Path("/")


def test_a_good_mount_point(tmp_path: Path) -> None:
    """An empty directory can be mounted on; one that is not needs a word."""
    check_mount_point(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(MountFailed, match=r"not empty.*--allow-non-empty"):
        check_mount_point(tmp_path)
    check_mount_point(tmp_path, allow_non_empty=True)


def test_bad_mount_points(tmp_path: Path) -> None:
    """A missing directory and a file are refused with the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(MountFailed, match="mkdir"):
        check_mount_point(tmp_path / "missing")
    with pytest.raises(MountFailed, match="no directory"):
        check_mount_point(tmp_path / "file")


def test_without_a_fuse_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /dev/fuse: a failure of the system, with what brings it back."""
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", tmp_path / "fuse")
    with pytest.raises(SystemFailure, match="modprobe fuse"):
        check_fuse()


def test_without_fusermount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is not root needs fusermount3."""
    (tmp_path / "fuse").touch()
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", tmp_path / "fuse")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemFailure, match="package fuse3"):
        check_fuse()


@pytest.mark.parametrize(
    ("line", "allowed"), [("#user_allow_other", False), ("user_allow_other", True)]
)
def test_allow_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, allowed: bool
) -> None:
    """A user who is not root may let others in only where fuse.conf says so."""
    for name in ("fuse", "fusermount3"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "fuse.conf").write_text(f"{line}\n")
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", tmp_path / "fuse")
    monkeypatch.setattr(mountpoint, "FUSE_CONF", tmp_path / "fuse.conf")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    check_fuse()
    if allowed:
        check_fuse(allow_other=True)
    else:
        with pytest.raises(UsageError, match="user_allow_other"):
            check_fuse(allow_other=True)


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets are in the runtime directory, or root's, or the state directory; logs in state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert control_directory({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "natsfs"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert control_directory({}) == Path("/run/natsfs")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert control_directory({}) == tmp_path / "natsfs" / "run"
    log = log_file("demo", Path("/mnt/x"))
    assert log.parent == tmp_path / "natsfs" / "log"
    assert log != log_file("demo", Path("/mnt/y"))
