"""Operations that once ended otherwise on the mount than on a local file system.

Each list is what the state machine found, without what it did not need; `actions` says what the
operations do.  The whole tree is compared after every one, and all of it again after a remount.
"""

from __future__ import annotations

import os
import stat

import pytest

from tests.model.comparison import Comparison
from tests.model.sides import Operation
from tests.mount.mounting import Mount
from tests.mount.syscalls import RENAME_EXCHANGE, UTIME_OMIT

pytestmark = [pytest.mark.mount, pytest.mark.server]

CREATE = os.O_RDWR | os.O_CREAT

REGRESSIONS: dict[str, list[Operation]] = {
    "a directory changes places with a hard link to a file in it": [
        ("mkdir", "a", 0o755),
        ("open", 0, "a/a", CREATE, 0o644),
        ("write", 0, "x", 1),
        ("close", 0),
        ("link", "a/a", "b", False),
        ("rename", "a", "b", RENAME_EXCHANGE),
        ("rename", "a", "b", RENAME_EXCHANGE),
    ],
    "two directories with hard links to each other's files change places": [
        ("mkdir", "a", 0o755),
        ("mkdir", "b", 0o755),
        ("open", 0, "a/a", CREATE, 0o644),
        ("open", 1, "b/b", CREATE, 0o644),
        ("close", 0),
        ("close", 1),
        ("link", "a/a", "b/a", False),
        ("link", "b/b", "a/b", False),
        ("rename", "a", "b", RENAME_EXCHANGE),
        ("unlink", "a/b"),
    ],
    "an attribute is set on a directory in which another client made an entry": [
        ("foreign", "a/a", "x"),
        ("foreign", "a/a", None),
        ("utimens", "a", None, 1_000_000_000, False),
        ("foreign", "a/a", "x"),
        ("setxattr", "a", "user.a", "", 0),
    ],
    "a directory is moved whose new mtime is not stored yet": [
        ("mkdir", "a", 0o755),
        ("utimens", "a", None, 1_000_000_000, False),
        ("open", 0, "a/a", CREATE, 0o644),
        ("rename", "a", "b", 0),
        ("setxattr", "b", "user.a", "", 0),
    ],
    "a file in a directory is made and changed around the setting of its mtime": [
        ("mkdir", "a", 0o755),
        ("open", 0, "a/a", CREATE, 0o644),
        ("write", 0, "x", 1),
        ("utimens", "a", None, 1_000_000_000, False),
        ("close", 0),
        ("open", 0, "a/a", CREATE, 0o644),
        ("write", 0, "y", 1),
        ("close", 0),
        ("chmod", "a/a", 0o600),
    ],
    "a file is cut by who may only read it": [
        ("open", 0, "a", CREATE, 0o644),
        ("write", 0, "abc", 1),
        ("close", 0),
        ("open", 0, "a", os.O_RDONLY | os.O_TRUNC, 0),
        ("close", 0),
    ],
    "a file is created by who may only read it, and removed again": [
        ("open", 0, "a", os.O_RDONLY | os.O_CREAT, 0o644),
        ("unlink", "a"),
        ("close", 0),
        ("open", 0, "b", os.O_RDONLY | os.O_CREAT, 0o644),
        ("close", 0),
    ],
    "a new file takes the name of one with attributes before it is written": [
        ("open", 0, "a", CREATE, 0o644),
        ("close", 0),
        ("setxattr", "a", "user.a", "ff00", 0),
        ("open", 1, "b", CREATE, 0o600),
        ("rename", "b", "a", 0),
        ("write", 1, "abc", 1),
        ("close", 1),
    ],
    "a new file takes the name of a symbolic link before it is written": [
        ("symlink", "nowhere", "a"),
        ("open", 1, "b", CREATE, 0o600),
        ("rename", "b", "a", 0),
        ("write", 1, "abc", 1),
        ("close", 1),
    ],
    "a new file takes the name of a hard link before it is written": [
        ("open", 0, "c", CREATE, 0o644),
        ("close", 0),
        ("link", "c", "a", False),
        ("open", 1, "b", CREATE, 0o600),
        ("rename", "b", "a", 0),
        ("write", 1, "abc", 1),
        ("close", 1),
    ],
    "a new file takes the primary name of a file with two before it is written": [
        ("open", 0, "a", CREATE, 0o644),
        ("write", 0, "x", 1),
        ("close", 0),
        ("link", "a", "c", False),
        ("open", 1, "b", CREATE, 0o600),
        ("rename", "b", "a", 0),
        ("write", 1, "abc", 1),
        ("close", 1),
    ],
    "a new file is renamed before it is written": [
        ("open", 0, "a", CREATE, 0o644),
        ("rename", "a", "b", 0),
        ("open", 1, "c", CREATE, 0o644),
        ("rename", "c", "b", RENAME_EXCHANGE),
    ],
    "a chown names nobody": [
        ("mknod", "a", stat.S_IFREG | 0o6755, 0),
        ("chown", "a", -1, -1, True),
        ("open", 0, "b", CREATE, 0o4755),
        ("fchown", 0, -1, -1),
    ],
    "attributes are given to what has no name any more": [
        ("open", 0, "a", CREATE, 0o644),
        ("unlink", "a"),
        ("fsetxattr", 0, "user.a", "ff00", 0),
        ("fgetxattr", 0, "user.a"),
        ("fremovexattr", 0, "user.a"),
        ("fgetxattr", 0, "user.a"),
        ("mkdir", "b", 0o755),
        ("setxattr", "b", "user.b", "00", 0),
        ("open", 1, "b", os.O_RDONLY, 0),
        ("rmdir", "b"),
        ("fgetxattr", 1, "user.b"),
        ("fsetxattr", 1, "user.a", "ff00", 0),
        ("fgetxattr", 1, "user.a"),
        ("fchmod", 1, 0o700),
        ("fstat", 1),
    ],
    "a mapping is written whose descriptor appends": [
        ("open", 0, "a", CREATE | os.O_APPEND, 0o644),
        ("write", 0, "abc", 13107),
        ("map_write", 0, 5, "x"),
        ("write", 0, "abc", 1),
        ("map_late", 0, 0, "x"),
    ],
    "the mtime of a file is set of which nobody stored an atime": [
        ("foreign", "a", "x"),
        ("utimens", "a", UTIME_OMIT, 1_000_000_000, False),
    ],
    "a file loses a name while it is written": [
        ("open", 0, "a", CREATE, 0o644),
        ("flink", 0, "b"),
        ("write", 0, "x", 1),
        ("unlink", "b"),
    ],
    "a hard link is renamed, and changes places with a directory": [
        ("mknod", "b", stat.S_IFREG | 0o644, 0),
        ("link", "b", "a", False),
        ("rename", "a", "c", 0),
        ("mkdir", "a", 0o755),
        ("rename", "a", "c", RENAME_EXCHANGE),
    ],
    "the mtime of a directory is stored a while after it changed": [
        ("mkdir", "a", 0o755),
        ("open", 0, "a", os.O_RDONLY, 0),
        ("mknod", "a/a", stat.S_IFREG | 0o644, 0),
        ("fsync", 0),
        ("chmod", "a", 0o700),
    ],
    "an attribute is set to what it is": [
        ("mkdir", "a", 0o755),
        ("setxattr", "a", "user.a", "00", 0),
        ("setxattr", "a", "user.a", "00", 0),
        ("setxattr", "a", "user.a", "00", os.XATTR_CREATE),
    ],
}

