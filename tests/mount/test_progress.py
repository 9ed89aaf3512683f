"""What a terminal shows while commands work on a large bucket, and that it is left clean."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from natsfs.config import ServerConfig
from natsfs.server import Server, start_server
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.model import BucketConfig
from natsfs.store.session import Request, open_session
from natsfs.store.wire import chunk_subject, meta_subject, new_nuid
from tests.faults.proxy import Proxy
from tests.faults.secured import natsfs

from .mounting import SETTLE, natsfs_command

pytestmark = [pytest.mark.mount, pytest.mark.server]

#: Objects, and bytes a second of the line to them: their metas take a second or two.
OBJECTS = 2_500
RATE = 600_000

#: Buckets: more than a page of their list has.
BUCKETS = 300


async def fill(url: str, bucket: str, subject_of: Callable[[str], str] | None = None) -> None:
    """Put many empty objects into *bucket*, or their metas on other subjects."""
    subject_of = subject_of or partial(meta_subject, bucket)
    async with open_session(ServerConfig(urls=(url,))) as session:
        for first in range(0, OBJECTS, 500):
            names = [f"object {number}" for number in range(first, first + 500)]
            await session.exchange(
                [Request(subject_of(name), meta(bucket, name)) for name in names]
            )


def meta(bucket: str, name: str) -> bytes:
    """An empty object."""
    info = {"name": name, "bucket": bucket, "nuid": new_nuid(), "size": 0, "chunks": 0}
    return json.dumps(info).encode()


@pytest.fixture
def slow(line: str, nats_server: Server, bucket: str) -> str:
    """Where the bucket is, full, at the end of a slow line."""
    trio.run(fill, nats_server.url, bucket)
    return line


@pytest.fixture
def proxy(nats_server: Server) -> Iterator[Proxy]:
    """A slow line to the server."""
    proxy = Proxy(nats_server.port)
    proxy.rate = RATE
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.fixture
def line(proxy: Proxy, bucket: str) -> str:
    """Where the bucket is, at the end of that line."""
    return f"{proxy.url}/{bucket}"


def on_terminal(environment: dict[str, str], *command: str | Path) -> tuple[int, str]:
    """The status of a natsfs command, and all that it shows on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    env = {**environment, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(
        natsfs_command(*command), env=env, cwd="/", stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], SETTLE)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                break
        status = process.wait(SETTLE)
    os.close(ours)
    return status, shown.decode()


def check_bar(shown: str, what: str) -> None:
    """It was there, with rate and remaining time, and is gone."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert re.search(rf"{what}.* \d+/{OBJECTS} +[\d,]+/s +0:00:0\d", plain), shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert "Traceback" not in shown


@pytest.mark.parametrize("command", ["ls", "du", "gc", "fsck"])
def test_listing(slow: str, environment: dict[str, str], command: str) -> None:
    """E: commands that list a large bucket show how far they are, how fast, and how long yet."""
    status, shown = on_terminal(environment, command, slow)
    assert status == 0
    check_bar(shown, "listing")


@pytest.mark.parametrize("command", ["gc", "fsck"])
def test_counting(
    line: str, proxy: Proxy, nats_server: Server, environment: dict[str, str], command: str
) -> None:
    """E: while the server counts what is stored, which tells nothing before it is done, there is a
    bar without numbers."""
    bucket = line.rpartition("/")[2]
    trio.run(fill, nats_server.url, bucket, lambda name: chunk_subject(bucket, new_nuid()))

    def slowly(frame: bytes) -> bool:
        """Only what the server has counted is long."""
        proxy.rate = 60_000 if len(frame) > 50_000 else 0
        return False

    proxy.down = slowly
    status, shown = on_terminal(environment, command, line)
    assert status == 0
    plain = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", shown)
    assert re.search(r"^counting [━ ]+\r", plain), shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


@pytest.fixture
def many(tmp_path: Path) -> Iterator[str]:
    """A server with many buckets, at the end of a slow line."""
    server = start_server(tmp_path / "server")
    proxy = Proxy(server.port)
    proxy.rate = 150_000
    try:
        trio.run(make_buckets, server.url)
        yield proxy.url
    finally:
        proxy.close()
        server.stop()


async def make_buckets(url: str) -> None:
    async with open_session(ServerConfig(urls=(url,))) as session:
        manager = JetStreamManager(session)
        for number in range(BUCKETS):
            await manager.create(BucketConfig(f"b{number}", storage="memory"))


def test_many_buckets(many: str, environment: dict[str, str], tmp_path: Path) -> None:
    """E: mounting all buckets, and listing them, says how many of them are known."""
    top = tmp_path / "top"
    top.mkdir()
    status, shown = on_terminal(environment, "mount", many, top)
    try:
        assert status == 0
        assert len(os.listdir(top)) == BUCKETS
    finally:
        natsfs(environment, "umount", top).check()
    listed = on_terminal(environment, "bucket", "list", "--server", many)[1]
    for seen in (shown, listed):
        assert re.search(rf"listing .*\d+/{BUCKETS}\b", seen), seen
        assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 1


def test_mount(slow: str, environment: dict[str, str], tmp_path: Path) -> None:
    """E: so does a mount in the background, whose process tells its parent, before it returns."""
    top = tmp_path / "top"
    top.mkdir()
    status, shown = on_terminal(environment, "mount", slow, top)
    try:
        assert status == 0
        check_bar(shown, "listing")
        assert len(os.listdir(top)) == OBJECTS
    finally:
        natsfs(environment, "umount", top).check()


def test_mount_in_the_foreground(slow: str, environment: dict[str, str], tmp_path: Path) -> None:
    """E: and one in the foreground, which takes the bar away when programs can use it."""
    top, script = tmp_path / "top", tmp_path / "script"
    top.mkdir()
    script.write_text(f"until mountpoint -q {top}; do sleep 0.1; done; umount {top}")
    with subprocess.Popen(["sh", script]):
        status, shown = on_terminal(environment, "mount", "-f", slow, top)
    assert status == 0
    check_bar(shown, "listing")


def test_no_terminal(slow: str, environment: dict[str, str]) -> None:
    """E: what goes into a pipe has no bars in it."""
    listed = natsfs(environment, "ls", slow)
    assert (listed.status, listed.err, len(listed.out.splitlines())) == (0, "", OBJECTS)


def test_recover(proxy: Proxy, line: str, environment: dict[str, str], tmp_path: Path) -> None:
    """E, W7: what a mount that died has left is stored with a bar that counts bytes."""
    top = tmp_path / "top"
    top.mkdir()
    natsfs(environment, "mount", "-o", "writeback", line, top).check()
    # More than is under way at a time, and more than leaves until the mount dies.
    proxy.rate = 2_000_000
    body = os.urandom(7 * proxy.rate)
    (top / "file").write_bytes(body)
    (told,) = json.loads(natsfs(environment, "status", "--json", top).check())
    ended = os.pidfd_open(told["pid"])
    os.kill(told["pid"], signal.SIGKILL)
    select.select([ended], [], [])
    os.close(ended)
    natsfs(environment, "umount", top).check()
    status, shown = on_terminal(environment, "recover", line)
    assert (status, "1 files are saved." in shown) == (0, True), shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert re.search(r"storing .* [\d.]+/[\d.]+ MiB [\d.]+ [KM]iB/s 0:00:0\d", plain), plain
    (found,) = json.loads(natsfs(environment, "ls", "--json", line).check())
    assert found["size"] == len(body)
