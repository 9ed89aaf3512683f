"""Coherence and errors of semantics.md through a real mount: what others change, what is refused.

Tests that take `directory` run on a local file system too: there the expectation itself is tested.
"""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import Mount, refused, shows, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: A file of several chunks with a short last one.
BODY = random.Random(8).randbytes(700_000)


# -- A: atomicity and coherence -------------------------------------------------------------------


def test_foreign_changes_are_seen(mount: Mount, py: ForeignClient) -> None:
    """A1: puts, overwrites and deletes of another client show in stat, ls, open and read."""
    file = mount.directory / "d/f"
    assert not file.exists()
    py.put("d/f", b"one")
    wait_until(file.exists, "the object, where ENOENT was answered before")
    assert file.read_bytes() == b"one"
    assert [path.name for path in file.parent.iterdir()] == ["f"]
    py.put("d/f", b"version two")
    wait_until(lambda: shows(mount, file, b"version two"), "the new bytes")
    assert file.stat().st_size == 11
    py.delete("d/f")
    wait_until(lambda: not file.exists(), "the delete")
    assert refused(file.read_bytes) == "ENOENT"


def test_foreign_metadata_is_seen(mountpoint: Path, py: ForeignClient) -> None:
    """A1: a foreign change of metadata alone shows in stat."""
    (mountpoint / "f").write_bytes(b"x")
    meta = py.meta("f")
    meta["metadata"] |= {"mode": "0100640", "mtime": "2001-02-03T04:05:06.000000007Z"}
    py.publish(py.meta_subject("f"), json.dumps(meta).encode())
    wait_until(lambda: (mountpoint / "f").stat().st_mode & 0o777 == 0o640, "the mode")
    assert (mountpoint / "f").stat().st_mtime_ns == 981173106000000007
    assert (mountpoint / "f").read_bytes() == b"x"


def test_two_mounts_see_each_other(mounter: Mounter) -> None:
    """A1: what one mount does another one shows: files, renames, links, removal."""
    one, two = mounter().directory, mounter().directory
    (one / "d").mkdir()
    (one / "d/f").write_bytes(BODY)
    wait_until((two / "d/f").exists, "the file")
    assert (two / "d/f").read_bytes() == BODY
    (two / "d").rename(two / "e")
    wait_until(lambda: (one / "e/f").exists() and not (one / "d").exists(), "the rename")
    (one / "l").symlink_to("e/f")
    wait_until(lambda: (two / "l").is_symlink(), "the link")
    assert (two / "l").read_bytes() == BODY
    (two / "e/f").unlink()
    wait_until(lambda: not (one / "e/f").exists(), "the removal")


def create(kind: str, path: Path) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to("target")
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_exclusive_creation_has_one_winner(mounter: Mounter, kind: str) -> None:
    """A3: O_EXCL, mkdir and symlink of one name on two mounts at the same time succeed once."""
    mounts = [mounter().directory for _ in range(2)]
    for number in range(8):
        barrier = threading.Barrier(2)

        def outcome(top: Path, barrier: threading.Barrier, name: str) -> str:
            barrier.wait(20)
            try:
                create(kind, top / name)
            except FileExistsError:
                return "exists"
            return "made"

        with ThreadPoolExecutor(2) as pool:
            racers = [pool.submit(outcome, top, barrier, f"x-{number}") for top in mounts]
            assert sorted(racer.result(60) for racer in racers) == ["exists", "made"]


# -- E: errors ------------------------------------------------------------------------------------


def test_errors_of_every_day(directory: Path) -> None:
    """E: what POSIX refuses is refused with the same errno as on ext4."""
    (directory / "d").mkdir()
    (directory / "d/f").write_bytes(b"x")
    (directory / "e").mkdir()
    (directory / "loop").symlink_to("loop")
    for expected, call in (
        ("ENOENT", lambda: (directory / "no").stat()),
        ("ENOENT", lambda: (directory / "no/f").write_bytes(b"")),
        ("ENOENT", lambda: (directory / "no").rename(directory / "e")),
        ("EEXIST", lambda: (directory / "d").mkdir()),
        ("EEXIST", lambda: (directory / "d/f").touch(exist_ok=False)),
        ("EEXIST", lambda: (directory / "d/f").symlink_to("x")),
        ("ENOTDIR", lambda: (directory / "d/f/x").stat()),
        ("ENOTDIR", lambda: (directory / "d/f").rmdir()),
        ("ENOTDIR", lambda: os.rename(directory / "e", directory / "d/f")),
        ("EISDIR", lambda: (directory / "d").write_bytes(b"")),
        ("EISDIR", lambda: (directory / "d").unlink()),
        ("EISDIR", lambda: os.rename(directory / "d/f", directory / "e")),
        ("ENOTEMPTY", lambda: (directory / "d").rmdir()),
        ("ENOTEMPTY", lambda: os.rename(directory / "e", directory / "d")),
        ("EINVAL", lambda: os.rename(directory / "d", directory / "d/inside")),
        ("EINVAL", lambda: os.readlink(directory / "d/f")),
        ("ELOOP", lambda: (directory / "loop").read_bytes()),
        ("ENAMETOOLONG", lambda: (directory / ("x" * 256)).mkdir()),
    ):
        assert refused(call) == expected, expected


def test_sealed_bucket(mount: Mount, py: ForeignClient) -> None:
    """E: a bucket that is sealed while mounted refuses every change with EROFS, and is read."""
    root = mount.directory
    (root / "f").write_bytes(b"kept")
    mount.expect_trouble("WARNING.*can only be read")
    py.seal()

    def changed() -> bool:
        try:
            (root / "f").chmod(0o600)
        except OSError as error:
            return error.errno == errno.EROFS
        return False

    wait_until(changed, "EROFS")
    for call in (
        lambda: (root / "g").write_bytes(b"x"),
        lambda: (root / "f").write_bytes(b"x"),
        (root / "f").unlink,
        (root / "d").mkdir,
        lambda: (root / "f").rename(root / "g"),
        lambda: (root / "l").symlink_to("f"),
        lambda: os.truncate(root / "f", 0),
    ):
        assert refused(call) == "EROFS"
    assert (root / "f").read_bytes() == b"kept"
    mount.remount()
    assert refused(lambda: (root / "g").write_bytes(b"x")) == "EROFS"
    assert (root / "f").read_bytes() == b"kept"


def test_full_bucket(mounter: Mounter, py: ForeignClient, nats_url: str) -> None:
    """E: a bucket at its limit answers ENOSPC, keeps what it has, and lets itself be emptied."""
    limited = py.of(f"l-{uuid.uuid4().hex[:8]}")
    limited.create(max_bytes=1_000_000)
    mount = mounter(source=f"{nats_url}/{limited.bucket}")
    mount.expect_trouble("(?i)space|ENOSPC|full|maximum bytes")
    (mount.directory / "f").write_bytes(BODY)
    assert refused(lambda: (mount.directory / "g").write_bytes(BODY)) == "ENOSPC"
    assert (mount.directory / "f").read_bytes() == BODY
    (mount.directory / "g").unlink(missing_ok=True)
    (mount.directory / "f").unlink()
    assert list(mount.directory.iterdir()) == []
    wait_until(lambda: os.statvfs(mount.directory).f_bfree * 4096 > 900_000, "free space")
    (mount.directory / "again").write_bytes(BODY)
