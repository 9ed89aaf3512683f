"""Two hosts that write one file, through real mounts: `--conflict`, and versions that others read
while they are replaced."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from .conftest import Mounter
from .foreign import ClientFailed, ForeignClient, py_client
from .mounting import Mount, refused, shows, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: A file of several chunks with a short last one.
BODY = random.Random(11).randbytes(700_000)


def open_on_both(mounter: Mounter, *options: str) -> tuple[Mount, Mount, int]:
    """Two mounts of a bucket with a file `f.txt`, which is open for writing on the first."""
    one, two = mounter(*options), mounter()
    (one.directory / "f.txt").write_bytes(b"one")
    wait_until((two.directory / "f.txt").exists, "the file on the other mount")
    return one, two, os.open(one.directory / "f.txt", os.O_RDWR)


def kept(directory: Path) -> list[Path]:
    """The versions of `f.txt` that were kept."""
    host = re.sub(r"[^A-Za-z0-9._-]", "_", os.uname().nodename)[:48]
    pattern = re.compile(rf"f\.txt\.conflict-{re.escape(host)}-\d{{8}}T\d{{6}}Z(-\d+)?")
    return [path for path in directory.iterdir() if pattern.fullmatch(path.name)]


def test_the_last_commit_wins(mounter: Mounter, py: ForeignClient) -> None:
    """A4: without an option the last commit wins, whole, and nothing is kept."""
    one, two, file = open_on_both(mounter)
    os.write(file, b"ONE")
    (two.directory / "f.txt").write_bytes(BODY)
    os.close(file)
    assert py.get("f.txt") == b"ONE"
    for mount in (one, two):
        there = mount.directory / "f.txt"
        wait_until(lambda: shows(mount, there, b"ONE"), "the winner")  # noqa: B023
    assert py.names() == ["f.txt"]


@pytest.mark.parametrize("option", ["--conflict=keep", "-oconflict=keep"])
def test_the_other_version_is_kept(mounter: Mounter, py: ForeignClient, option: str) -> None:
    """A4: with `keep` the version that is replaced stays, under a name that says so."""
    one, two, file = open_on_both(mounter, option, "--purge-delay=0")
    os.write(file, b"ONE")
    (two.directory / "f.txt").write_bytes(BODY)
    os.close(file)
    assert py.get("f.txt") == (one.directory / "f.txt").read_bytes() == b"ONE"
    for mount in (one, two):
        wait_until(lambda: kept(mount.directory), "the version that is kept")  # noqa: B023
        assert [path.read_bytes() for path in kept(mount.directory)] == [BODY]
    (name,) = [path.name for path in kept(one.directory)]
    assert py.get(name) == BODY
    (two.directory / name).unlink()
    wait_until(lambda: py.names() == ["f.txt"], "its removal")


@pytest.mark.parametrize("first", ["close", "fsync"])
def test_giving_way(mounter: Mounter, py: ForeignClient, first: str) -> None:
    """A4: with `fail` close and fsync are ESTALE, the other version stays and is shown, and the
    descriptor goes on with what was written by it."""
    one, two, file = open_on_both(mounter, "--conflict=fail")
    one.expect_trouble("WARNING.*'f.txt' is not stored: another client stored version")
    os.write(file, b"ONE")
    (two.directory / "f.txt").write_bytes(BODY)
    if first == "fsync":
        assert refused(lambda: os.fsync(file)) == "ESTALE"
    else:
        assert refused(lambda: os.close(os.dup(file))) == "ESTALE"
    wait_until(lambda: (one.directory / "f.txt").read_bytes() == BODY, "the other version")
    assert os.pread(file, 10, 0) == b"ONE"
    assert os.fstat(file).st_size == 3
    assert refused(lambda: os.close(file)) == "ESTALE"
    assert py.get("f.txt") == BODY
    assert one.log_text().count("is not stored") == 1
    (one.directory / "f.txt").write_bytes(b"again")
    assert py.get("f.txt") == b"again"
    assert py.names() == ["f.txt"]


def test_metadata_is_no_conflict(mounter: Mounter, py: ForeignClient) -> None:
    """A4, M5: a chmod elsewhere while a file is written is merged, and shows at once."""
    _, two, file = open_on_both(mounter, "--conflict=fail")
    os.write(file, b"ONE")
    (two.directory / "f.txt").chmod(0o600)
    wait_until(lambda: os.fstat(file).st_mode & 0o777 == 0o600, "the mode")
    os.close(file)
    assert py.get("f.txt") == b"ONE"
    assert py.meta("f.txt")["metadata"]["mode"] == "0100600"
    wait_until(lambda: shows(two, two.directory / "f.txt", b"ONE"), "the bytes")
    assert (two.directory / "f.txt").stat().st_mode & 0o777 == 0o600


# -- versions -------------------------------------------------------------------------------------

#: So large that what is read of its beginning brings nothing of its end into any cache.
LARGE = random.Random(12).randbytes(24 * 1024 * 1024)
END = len(LARGE) - 5000


def replace_by_put(top: Path) -> None:
    (top / "f").write_bytes(b"new")


def replace_by_rename(top: Path) -> None:
    (top / "tmp").write_bytes(b"new")
    (top / "tmp").rename(top / "f")


def remove(top: Path) -> None:
    (top / "f").unlink()


def size(file: Path) -> int:
    """How long a file is, 0 if there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def read_on(file: int) -> bytes:
    """Everything from where *file* is."""
    parts = []
    while part := os.read(file, 1024 * 1024):
        parts.append(part)
    return b"".join(parts)


