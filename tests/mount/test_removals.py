"""What no watch shows, through a real mount: purges, single deletions, expiry, buckets that go.

The foreign administrator speaks the raw JetStream API.  Every path is looked at before, so that the
kernel has it cached; what is asserted is then that somebody told the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from natsfs.server import start_server

from .conftest import Mounter
from .foreign import ClientFailed, ForeignClient, py_client
from .mounting import Mount, refused, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Seconds until a removal that the server tells of must show: it takes milliseconds, and the net
#: below, which asks once a minute, must not be what finds it.
PROMPT = 10.0


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def put_all(mount: Mount, py: ForeignClient, *objects: str) -> None:
    """Put objects and make the kernel cache their names and attributes."""
    for name in objects:
        py.put(name, name.encode())
    for name in objects:
        wait_until((mount.directory / name).exists, name)


def gone(path: Path) -> Callable[[], bool]:
    return lambda: not path.exists()


# -- purges and deletions -------------------------------------------------------------------------


def test_purge_of_the_stream(mount: Mount, py: ForeignClient) -> None:
    """A6: a bucket that somebody purges is empty here at once, and can be filled again."""
    root = mount.directory
    put_all(mount, py, "a", "d/b", "d/e/c")
    py.api("STREAM.PURGE")
    wait_until(gone(root / "a"), "the purge", PROMPT)
    wait_until(gone(root / "d/e/c"), "the purge below", PROMPT)
    assert [name for name in names(root) if (root / name).is_file()] == []
    (root / "a").write_bytes(b"again")
    py.put("d/b", b"again")
    wait_until((root / "d/b").exists, "a new object")
    assert py.get("a") == b"again"


@pytest.mark.parametrize("how", ["subject", "wildcard", "all metas", "up to a revision"])
def test_purge_of_metas(mount: Mount, py: ForeignClient, how: str) -> None:
    """A6: a purge of some subjects takes those names from the mount and leaves the others."""
    root = mount.directory
    put_all(mount, py, "gone", "d/gone")
    revision = py.revision("d/gone")
    put_all(mount, py, "kept")
    if how == "subject":
        py.api("STREAM.PURGE", filter=py.meta_subject("gone"))
        py.api("STREAM.PURGE", filter=py.meta_subject("d/gone"))
    elif how == "wildcard":
        py.api("STREAM.PURGE", filter=f"$O.{py.bucket}.M.*")
        py.put("kept", b"kept")
    elif how == "all metas":
        py.api("STREAM.PURGE", filter=f"$O.{py.bucket}.M.>")
        py.put("kept", b"kept")
    else:
        py.api("STREAM.PURGE", seq=revision + 1)
    wait_until(gone(root / "gone"), "the purge", PROMPT)
    wait_until(gone(root / "d/gone"), "the purge below", PROMPT)
    wait_until(lambda: (root / "kept").exists() and "kept" in names(root), "the other", PROMPT)
    assert (root / "kept").read_bytes() == b"kept"


def test_deletion_of_one_message(mount: Mount, py: ForeignClient) -> None:
    """A6: a meta message that is deleted takes its name along; one below it comes to light."""
    root = mount.directory
    put_all(mount, py, "gone", "kept")
    py.api("STREAM.MSG.DELETE", seq=py.revision("gone"))
    wait_until(gone(root / "gone"), "the deletion", PROMPT)
    older = py.meta("kept") | {"metadata": {"mode": "0100600"}}
    py.publish(py.meta_subject("kept"), json.dumps(older).encode())
    wait_until(lambda: (root / "kept").stat().st_mode & 0o777 == 0o600, "the newer meta")
    py.api("STREAM.MSG.DELETE", seq=py.revision("kept"))
    wait_until(lambda: (root / "kept").stat().st_mode & 0o777 == 0o644, "the older meta", PROMPT)
    assert (root / "kept").read_bytes() == b"kept"


def test_open_file_survives_a_purge(mount: Mount, py: ForeignClient) -> None:
    """R1, A6: who reads a file that is purged gets what is cached, then ESTALE; who writes it
    stores it again."""
    root = mount.directory
    mount.expect_trouble("WARNING.*was purged")
    put_all(mount, py, "read", "written")
    with open(root / "read", "rb", buffering=0) as reader, open(root / "written", "ab") as writer:
        writer.write(b" on")
        py.api("STREAM.PURGE")
        wait_until(gone(root / "read"), "the purge", PROMPT)
        assert refused(lambda: reader.read()) == "ESTALE"
        assert os.fstat(reader.fileno()).st_nlink == 0


# -- expiry ---------------------------------------------------------------------------------------


def expiring(py: ForeignClient, seconds: float, **settings: object) -> None:
    """Let objects of the bucket expire."""
    age = round(seconds * 1e9)
    py.reconfigure(max_age=age, duplicate_window=min(age, 120 * 10**9), **settings)


def test_expiry_by_the_bucket(mounter: Mounter, py: ForeignClient) -> None:
    """A6: what a bucket's TTL takes away goes from the mount when it passes."""
    expiring(py, 4)
    mount = mounter()
    put_all(mount, py, "d/first")
    begin = time.monotonic()
    (mount.directory / "second").write_bytes(b"2")
    (mount.directory / "empty").mkdir()
    wait_until(gone(mount.directory / "d/first"), "expiry", 4 + PROMPT)
    wait_until(gone(mount.directory / "second"), "expiry of what was written here", PROMPT)
    wait_until(gone(mount.directory / "empty"), "expiry of a directory", PROMPT)
    assert time.monotonic() - begin > 2
    (mount.directory / "second").write_bytes(b"again")
    assert py.get("second") == b"again"


