"""A server that is killed, stopped or cut off under a mount that programs use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from natsfs.server import Server
from tests.contract.linked import freeze
from tests.faults.inspection import contents, purge
from tests.faults.proxy import Proxy
from tests.mount.conftest import Mounter
from tests.mount.foreign import ForeignClient, py_client
from tests.mount.mounting import (
    Mount,
    mounted_device,
    natsfs_command,
    refused,
    run,
    shows,
    wait_until,
)

pytestmark = [pytest.mark.mount, pytest.mark.server, pytest.mark.timeout(120)]

#: Seconds of `--timeout`, and what a call may take beyond it on a busy machine.
TIMEOUT = 3.0
SLACK = 5.0

#: Seconds in which something that asks no server is done on a busy machine.  Well below `TIMEOUT`.
AT_ONCE = 2.0

#: What a mount logs of a server that is away.
USUAL = r"lost the connection|no answer|no connection|connection lost|connection to"

#: Bytes of a file that is read in part: more than is read ahead.
BIG = 64 * 1024 * 1024 // 4


@pytest.fixture
def own_bucket(own_server: Server, environment: dict[str, str]) -> ForeignClient:
    """nats-py on a bucket of the server that the test may kill."""
    client = py_client(own_server.url, environment).of(f"b-{uuid.uuid4().hex[:12]}")
    client.create()
    return client


@pytest.fixture
def mounted(mounter: Mounter, own_bucket: ForeignClient) -> Mount:
    """That bucket, mounted by a daemon of little patience."""
    source = f"{own_bucket.url}/{own_bucket.bucket}"
    mount = mounter(f"--timeout={TIMEOUT:g}s", source=source, life=100)
    mount.expect_trouble(USUAL)
    return mount


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server hangs while the block runs."""
    freeze(server)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def used(mount: Mount) -> None:
    """Some files, one of them in the cache and one not."""
    (mount.directory / "d").mkdir()
    (mount.directory / "cached").write_bytes(b"cached" * 50_000)
    (mount.directory / "d" / "other").write_bytes(b"other")
    (mount.directory / "cached").read_bytes()


def goes_on(top: Path) -> None:
    """What needs no server is served: names, attributes and what is in the cache."""
    with within(4 * AT_ONCE):
        assert sorted(os.listdir(top)) == ["cached", "d", "foreign"]
        assert (top / "d" / "other").stat().st_size == 5
        assert not (top / "missing").exists()
        assert (top / "cached").read_bytes() == b"cached" * 50_000
        run(["ls", "-lR", top], timeout=AT_ONCE).check()


@pytest.mark.parametrize("way", ["hangs", "is dead"])
def test_while_the_server(
    way: str, mounted: Mount, own_server: Server, own_bucket: ForeignClient
) -> None:
    """A5: what needs no server goes on, the rest is EIO when the time-out is over and not before
    long, and all is well again afterwards without a remount."""
    top = mounted.directory
    used(mounted)
    own_bucket.put("foreign", b"foreign" * 50_000)
    wait_until((top / "foreign").exists, "the foreign file")
    if way == "hangs":
        with stopped(own_server):
            goes_on(top)
            everything_else_fails(top)
            goes_on(top)
    else:
        own_server.kill()
        goes_on(top)
        everything_else_fails(top)
        goes_on(top)
        own_server.restart()
    wait_until(lambda: shows(mounted, top / "foreign", b"foreign" * 50_000), "a foreign file")
    wait_until(lambda: written(top / "new"), "a write")
    assert own_bucket.get("new") == b"new"


def written(path: Path) -> bool:
    try:
        path.write_bytes(b"new")
    except OSError:
        return False
    return True


def everything_else_fails(top: Path) -> None:
    run(["df", top], timeout=TIMEOUT + SLACK)
    for call in (
        (top / "foreign").read_bytes,
        (top / "made").mkdir,
        (top / "cached").unlink,
        lambda: (top / "cached").rename(top / "renamed"),
        lambda: (top / "cached").chmod(0o600),
    ):
        with within(TIMEOUT + SLACK):
            assert refused(call) == "EIO"