#: The same for two mounts: "turn" says that the other one goes on.
IN_TURN: dict[str, list[Operation]] = {
    "two names in one directory change places": [
        ("symlink", "nowhere", "a"),
        ("turn",),
        ("symlink", "elsewhere", "b"),
        ("turn",),
        ("rename", "a", "b", RENAME_EXCHANGE),
    ],
    "a directory is moved with what is in it": [
        ("mkdir", "a", 0o755),
        ("mkdir", "a/a", 0o755),
        ("mknod", "a/a/b", stat.S_IFREG | 0o644, 0),
        ("utimens", "a/a", None, 1_000_000_000, False),
        ("utimens", "a", None, 1_000_000_001, False),
        ("rename", "a", "b", 0),
        ("turn",),
        ("utimens", ".", None, 1_000_000_002, False),
        ("rename", "b/a", "a", 0),
    ],
    "an entry is removed by the other mount": [
        ("mkdir", "a", 0o755),
        ("mknod", "b", stat.S_IFREG | 0o644, 0),
        ("turn",),
        ("rmdir", "a"),
        ("turn",),
        ("unlink", "b"),
    ],
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", REGRESSIONS)
def test_regression(comparison: Comparison, mount: Mount, name: str) -> None:
    """W3: what once went wrong has the same results on the mount as on a local directory."""
    comparison.replay(REGRESSIONS[name])
    comparison.leave()
    mount.remount()
    comparison.check_all()
    comparison.leave()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", IN_TURN)
def test_regression_in_turn(wide_comparison: Comparison, name: str) -> None:
    """A1: what once went wrong has the same results on two mounts as on one local directory."""
    wide_comparison.replay(IN_TURN[name])
    wide_comparison.leave()