def test_bucket_that_gets_a_ttl(mount: Mount, py: ForeignClient) -> None:
    """A6: a TTL that a mounted bucket gets is followed as well."""
    put_all(mount, py, "f")
    expiring(py, 3)
    wait_until(gone(mount.directory / "f"), "expiry", 3 + PROMPT)


def test_expiry_of_one_message(mount: Mount, py: ForeignClient) -> None:
    """A6: a meta with a life of its own takes its name along when that ends."""
    py.reconfigure(allow_msg_ttl=True)
    put_all(mount, py, "kept")
    meta = {**py.meta("kept"), "name": "brief"}
    py.publish(py.meta_subject("brief"), json.dumps(meta).encode(), "2s")
    brief = mount.directory / "brief"
    wait_until(brief.exists, "the object")
    wait_until(gone(brief), "expiry", 2 + PROMPT)
    assert (mount.directory / "kept").read_bytes() == b"kept"


def test_metadata_does_not_outlive_the_data(mounter: Mounter, py: ForeignClient) -> None:
    """A6: chmod and rename in a bucket with a TTL give the object no new lease where the bucket
    allows message TTLs."""
    expiring(py, 10, allow_msg_ttl=True)
    mount = mounter()
    put_all(mount, py, "f", "g")
    time.sleep(4)  # The lease is what is tested: a new one would end after this test has failed.
    (mount.directory / "f").chmod(0o600)
    (mount.directory / "g").rename(mount.directory / "h")
    written = time.monotonic()
    wait_until(gone(mount.directory / "f"), "expiry")
    wait_until(gone(mount.directory / "h"), "expiry")
    assert time.monotonic() - written < 9


def test_metadata_that_outlives_the_data(mounter: Mounter, py: ForeignClient) -> None:
    """E: what another client's metadata keeps alive longer than the bytes is EIO to read."""
    expiring(py, 10)
    mount = mounter()
    mount.expect_trouble("(?i)chunk")
    put_all(mount, py, "f")
    time.sleep(4)  # As above.
    py.describe("f", "renewed")
    path = mount.directory / "f"
    chunks = f"$O.{py.bucket}.C.{py.info('f')['nuid']}"

    def bytes_are_gone() -> bool:
        try:
            py.api("STREAM.MSG.GET", last_by_subj=chunks)
        except ClientFailed:
            return True
        return False

    # Not by reading: that would bring them into the cache.
    wait_until(bytes_are_gone, "expiry of the bytes")
    assert refused(path.read_bytes) == "EIO"
    assert path.stat().st_size == 1
    wait_until(gone(path), "expiry of the meta")