@pytest.mark.parametrize("way", ["umount", "natsfs umount"])
def test_unmounting_while_the_server_hangs(
    way: str, mounted: Mount, own_server: Server, environment: dict[str, str]
) -> None:
    """A5: a mount whose server hangs can be unmounted."""
    used(mounted)
    command = ["umount"] if way == "umount" else natsfs_command("umount")
    with stopped(own_server):
        run([*command, mounted.directory], env=environment, timeout=60).check()
        assert mounted_device(mounted.directory) is None
        mounted.ended(60)


def test_a_server_away_for_long(mounted: Mount, own_server: Server) -> None:
    """A5: the connection comes back after any number of attempts to make it, of the control plane
    as of the links; nats-py would have closed itself after two and for good."""
    used(mounted)
    own_server.kill()
    time.sleep(8)  # attempts are made meanwhile: at most 2 s lie between them
    own_server.restart()
    wait_until(lambda: written(mounted.directory / "new"), "a write")
    wait_until(lambda: "connected again" in mounted.log_text(), "the session")


def test_killed_during_an_upload(
    mounted: Mount, own_server: Server, own_bucket: ForeignClient, tmp_path: Path
) -> None:
    """A5, W2: a server that dies in the middle of messages and comes back has the whole file in the
    end, if the program was told so, and otherwise nothing of it."""
    body = os.urandom(BIG)
    source = tmp_path / "source"
    source.write_bytes(body)
    for round_ in range(2):
        name = f"big{round_}"
        copy = subprocess.Popen(["cp", source, mounted.directory / name])
        wait_until(partial(leaving, own_bucket, BIG * (round_ + 0.2)), "the file leaves")
        own_server.kill()
        own_server.restart()
        status = copy.wait(60)
        found = contents(own_server.url, own_bucket.bucket).objects.get(name)
        assert found == (None if status else body)
        assert not status


def leaving(client: ForeignClient, size: float) -> bool:
    """Whether the bucket has more than *size* bytes by now."""
    found: int = client.api("STREAM.INFO")["state"]["bytes"]
    return found > size


def test_changes_while_cut_off(
    proxied: Callable[..., Mount], proxy: Proxy, py: ForeignClient
) -> None:
    """A5: what other clients did while the mount was cut off shows without a remount: objects put,
    replaced, deleted and renamed, and subjects that were purged without a word; what is in the
    cache and was not changed is not fetched again."""
    mount = proxied(f"--timeout={TIMEOUT:g}s")
    mount.expect_trouble(USUAL)
    top = mount.directory
    for name in ("kept", "replaced", "deleted", "purged", "old", "emptied/file"):
        py.put(name, name.encode() * 1000)
    wait_until(lambda: (top / "emptied" / "file").exists(), "the files")
    assert (top / "kept").read_bytes() == b"kept" * 1000
    proxy.leave()
    wait_until(lambda: "lost the connection" in mount.log_text(), "the loss")
    py.put("new", b"new")
    py.put("replaced", b"another")
    py.delete("deleted")
    for name in ("purged", "emptied/file", "old"):
        purge(py.url, py.bucket, py.meta_subject(name))
    py.put("renamed", b"old" * 1000)
    proxy.go_on()
    wait_until(lambda: shows(mount, top / "new", b"new"), "the new file")
    wait_until(lambda: shows(mount, top / "replaced", b"another"), "the new version")
    gone = ("deleted", "purged", "old", "emptied/file")
    wait_until(lambda: not any((top / name).exists() for name in gone), "what is gone")
    assert (top / "renamed").read_bytes() == b"old" * 1000
    assert (top / "kept").read_bytes() == b"kept" * 1000


@pytest.mark.parametrize(
    "direction", ["both", "down", pytest.param("up", marks=pytest.mark.nightly)]
)
def test_a_line_that_is_dead(
    direction: str, proxied: Callable[..., Mount], proxy: Proxy, py: ForeignClient
) -> None:
    """A5: a line that hands nothing on, in one direction or both, and does not say so, is noticed
    and made anew: no call waits longer than the time-out, and the mount follows again."""
    mount = proxied(f"--timeout={TIMEOUT:g}s")
    mount.expect_trouble(USUAL)
    (mount.directory / "a").write_bytes(b"a")
    proxy.stall(up=direction != "down", down=direction != "up")
    with within(TIMEOUT + SLACK):
        assert refused((mount.directory / "d").mkdir) == "EIO"
    wait_until(lambda: "lost the connection" in mount.log_text(), "the loss is noticed")
    py.put("foreign", b"foreign")
    proxy.go_on()
    wait_until(lambda: shows(mount, mount.directory / "foreign", b"foreign"), "a foreign file")
    wait_until(lambda: written(mount.directory / "new"), "a write")
    assert py.get("new") == b"new"


