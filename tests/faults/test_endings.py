"""The end of a mount whose server hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from natsfs.mount.ending import SHORT_GRACE
from natsfs.server import Server
from tests.contract.linked import freeze
from tests.mount.conftest import Mounter
from tests.mount.foreign import ForeignClient, py_client
from tests.mount.mounting import Mount, mounted_device, natsfs_command, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.server, pytest.mark.timeout(120)]

#: Seconds that an end may take on a busy machine when the server does not answer and has all that
#: was written; `--timeout` is 60.
SOON = 20.0

#: What a mount logs of a server that is away.
USUAL = r"lost the connection|no answer|no connection|connection lost"


@pytest.fixture
def own_bucket(own_server: Server, environment: dict[str, str]) -> ForeignClient:
    """nats-py on a bucket of the server that the test stops."""
    client = py_client(own_server.url, environment).of(f"b-{uuid.uuid4().hex[:12]}")
    client.create()
    return client


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server hangs while the block runs."""
    freeze(server)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def mounted(mounter: Mounter, bucket: ForeignClient, *options: str) -> Mount:
    mount = mounter(*options, source=f"{bucket.url}/{bucket.bucket}", life=100)
    mount.expect_trouble(USUAL)
    return mount


def used(top: Path) -> None:
    """Times of directories wait to be stored, and old versions to be freed."""
    for number in range(3):
        directory = top / f"{number}"
        directory.mkdir()
        for text in ("old", "new"):
            (directory / "file").write_text(text)


@pytest.mark.parametrize("way", ["SIGTERM", "umount", "natsfs umount"])
@pytest.mark.parametrize("options", [[], ["--hard"]], ids=["soft", "hard"])
def test_nothing_is_unsaved(
    way: str,
    options: list[str],
    mounter: Mounter,
    own_server: Server,
    own_bucket: ForeignClient,
    environment: dict[str, str],
) -> None:
    """A5: when the server has all that was written, a mount ends within seconds although it hangs,
    and not after a time-out for every thing that would be nice to have."""
    mount = mounted(mounter, own_bucket, *options)
    used(mount.directory)
    with stopped(own_server):
        begin = time.monotonic()
        if way == "SIGTERM":
            os.kill(mount.pid, signal.SIGTERM)
        else:
            command = ["umount"] if way == "umount" else natsfs_command("umount")
            unmounted = [*command, str(mount.directory)]
            # Somebody else who looks at all mounts of the machine keeps it busy for a moment.
            wait_until(lambda: run(unmounted, env=environment, timeout=60).status == 0, "umount")
        mount.ended(60)
        assert time.monotonic() - begin < SOON
    assert mounted_device(mount.directory) is None
    assert own_bucket.get("0/file") == b"new"


#: A mapping of Python keeps a descriptor of its own; what is not in memory yet the server has.
MAPS = """
import mmap, os, sys
with open(sys.argv[1], "r+b") as file:
    view = mmap.mmap(file.fileno(), 0)
os.closerange(3, 100)
bytes(view)
print("mapped", flush=True)
sys.stdin.readline()
view[:3] = b"new"
os._exit(0)
"""


def test_written_through_a_mapping_and_unmounted(
    mounter: Mounter, own_server: Server, own_bucket: ForeignClient
) -> None:
    """W7: umount(2) waits for no release: what a mapping wrote after the last close, while the
    server hangs, is stored before the mount ends, when the server is back."""
    mount = mounted(mounter, own_bucket)
    path = mount.directory / "file"
    path.write_bytes(b"old" * 2000)
    path.stat()  # waits for the server's time, with which pages may go
    command = [sys.executable, "-c", MAPS, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "mapped\n"
        with stopped(own_server):
            program.communicate("go\n", timeout=SOON)
            assert program.returncode == 0
            begin = time.monotonic()
            # Somebody who looks at the program keeps its memory for a moment after its end.
            umount = ["umount", str(mount.directory)]
            wait_until(lambda: run(umount, timeout=60).status == 0, "umount")
            assert time.monotonic() - begin < SOON
            wait_until(lambda: mounted_device(mount.directory) is None, "it is unmounted")
            with pytest.raises(subprocess.TimeoutExpired):
                mount.wait(2 * SHORT_GRACE)
    mount.ended(60)
    assert "fuse_reply" not in mount.log_text()
    assert own_bucket.get("file") == b"new" + b"old" * 1999