# -- the bucket itself ----------------------------------------------------------------------------


def test_bucket_is_deleted_and_made_again(mount: Mount, py: ForeignClient) -> None:
    """A6, E: a mount whose bucket is gone says so, and is none that is empty; a new one of that
    name is followed."""
    root = mount.directory
    mount.expect_trouble("bucket .* is gone|WARNING.*was purged")
    put_all(mount, py, "d/f")
    below = os.open(root / "d", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(root / "d/f", "rb", buffering=0) as reader:
            py.api("STREAM.DELETE")
            wait_until(lambda: _error_of(lambda: os.listdir(root)) == errno.ENODEV, "ENODEV", 4)
            assert refused(root.stat) == "ENODEV"
            assert refused(lambda: (root / "new").write_bytes(b"x")) == "ENODEV"
            assert refused(lambda: os.stat("f", dir_fd=below)) == "ESTALE"
            assert refused(reader.read) == "ESTALE"
            py.create()
            py.put("g", b"other")
            wait_until(lambda: _error_of(lambda: os.listdir(root)) == 0, "the new bucket", PROMPT)
            wait_until((root / "g").exists, "the new object", PROMPT)
            assert names(root) == ["g"]
            assert refused(reader.read) == "ESTALE"
        (root / "h").write_bytes(b"h")
        assert py.get("h") == b"h"
        assert mount.log_text().count("is gone") == 1
    finally:
        os.close(below)


def _error_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


def test_seal_is_followed_at_once(mount: Mount, py: ForeignClient) -> None:
    """A6: a bucket that is sealed can only be read, before anything is written."""
    (mount.directory / "f").write_bytes(b"kept")
    mount.expect_trouble("WARNING.*can only be read")
    py.seal()
    wait_until(lambda: "can only be read" in mount.log_text(), "the seal", PROMPT)
    assert refused(lambda: (mount.directory / "g").touch()) == "EROFS"
    assert (mount.directory / "f").read_bytes() == b"kept"


def test_batches_are_used_once_the_bucket_allows_them(mount: Mount, py: ForeignClient) -> None:
    """A2, A6: a bucket that gets atomic batches while it is mounted has them used."""
    root = mount.directory
    put_all(mount, py, "a", "b")

    def exchanged() -> bool:
        done = _error_of(lambda: _exchange(root / "a", root / "b"))
        return done == 0

    assert not exchanged()
    py.reconfigure(allow_atomic=True)
    wait_until(exchanged, "RENAME_EXCHANGE", PROMPT)
    assert (root / "a").read_bytes() == b"b"


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2):
        raise OSError(ctypes.get_errno(), "renameat2")


# -- permissions ----------------------------------------------------------------------------------


LIMITED = """
accounts { A { jetstream: enabled, users: [
  { user: admin, password: a },
  { user: limited, password: l, permissions: { subscribe: { deny: "$JS.EVENT.>" } } }
] } }
"""


def test_without_the_right_to_hear_of_it(
    mounter: Mounter, tmp_path: Path, environment: dict[str, str]
) -> None:
    """A6: credentials that may not hear of other clients' requests mount all the same; that is one
    line in the log."""
    server = start_server(tmp_path / "limited", extra_config=LIMITED)
    try:
        address = server.url.removeprefix("nats://")
        bucket = f"l-{uuid.uuid4().hex[:8]}"
        py = py_client(f"nats://admin:a@{address}", environment).of(bucket)
        py.create()
        mount = mounter(source=f"nats://limited:l@{address}/{bucket}")
        put_all(mount, py, "f")
        wait_until(lambda: "may not hear" in mount.log_text(), "the line")
        assert mount.log_text().count("may not hear") == 1
        py.delete("f")
        wait_until(gone(mount.directory / "f"), "what the watch shows")
        mount.stop()
    finally:
        server.stop()