def test_a_slow_line(proxied: Callable[..., Mount], proxy: Proxy, py: ForeignClient) -> None:
    """A5: a deadline belongs to progress, not to size: a file that takes longer than the time-out
    to go over a slow line goes, and comes back."""
    mount = proxied(f"--timeout={TIMEOUT:g}s")
    body = os.urandom(2_500_000)
    proxy.rate = 400_000
    begin = time.monotonic()
    (mount.directory / "f").write_bytes(body)
    assert time.monotonic() - begin > TIMEOUT
    py.put("g", body)
    wait_until((mount.directory / "g").exists, "the foreign file")
    assert (mount.directory / "g").read_bytes() == body
    proxy.rate = 0
    assert py.get("f") == body


def is_asleep(process: subprocess.Popen[bytes]) -> bool:
    """Whether *process* waits for an answer of its file system."""
    return "fuse" in Path(f"/proc/{process.pid}/wchan").read_text() or (
        "request_wait_answer" in Path(f"/proc/{process.pid}/stack").read_text()
    )


@pytest.fixture
def hard(mounter: Mounter, own_bucket: ForeignClient) -> Mount:
    """The bucket of `own_server`, mounted with `-o hard` and a short time-out."""
    source = f"{own_bucket.url}/{own_bucket.bucket}"
    mount = mounter("-o", "hard,timeout=1s", source=source, life=100)
    mount.expect_trouble(USUAL)
    return mount


def touch(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", f"import os; os.mkdir({str(path)!r})"])


@pytest.mark.parametrize("way", ["hangs", "is dead"])
def test_hard(way: str, hard: Mount, own_server: Server, own_bucket: ForeignClient) -> None:
    """A5: with `-o hard` a program waits for the server beyond the time-out, whatever it asks for,
    and all that it did has been done when the server is back."""
    own_bucket.put("foreign", b"foreign")
    wait_until((hard.directory / "foreign").exists, "the foreign file")
    if way == "hangs":
        freeze(own_server)
    else:
        own_server.kill()
    reader = subprocess.Popen(["cat", hard.directory / "foreign"], stdout=subprocess.PIPE)
    maker = touch(hard.directory / "made")
    with pytest.raises(subprocess.TimeoutExpired):
        maker.wait(5)  # five time-outs
    assert reader.poll() is None
    goes_on_hard(hard.directory)
    if way == "hangs":
        os.kill(own_server.pid, signal.SIGCONT)
    else:
        own_server.restart()
    assert reader.communicate(timeout=30)[0] == b"foreign"
    assert maker.wait(30) == 0
    assert own_bucket.names() == ["foreign", "made/"]


def goes_on_hard(top: Path) -> None:
    """Names and attributes are served while others wait."""
    with within(AT_ONCE):
        assert (top / "foreign").stat().st_size == 7


@pytest.mark.parametrize("way", ["SIGTERM", "natsfs umount --lazy", "umount"])
def test_the_end_of_a_hard_mount(
    way: str, hard: Mount, own_server: Server, environment: dict[str, str]
) -> None:
    """A5: a hard mount ends when it is told to although the server hangs; who waits for it is freed
    by SIGTERM to the daemon, or when the time-out is over."""
    with stopped(own_server):
        if way == "umount":
            run(["umount", hard.directory], timeout=30).check()
        else:
            maker = touch(hard.directory / "made")
            wait_until(lambda: is_asleep(maker), "a program waits")
            if way == "SIGTERM":
                os.kill(hard.pid, signal.SIGTERM)
            else:
                run([*natsfs_command("umount", "--lazy", hard.directory)], env=environment).check()
                os.kill(hard.pid, signal.SIGTERM)
            assert maker.wait(30)
        hard.ended(60)


def test_killing_a_mount_frees_programs(hard: Mount, own_server: Server) -> None:
    """A5: kill -9 of the daemon frees at once who waits for a server that hangs."""
    with stopped(own_server):
        maker = touch(hard.directory / "made")
        wait_until(lambda: is_asleep(maker), "a program waits")
        os.kill(hard.pid, signal.SIGKILL)
        assert maker.wait(AT_ONCE)
        hard.kill()
