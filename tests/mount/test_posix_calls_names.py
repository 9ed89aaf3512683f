"""Calls that make, link, move and remove names, by every kind of user on every kind of entry.

Each table is run in a local directory and on a mount, and whatever a program can see of it must be
the same in both; a sample of all tables in the default mode, everything in the nightly one.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from functools import partial

import pytest

from .differential import (
    GROUP,
    OWNER,
    ROOT,
    STRANGER,
    USERS,
    Probe,
    User,
    Worlds,
    owned,
    sample,
)
from .syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, link, renameat2

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users"),
]


def create(path: str) -> None:
    """Open, write nothing, close."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def bind(path: str) -> None:
    """A socket, which stays when its descriptor goes."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


# -- making ---------------------------------------------------------------------------------------

#: One call of each kind that makes a path.
MAKERS: dict[str, Callable[[str], object]] = {
    "create": create,
    "mkdir": lambda path: os.mkdir(path, 0o777),
    "mkfifo": lambda path: os.mkfifo(path, 0o666),
    "mknod file": lambda path: os.mknod(path, stat.S_IFREG | 0o666),
    "mknod no type": lambda path: os.mknod(path, 0o666),
    "mknod socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o666),
    "mknod character": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "mknod block": lambda path: os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(250, 70_000)),
    "mknod directory": lambda path: os.mknod(path, stat.S_IFDIR | 0o777),
    "mknod link": lambda path: os.mknod(path, stat.S_IFLNK | 0o777),
    "bind": bind,
    "symlink": lambda path: os.symlink("x", path),
    "link": lambda path: os.link("file", path),
    "rename": lambda path: os.rename("file", path),
}


def _working_place(mode: int) -> None:
    owned("file", 0o666)
    owned("d/", mode)


def making() -> dict[str, Probe]:
    """Every maker in directories of every mode by every user: owners, groups, modes, times."""
    return {
        f"{maker} in {mode:o} by {who}": Probe(
            partial(make, "d/new"), partial(_working_place, mode), user
        )
        for maker, make in MAKERS.items()
        for who, user in USERS.items()
        for mode in (0o755, 0o775, 0o777, 0o2777, 0o1777, 0o666)
    }


# -- removing, moving and linking -----------------------------------------------------------------

#: Entries of a tree that `populate` made.
KINDS = (
    *("file", "other", "linked", "fifo", "socket", "character"),
    *("symlink", "dangling", "empty", "full", "nothing"),
)


def _full(path: str) -> None:
    owned(f"{path}/", 0o755)
    owned(f"{path}/x", 0o644)


def populate(top: str, *kinds: str) -> None:
    """A directory *top* with an entry of each of *kinds*, and one called `file` in any case."""
    owned(f"{top}/", 0o755)
    owned(f"{top}/file", 0o644)
    makers: dict[str, Callable[[str], object]] = {
        "other": partial(owned, mode=0o640, content=b"other"),
        "linked": partial(os.link, f"{top}/file"),
        "fifo": os.mkfifo,
        "socket": bind,
        "character": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        "symlink": partial(os.symlink, "file"),
        "dangling": partial(os.symlink, "nothing/at/all"),
        "empty": lambda path: owned(f"{path}/", 0o755),
        "full": _full,
    }
    for kind in set(kinds) & makers.keys():
        makers[kind](f"{top}/{kind}")


def _source_and_target(old: str, new: str, target: str) -> None:
    if target == "a":
        populate("a", old, new)
    else:
        populate("a", old)
        populate("b", new)


def removing() -> dict[str, Probe]:
    """unlink and rmdir of every kind, also by paths that end in slashes and dots."""
    return {
        f"{call.__name__} of {kind}{tail}": Probe(
            partial(call, f"a/{kind}{tail}"), partial(populate, "a", kind.partition("/")[0])
        )
        for call in (os.unlink, os.rmdir)
        for kind in (*KINDS, ".", "..", "full/..", "empty/.")
        for tail in ("", "/")
    }


def renaming() -> dict[str, Probe]:
    """rename of every kind to every kind, beside and across directories, with every flag."""
    # What is in a directory that moves has another object name, so a new meta and its ctime (M3).
    return {
        f"rename {flags} of a/{old} to {target}/{new}": Probe(
            partial(renameat2, f"a/{old}", f"{target}/{new}", flags),
            partial(_source_and_target, old, new, target),
            timeless=("x",),
        )
        for flags in (0, RENAME_NOREPLACE, RENAME_EXCHANGE)
        for old in KINDS
        for new in KINDS
        for target in ("a", "b")
    }


def linking() -> dict[str, Probe]:
    """link of every kind, following links or not, to names of every kind."""
    return {
        f"link of {old} to {new}, following {follow}": Probe(
            partial(link, f"a/{old}", f"b/{new}", follow_symlinks=follow),
            partial(_source_and_target, old, new, "b"),
        )
        for old in KINDS
        for new in ("new", "file", "empty", "dangling", "nothing/x", "file/x", "new/")
        for follow in (False, True)
    }


# -- who may --------------------------------------------------------------------------------------

#: What a user may try in somebody else's directory `d`, with a place of his own, `e`.
ATTEMPTS: dict[str, Callable[[], object]] = {
    "unlink": partial(os.unlink, "d/file"),
    "rmdir": partial(os.rmdir, "d/empty"),
    "rename": partial(os.rename, "d/file", "e/new"),
    "rename beside": partial(os.rename, "d/file", "d/new"),
    "rename of a directory": partial(os.rename, "d/empty", "e/new"),
    "rename of a directory beside": partial(os.rename, "d/empty", "d/new"),
    "rename over": partial(os.rename, "e/mine", "d/file"),
    "rename over a directory": partial(os.rename, "e/home", "d/empty"),
    "exchange": partial(renameat2, "e/mine", "d/file", RENAME_EXCHANGE),
    "link from": partial(os.link, "d/file", "e/new"),
    "link to": partial(os.link, "e/mine", "d/new"),
    "stat": lambda: os.stat("d/file").st_size,
    "list": lambda: sorted(os.listdir("d")),
    "through": lambda: os.stat("d/empty/..").st_mode,
}


def _shared_place(user: User, mode: int, owner: User, entries: User, inner: int) -> None:
    owned("d/", 0o777, owner, gid=GROUP)
    owned("e/", 0o777, user)
    owned("d/file", 0o666, entries)
    owned("d/empty/", inner, entries)
    owned("e/mine", 0o644, user)
    owned("e/home/", 0o755, user)
    os.chmod("d", mode)


def permissions() -> dict[str, Probe]:
    """Sticky directories and others, owners of directory and entry, and what each user may."""
    return {
        f"{name} by {who}, d={mode:o} of {owner.uid}, entries {inner:o} of {entries.uid}": Probe(
            call, partial(_shared_place, user, mode, owner, entries, inner), user
        )
        for name, call in ATTEMPTS.items()
        for who, user in USERS.items()
        for mode in (0o777, 0o1777, 0o1770, 0o755)
        for owner in (ROOT, OWNER, STRANGER)
        for entries in (OWNER, STRANGER)
        for inner in (0o755, 0o777)
    }


#: Each table, and how many of its probes the default mode takes.
TABLES = {making: 40, removing: 15, renaming: 40, linking: 15, permissions: 40}


@pytest.mark.timeout(300)
def test_calls(worlds: Worlds) -> None:
    """A2: a sample of all calls that change names does what it does on a local file system."""
    worlds.compare(
        {k: v for table, most in TABLES.items() for k, v in sample(table(), most).items()}
    )


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_all_calls(worlds: Worlds, table: Callable[[], dict[str, Probe]]) -> None:
    """A2: every call that changes names does what it does on a local file system."""
    worlds.compare(table())
