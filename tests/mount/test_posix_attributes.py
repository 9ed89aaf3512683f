"""Extended attributes: what is kept on which kind of file, and what is refused with which errno.

Every test runs on a local file system first, as the control.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from .mounting import Mount, refused

pytestmark = pytest.mark.mount


@pytest.fixture
def file(directory: Path) -> Path:
    """A file with a byte."""
    path = directory / "file"
    path.write_bytes(b"x")
    return path


def test_set_replace_and_remove(file: Path) -> None:
    """M4: XATTR_CREATE and XATTR_REPLACE mean it; what is removed is gone; values may be empty."""
    os.setxattr(file, "user.a", b"1", os.XATTR_CREATE)
    assert refused(lambda: os.setxattr(file, "user.a", b"2", os.XATTR_CREATE)) == "EEXIST"
    assert refused(lambda: os.setxattr(file, "user.b", b"2", os.XATTR_REPLACE)) == "ENODATA"
    os.setxattr(file, "user.a", b"\x00\xff", os.XATTR_REPLACE)
    os.setxattr(file, "user.empty", b"")
    assert os.getxattr(file, "user.a") == b"\x00\xff"
    assert os.getxattr(file, "user.empty") == b""
    assert sorted(os.listxattr(file)) == ["user.a", "user.empty"]
    os.removexattr(file, "user.a")
    assert refused(lambda: os.removexattr(file, "user.a")) == "ENODATA"
    assert refused(lambda: os.getxattr(file, "user.a")) == "ENODATA"
    assert os.listxattr(file) == ["user.empty"]


def test_names(file: Path) -> None:
    """M4: a name of 255 bytes is kept; longer, empty, or of no known namespace is refused."""
    longest = "user." + "n" * 250
    os.setxattr(file, longest, b"1")
    assert os.listxattr(file) == [longest]
    assert refused(lambda: os.setxattr(file, longest + "n", b"1")) == "ERANGE"
    for name in ("user.", "trusted.", "security."):
        assert refused(partial(os.setxattr, file, name, b"1")) == "EINVAL"
        assert refused(partial(os.getxattr, file, name)) == "EINVAL"
        assert refused(partial(os.removexattr, file, name)) == "EINVAL"
    assert refused(lambda: os.setxattr(file, "foreign.a", b"1")) == "ENOTSUP"
    assert refused(lambda: os.setxattr(file, "user.a", bytes(65537))) == "E2BIG"


def test_other_kinds_of_files(file: Path) -> None:
    """M4: directories have attributes; links and special files have only those of root."""
    directory = file.parent
    (directory / "d").mkdir()
    os.setxattr(directory / "d", "user.a", b"of d")
    os.setxattr(directory, "user.a", b"of the root")
    (directory / "link").symlink_to("file")
    os.mkfifo(directory / "fifo")
    for name in ("link", "fifo"):
        put = partial(os.setxattr, directory / name, value=b"1", follow_symlinks=False)
        assert refused(partial(put, attribute="user.a")) == "EPERM"
        if os.geteuid() == 0:
            put(attribute="trusted.a")
            assert os.listxattr(directory / name, follow_symlinks=False) == ["trusted.a"]
    os.setxattr(directory / "link", "user.b", b"by the link")
    assert os.listxattr(file) == ["user.b"]
    assert os.getxattr(directory / "d", "user.a") == b"of d"
    assert os.getxattr(directory, "user.a") == b"of the root"


def test_attributes_follow_the_file(file: Path) -> None:
    """M4: attributes stay through writing, renaming, linking, and go with the file."""
    os.setxattr(file, "user.a", b"1")
    file.write_bytes(b"other bytes")
    moved = file.rename(file.with_name("moved"))
    os.link(moved, file)
    os.setxattr(file, "user.b", b"2")
    with open(moved, "rb+") as opened:
        os.setxattr(opened.fileno(), "user.c", b"3")
        opened.write(b"more")
        assert os.getxattr(opened.fileno(), "user.b") == b"2"
    assert sorted(os.listxattr(moved)) == ["user.a", "user.b", "user.c"]
    assert file.read_bytes() == b"morer bytes"
    moved.unlink()
    file.unlink()
    file.touch()
    assert os.listxattr(file) == []


def test_attributes_after_a_remount(mount: Mount) -> None:
    """M4: attributes are the same after a remount."""
    path = mount.directory / "file"
    path.touch()
    os.setxattr(path, "user.a", bytes(range(256)))
    os.setxattr(mount.directory, "user.root", b"1")
    mount.remount()
    assert os.getxattr(path, "user.a") == bytes(range(256))
    assert os.getxattr(mount.directory, "user.root") == b"1"
