"""`natsfs top`, `natsfs status` and the Prometheus endpoint, of mounts that do something."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natsfs.control import ask, socket_path
from natsfs.server import start_server

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import SETTLE, Mount, Result, natsfs_command, refused, run, wait_until
from .test_progress import on_terminal

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Runs a natsfs command.
Natsfs = Callable[..., Result]


@pytest.fixture
def natsfs(environment: dict[str, str]) -> Natsfs:
    def call(*arguments: str | Path) -> Result:
        return run(natsfs_command(*arguments), env=environment, cwd=Path("/"), timeout=60)

    return call


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def scrape(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def value(text: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


# -- Prometheus -----------------------------------------------------------------------------------


def test_metrics(mounter: Mounter, py: ForeignClient) -> None:
    """E: Prometheus gets requests by operation, bytes, what the cache had, and failures."""
    port = free_port()
    mount = mounter(f"--metrics-address=127.0.0.1:{port}")
    (mount.directory / "f").write_bytes(b"x" * 300_000)
    with pytest.raises(OSError, match="No data"):
        os.getxattr(mount.directory / "f", "user.none")
    text = scrape(port)
    assert value(text, 'natsfs_bytes_total{way="written"}') == 300_000
    assert value(text, 'natsfs_bytes_total{way="stored"}') == 300_000
    assert value(text, 'natsfs_request_seconds_count{operation="create"}') == 1
    assert value(text, 'natsfs_request_failures_total{errno="ENODATA",operation="getxattr"}') >= 1
    assert value(text, "natsfs_troubles_total") == 0
    assert value(text, "natsfs_connected") == 1
    assert value(text, "natsfs_objects") == 1
    # What a foreign client stored has to be fetched, and after a remount the cache has it.
    py.put("g", b"y" * 200_000)
    wait_until((mount.directory / "g").exists, "the object")
    (mount.directory / "g").read_bytes()
    text = scrape(port)
    assert value(text, 'natsfs_bytes_total{way="read"}') == 200_000
    assert value(text, 'natsfs_bytes_total{way="fetched"}') >= 200_000
    mount.remount()
    (mount.directory / "g").read_bytes()
    text = scrape(port)
    assert value(text, 'natsfs_bytes_total{way="cached"}') == 200_000
    assert value(text, 'natsfs_bytes_total{way="fetched"}') == 0


def test_metrics_of_whoever_asks(mounter: Mounter) -> None:
    """E: what is no request of Prometheus does no harm."""
    port = free_port()
    mount = mounter("-o", f"metrics_address=127.0.0.1:{port}")
    for path, data in (("/nothing", None), ("/metrics", b"x")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=20)
        assert caught.value.code in (404, 405)
        caught.value.close()
    for nonsense in (b"", b"\r\n\r\n", b"\0" * 20_000, b"GET\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(nonsense)
    # Clients that say nothing take places, but not the mount, nor for ever.
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]
    (mount.directory / "f").write_bytes(b"x")
    for client in silent:
        client.close()
    wait_until(lambda: "natsfs_connected 1.0" in quietly(port), "the answer")


def quietly(port: int) -> str:
    try:
        return scrape(port)
    except OSError:
        return ""


def test_metrics_address_refusals(natsfs: Natsfs, py: ForeignClient, tmp_path: Path) -> None:
    """E: an address that is none or is taken is one line, and nothing is mounted."""
    source, directory = f"{py.url}/{py.bucket}", tmp_path / "mnt"
    directory.mkdir()
    for text in ("9100", "h:0", "h:70000", "a b:1", "http://h:1"):
        result = natsfs("mount", source, directory, f"--metrics-address={text}")
        assert (result.status, result.err.count("\n")) == (1, 1), result
        assert "is not an address" in result.err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = natsfs("mount", source, directory, f"--metrics-address=:{taken.getsockname()[1]}")
    assert (result.status, result.err.count("\n")) == (32, 1), result
    assert "metrics cannot be offered on 127.0.0.1:" in result.err
    assert not directory.is_mount()


# -- status ---------------------------------------------------------------------------------------


def test_status_counts(
    mount: Mount, py: ForeignClient, natsfs: Natsfs, environment: dict[str, str]
) -> None:
    """E: status has the use of the cache, requests that failed, and what is not stored."""
    py.put("f", b"x" * 200_000)
    py.api("STREAM.PURGE", filter=f"$O.{py.bucket}.C.>")
    py.put("g", b"y" * 200_000)
    wait_until((mount.directory / "g").exists, "the objects")
    mount.expect_trouble("ERROR.*read: chunks of .* are missing")
    assert refused((mount.directory / "f").read_bytes) in ("EIO", "ESTALE")
    (mount.directory / "g").read_bytes()

    control = socket_path(Path(environment["XDG_RUNTIME_DIR"], "natsfs"), mount.directory)

    def status() -> Any:
        # Not by a command: to start one closes a copy of each descriptor, which stores the file.
        return ask(control, "status")

    wait_until(lambda: status()["cache"]["used"] >= 200_000, "the cache")
    with open(mount.directory / "h", "wb", buffering=0) as file:
        file.write(b"z" * 1000)
        assert (status()["pending"], status()["journal"]) == (1000, 1)
    (found,) = json.loads(natsfs("status", mount.directory, "--json").check())
    assert (found["pending"], found["journal"], found["reconnects"]) == (0, 0, 0)
    assert found["errors"] >= 1
    assert found["cache"]["limit"] == 10 * 1024**3
    text = natsfs("status", mount.directory).check()
    head, _, row = text.splitlines()
    assert head.split()[-4:] == ["Pending", "Journal", "Cache", "Errors"]
    assert row.split()[-1] == str(found["errors"])


def test_status_on_a_narrow_terminal(mount: Mount, environment: dict[str, str]) -> None:
    """E: where a table would not fit, each mount has a few lines of its own."""
    status, shown = on_terminal(environment, "status", mount.directory)
    assert status == 0
    lines = shown.splitlines()
    assert lines[0] == str(mount.directory)
    assert [line.split()[0] for line in lines[1:]] == [
        *("Source:", "State:", "Objects:", "Pending:", "Errors:"),
    ]
    assert re.fullmatch(r"  State:   connected, up \d+s, process \d+", lines[2])
    assert "\x1b" not in shown


def test_reconnects(mounter: Mounter, natsfs: Natsfs, tmp_path: Path) -> None:
    """A5: a connection that is made again is counted."""
    server = start_server(tmp_path / "server")
    try:
        mount = mounter("--create", source=f"{server.url}/b")
        mount.expect_trouble("WARNING.*(lost the connection|link)")
        server.restart()

        def reconnects() -> int:
            found = json.loads(natsfs("status", mount.directory, "--json").check())[0]
            number: int = found["reconnects"]
            return number

        wait_until(lambda: reconnects() == 1, "the connection")
        mount.stop()
    finally:
        server.stop()


# -- top ------------------------------------------------------------------------------------------


def test_top_once(mount: Mount, environment: dict[str, str]) -> None:
    """E: top shows what was done in one interval, and files on their way."""
    command = natsfs_command("top", mount.directory, "--once", "--interval=2s")
    looking = [
        subprocess.Popen(
            [*command, *more], env=environment, cwd="/", stdout=subprocess.PIPE, text=True
        )
        for more in ([], ["--json"])
    ]
    with open(mount.directory / "growing", "wb", buffering=0) as growing:
        growing.write(b"x" * 1_000_000)
        while any(one.poll() is None for one in looking):
            os.listdir(mount.directory)
            time.sleep(0.01)
    text, found = (one.communicate()[0] for one in looking)
    found = json.loads(found)
    assert found["requests_per_second"] > 1
    assert {"opendir", "readdir"} <= {one["name"] for one in found["operations"]}
    (upload,) = found["uploads"]
    assert (upload["name"], upload["bytes"], upload["state"]) == ("growing", 1_000_000, "open")
    assert found["status"]["pending"] == 1_000_000
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("readdir") for line in lines)
    assert any("growing" in line and "977 KiB" in line for line in lines)


def test_top_as_lines(mount: Mount, environment: dict[str, str]) -> None:
    """E: with --json each interval is a line, until the mount ends."""
    command = natsfs_command("top", mount.directory, "--json", "--interval=100ms")
    with subprocess.Popen(
        command, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as looking:
        assert looking.stdout is not None
        assert looking.stderr is not None
        for _ in range(2):
            assert json.loads(looking.stdout.readline())["seconds"] >= 0.1
        mount.stop()
        looking.stdout.read()
        assert looking.wait(SETTLE) == 1
        assert b"has ended" in looking.stderr.read()


@pytest.mark.parametrize("columns", [80, 120])
def test_top_on_a_terminal(mount: Mount, environment: dict[str, str], columns: int) -> None:
    """E: the live view fills the screen, and Ctrl-C ends it in order."""
    ours, theirs = pty.openpty()
    env = {**environment, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"}
    with subprocess.Popen(
        natsfs_command("top", mount.directory, "--interval=100ms"),
        env=env,
        cwd="/",
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as looking:
        os.close(theirs)
        seen = b""
        while b"requests/s" not in seen:
            assert select.select([ours], [], [], SETTLE)[0], seen
            seen += os.read(ours, 65536)
        looking.send_signal(signal.SIGINT)
        while select.select([ours], [], [], SETTLE)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break
        assert looking.wait(SETTLE) == 0
    os.close(ours)
    assert b"Traceback" not in seen
    # It leaves the screen as it was.
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1


def test_top_refusals(natsfs: Natsfs, tmp_path: Path) -> None:
    """E: what cannot be looked at is one line."""
    for arguments, words in (
        ((tmp_path, "--once"), "no natsfs mount that answers"),
        ((tmp_path, "--once", "--interval=1ms"), "--interval must be"),
        ((tmp_path,), "needs a terminal"),
    ):
        result = natsfs("top", *arguments)
        assert (result.status, result.out, result.err.count("\n")) == (1, "", 1), result
        assert words in result.err
