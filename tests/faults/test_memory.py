"""A daemon that may have no more memory: requests fail, and nothing else does."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.stranger import Stranger
from tests.mount.conftest import Mounter
from tests.mount.mounting import Mount, refused, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.server, pytest.mark.timeout(120)]

MIB = 1024 * 1024

#: Bytes that eight programs write at once, each.
BODY = os.urandom(24 * MIB)

#: What a program may be told: the error of the call, or, where bytes are read that could not be
#: received, of the connection that was given up.
TOLD = (errno.ENOMEM, errno.EIO)


def limit(mount: Mount, spare: int | None) -> None:
    """Let the daemon have *spare* bytes of address space more than it has, None for any number."""
    status = Path(f"/proc/{mount.pid}/status").read_text()
    found = re.search(r"^VmSize:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    most = resource.RLIM_INFINITY if spare is None else int(found[1]) * 1024 + spare
    _, hard = resource.prlimit(mount.pid, resource.RLIMIT_AS)
    resource.prlimit(mount.pid, resource.RLIMIT_AS, (most, hard))


def copy(path: Path) -> str:
    """Write a file and read it; how far that went."""
    far = "nowhere"
    with what_may_be_told():
        path.write_bytes(BODY)
        far = "written"
    if far == "written":
        with what_may_be_told():
            assert path.read_bytes() == BODY
            far = "read"
    return far


@contextmanager
def what_may_be_told() -> Iterator[None]:
    """Let a program be told what it may be told."""
    try:
        yield
    except OSError as error:
        if error.errno not in TOLD:
            raise


@pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "kept"])
@pytest.mark.parametrize("spare", [0, 16 * MIB, 64 * MIB])
def test_no_memory(mounter: Mounter, nats_url: str, bucket: str, spare: int, lifted: bool) -> None:
    """E, W7: while the daemon may have no more memory, programs hear ENOMEM or EIO, and what they
    were told is stored is; the daemon lives, works again when it may have more, and ends either
    way."""
    mount = mounter(life=100)
    mount.expect_trouble("WARNING.*memory is short")
    mount.expect_trouble("WARNING.*the cache .* pauses: .*(MemoryError|no thread can be started)")
    mount.expect_trouble("ERROR.*is not saved yet and will be tried again: no memory")
    mount.expect_trouble("WARNING.*the journal cannot be written: .*no thread can be started")
    (mount.directory / "before").write_bytes(b"before")
    limit(mount, spare)
    paths = [mount.directory / f"f{number}" for number in range(12)]
    with ThreadPoolExecutor(8) as pool:
        told = dict(zip(paths, pool.map(copy, paths), strict=True))
    # With much to spare it depends on who comes when.
    assert spare > 16 * MIB or set(told.values()) != {"read"}, "the limit did not limit anything"
    assert {"before"} <= set(os.listdir(mount.directory)) <= {"before", *(p.name for p in paths)}
    if lifted:
        limit(mount, None)
        assert copy(mount.directory / "after") == "read"
        assert (mount.directory / "before").read_bytes() == b"before"
        # Where no request was short of it, what was received was.
        assert ("memory is short" in mount.log_text()) == (
            "there is memory again" in mount.log_text()
        )
    assert subprocess.run(["umount", mount.directory], check=False, timeout=60).returncode == 0
    mount.ended(60)
    afresh = mounter().directory
    for path, far in told.items():
        assert far == "nowhere" or (afresh / path.name).read_bytes() == BODY


def test_no_memory_for_the_tree(mounter: Mounter, nats_url: str, bucket: str) -> None:
    """E: a tree for which there is no memory would be wrong, so the mount ends: at once, with a
    line that says why, and so that programs do not take it for an empty directory."""
    mount = mounter(life=100)
    mount.expect_trouble("memory is short")
    assert os.listdir(mount.directory) == [], "it serves, so it has its threads"
    limit(mount, 2 * MIB)
    meta = f'{{"name":"d/%d","bucket":"{bucket}","nuid":"","size":0,"chunks":0}}'
    with Stranger(nats_url, bucket) as stranger:
        stranger.store([(stranger.subject(f"d/{n}"), (meta % n).encode()) for n in range(30_000)])
    wait_until(lambda: "out of memory" in mount.log_text(), "the end", 60)
    wait_until(lambda: refused(lambda: os.listdir(mount.directory)) == "ENOTCONN", "the end")
    last = mount.log_text().splitlines()[-1]
    assert last == "natsfs: out of memory; allow the process more (ulimit -v, LimitAS=)"
    mount.kill()