def purged(py: ForeignClient, nuid: str) -> bool:
    """Whether the chunks of a version are gone."""
    try:
        py.last(f"$O.{py.bucket}.C.{nuid}")
    except ClientFailed:
        return True
    return False


@pytest.mark.parametrize("change", [replace_by_put, replace_by_rename, remove])
def test_a_reader_elsewhere_can_finish(
    mounter: Mounter, py: ForeignClient, change: Callable[[Path], None]
) -> None:
    """R1, W6: who reads on another mount can finish within the delay; after the purge what is
    cached is served, anything else is ESTALE, and the next open has the new version."""
    one, two = mounter("--purge-delay=4s"), mounter()
    two.expect_trouble("WARNING.*was purged")
    (one.directory / "f").write_bytes(LARGE)
    (one.directory / "small").write_bytes(BODY)
    file = two.directory / "f"
    wait_until((two.directory / "small").exists, "the files on the other mount")
    nuid = py.info("f")["nuid"]
    with open(file, "rb", buffering=0) as late:
        assert os.pread(late.fileno(), 1000, 0) == LARGE[:1000]
        change(one.directory)
        wait_until(lambda: size(file) == (0 if change is remove else 3), "the change")
        assert os.pread(late.fileno(), 100, 10_000_000) == LARGE[10_000_000:10_000_100]
        assert os.fstat(late.fileno()).st_size == len(LARGE)
        wait_until(lambda: purged(py, nuid), "the purge")
        assert os.pread(late.fileno(), 1000, 0) == LARGE[:1000]
        assert os.pread(late.fileno(), 100, 10_000_000) == LARGE[10_000_000:10_000_100]
        assert refused(lambda: os.pread(late.fileno(), 100, END)) == "ESTALE"


def test_a_reader_elsewhere_finishes(mounter: Mounter, py: ForeignClient) -> None:
    """R1: a reading that goes on over replacements on another mount has one version, whole."""
    one, two = (mounter().directory / "f" for _ in range(2))
    bodies = [bytes([number]) * 3_000_000 for number in range(8)]
    one.write_bytes(bodies[0])
    wait_until(two.exists, "the file on the other mount")
    for body, following in pairwise(bodies):
        with open(two, "rb", buffering=0) as reader:
            start = reader.read(100_000)
            one.write_bytes(following)
            assert start + read_on(reader.fileno()) == body
        wait_until(lambda: two.read_bytes() == following, "the next version")  # noqa: B023
    assert py.get("f") == bodies[-1]


def test_unmounting_frees_at_once(mounter: Mounter, py: ForeignClient) -> None:
    """W6, R1: what a mount that ends had replaced is freed before it has ended, so that nothing is
    left over; a reader elsewhere keeps what it has, and gets ESTALE instead of anything else."""
    one, two = mounter("--purge-delay=1h"), mounter()
    two.expect_trouble("WARNING.*was purged")
    (one.directory / "f").write_bytes(LARGE)
    file = two.directory / "f"
    wait_until(file.exists, "the file on the other mount")
    nuid = py.info("f")["nuid"]
    with open(file, "rb", buffering=0) as late:
        assert os.pread(late.fileno(), 1000, 0) == LARGE[:1000]
        (one.directory / "f").write_bytes(b"new")
        one.stop()
        assert purged(py, nuid)
        assert os.pread(late.fileno(), 1000, 0) == LARGE[:1000]
        assert refused(lambda: os.pread(late.fileno(), 100, END)) == "ESTALE"
    wait_until(lambda: size(file) == 3, "the new version")
    assert file.read_bytes() == b"new"


def test_space_is_freed_at_once(
    nats_url: str, mounter: Mounter, environment: dict[str, str]
) -> None:
    """W6: what was replaced is freed early when the bucket has no space for what is written."""
    name = f"full-{os.getpid()}-{random.randrange(10**9)}"
    client = py_client(nats_url, environment).of(name)
    client.create(max_bytes=2_000_000)
    top = mounter("--purge-delay=1h", source=f"{nats_url}/{name}").directory
    for number in range(6):
        body = bytes([number]) * 800_000
        (top / "f").write_bytes(body)
        assert client.get("f") == body
