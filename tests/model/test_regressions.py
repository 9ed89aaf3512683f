"""Operations that once ended otherwise on the mount than on a local file system.

Each list is what the state machine found, without what it did not need; `actions` says what the
operations do.  The whole tree is compared after every one, and all of it again after a remount.
"""

from __future__ import annotations

import os

import pytest

from tests.model.comparison import Comparison, Operation
from tests.mount.mounting import Mount
from tests.mount.syscalls import RENAME_EXCHANGE

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
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", REGRESSIONS)
def test_regression(comparison: Comparison, mount: Mount, name: str) -> None:
    """W3: what once went wrong has the same results on the mount as on a local directory."""
    comparison.start()
    for operation in REGRESSIONS[name]:
        comparison.do(operation)
        comparison.check(contents=True)
    comparison.leave()
    mount.remount()
    comparison.check_all()
    comparison.leave()
