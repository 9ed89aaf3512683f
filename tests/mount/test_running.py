"""A mount as a service: its log, the signals it obeys, and what it tells systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsfs.server import start_server

from .conftest import Mounter
from .foreign import py_client
from .mounting import Mount, natsfs_command, run, wait_until
from .system import System, new_system

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine of its own")


class Datagrams:
    """Takes what comes to a Unix socket."""

    def __init__(self, address: str) -> None:
        self.received: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        return [line for one in self.received for line in one.decode().split("\n")]

    def close(self) -> None:
        """An empty datagram ends it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _take(self) -> None:
        while data := self._socket.recv(256 * 1024):
            self.received.append(data)


# -- systemd --------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(
    mounter: Mounter, environment: dict[str, str], tmp_path: Path, abstract: bool
) -> None:
    """A service of Type=notify hears when the mount can be used, how it is, that it lives, and that
    it ends, in this order."""
    address = f"@mount8-{os.getpid()}" if abstract else str(tmp_path / "notify")
    heard = Datagrams("\0" + address[1:] if abstract else address)
    environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
    try:
        mount = mounter()
        (mount.directory / "file").write_bytes(b"bytes")
        wait_until(lambda: "STATUS=connected, 1 objects, all is stored" in heard.lines, "status")
        before = heard.lines.count("WATCHDOG=1")
        wait_until(lambda: heard.lines.count("WATCHDOG=1") > before + 2, "signs of life")
        mount.stop()
    finally:
        heard.close()
    lines = heard.lines
    assert lines.count("READY=1") == lines.count("STOPPING=1") == 1
    assert lines.index("READY=1") < lines.index("STOPPING=1")
    assert any(line.startswith("STATUS=ending") for line in lines[lines.index("STOPPING=1") :])
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in lines)


def test_watchdog_bites(mounter: Mounter, environment: dict[str, str], tmp_path: Path) -> None:
    """A mount whose loop stands still says nothing, so that the watchdog replaces it; here SIGSTOP
    stands for whatever stops it."""
    heard = Datagrams(str(tmp_path / "notify"))
    environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
    try:
        mount = mounter()
        wait_until(lambda: "READY=1" in heard.lines, "readiness")
        os.kill(mount.pid, signal.SIGSTOP)
        state = Path(f"/proc/{mount.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(") ")[2][0] == "T", "it stands still")
        silent = len(heard.received)
        with pytest.raises(pytest.fail.Exception):
            wait_until(lambda: len(heard.received) > silent + 1, "a sign of life", timeout=1)
        os.kill(mount.pid, signal.SIGCONT)
        wait_until(lambda: len(heard.received) > silent + 1, "a sign of life")
        mount.stop()
    finally:
        heard.close()


def test_units(tmp_path: Path, environment: dict[str, str]) -> None:
    """systemd understands the units that natsfs brings."""
    verify = run("command -v systemd-analyze")
    if verify.status != 0:
        pytest.skip("systemd-analyze is not installed; on Debian it is in the package systemd")
    example = ["install-helper", "--example"]
    names = run(natsfs_command("install-helper", "--list-examples"), env=environment).check()
    units = [name for name in names.split() if name != "fstab"]
    assert units == ["mnt-models.automount", "mnt-models.mount", "natsfs@.service"]
    for name in units:
        text = run(natsfs_command(*example, name), env=environment).check()
        (tmp_path / name).write_text(text.replace("=natsfs ", "=/bin/true "))
    system = [tmp_path / name for name in units[:2]]
    assert run(["systemd-analyze", "verify", *map(str, system)]).check() == ""
    user = ["systemd-analyze", "--user", "verify", str(tmp_path / units[2])]
    assert run(user, env=environment).check() == ""


# -- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
def test_hang_up(mounter: Mounter, tmp_path: Path, form: str) -> None:
    """SIGHUP opens the log file anew, as logrotate wants it."""
    log = tmp_path / "own.log"
    mount = mounter(f"--log-file={log}", f"--log-format={form}")
    log.rename(tmp_path / "own.log.1")
    os.kill(mount.pid, signal.SIGHUP)
    wait_until(lambda: log.exists() and "goes on here" in log.read_text(), "a new log")
    old = (tmp_path / "own.log.1").read_text()
    mount.stop()
    assert (tmp_path / "own.log.1").read_text() == old
    assert log.stat().st_mode & 0o777 == 0o600


def test_hang_up_in_the_background(
    nats_url: str, bucket: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """SIGHUP does so for a mount in the background, too, whose standard error is its log."""
    directory, log = tmp_path / "mnt", tmp_path / "own.log"
    directory.mkdir()

    def natsfs(*arguments: str | Path) -> str:
        return run(natsfs_command(*arguments), env=environment, cwd=Path("/")).check()

    natsfs("mount", f"{nats_url}/{bucket}", directory, "--log-file", log)
    try:
        (status,) = json.loads(natsfs("status", "--json", directory))
        log.rename(tmp_path / "own.log.1")
        os.kill(status["pid"], signal.SIGHUP)
        wait_until(lambda: log.exists() and "goes on here" in log.read_text(), "a new log")
    finally:
        natsfs("umount", directory)
    assert "goes on here" not in (tmp_path / "own.log.1").read_text()


def test_log_that_cannot_be_opened_again(mounter: Mounter, tmp_path: Path) -> None:
    """A log file that cannot be opened again leaves the mount with the old one, which says so."""
    place = tmp_path / "logs"
    place.mkdir()
    mount = mounter(f"--log-file={place / 'log'}")
    place.rename(tmp_path / "moved")
    os.kill(mount.pid, signal.SIGHUP)
    log = tmp_path / "moved" / "log"
    wait_until(lambda: "cannot be opened again" in log.read_text(), "a complaint")
    (mount.directory / "file").write_bytes(b"bytes")
    mount.stop()


def test_dump(mount: Mount) -> None:
    """SIGUSR1 logs the state: connection, open files, what waits, tasks; and nothing changes."""
    with open(mount.directory / "a file", "wb") as file:
        file.write(b"bytes")
        file.flush()
        os.kill(mount.pid, signal.SIGUSR1)
        wait_until(lambda: "state: task" in mount.log_text(), "a dump")
    wait_until(lambda: "kernel" in mount.log_text(), "all tasks")
    text = mount.log_text()
    assert f"state: {mount.source} on {mount.directory}, process {mount.pid}" in text
    assert "connected, 0 objects, 5 bytes to store" in text
    assert "1 open files in 1 handles" in text
    assert "state: open file 'a file': 5 bytes, 1 handles, 1 write, not stored" in text
    assert (mount.directory / "a file").read_bytes() == b"bytes"


# -- logs -----------------------------------------------------------------------------------------


def test_json(mounter: Mounter, tmp_path: Path, environment: dict[str, str]) -> None:
    """E: with --log-format json each problem is one JSON object with time, level, logger, message
    and the object that it is about."""
    server = start_server(tmp_path / "store")
    log = tmp_path / "own.log"
    try:
        client = py_client(server.url, environment).of("own")
        client.create()
        options = (f"--log-file={log}", "--log-format=json", "--timeout=2")
        mount = mounter(*options, source=f"{server.url}/own")
        server.kill()
        file = os.open(mount.directory / "a\u00e4\x1b b", os.O_CREAT | os.O_WRONLY)
        os.write(file, b"bytes")
        with pytest.raises(OSError, match="Input/output"):
            os.close(file)

        def about() -> list[dict[str, str]]:
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            return [line for line in lines if line.get("object") == "a\u00e4\x1b b"]

        wait_until(about, "a line about the object")
        server.restart()
        wait_until(lambda: client.names() == ["a\u00e4\x1b b"], "it is stored")
        mount.stop()
    finally:
        server.kill()
    assert log.read_text().isascii()
    line = about()[0]
    assert set(line) == {"time", "level", "logger", "message", "object"}
    assert (line["level"], line["logger"]) == ("error", "natsfs.filesystem.unsaved")
    assert "is not saved yet" in line["message"]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    place = tmp_path / "system"
    place.mkdir()
    with new_system(place) as system:
        system.run("/bin/mkdir", "-p", "/run/systemd/journal").check()
        yield system


def listening(system: System, tmp_path: Path, name: str) -> Datagrams:
    """What comes to this socket of the machine's own /run."""
    address = tmp_path / name
    heard = Datagrams(str(address))
    place = f"/run/systemd/journal/{name}"
    system.run("/bin/sh", "-c", f"touch {place} && mount --bind {address} {place}").check()
    return heard


@root_only
def test_journald(system: System, nats_url: str, bucket: str, tmp_path: Path) -> None:
    """--log-target=journald sends records with their fields to journald."""
    heard = listening(system, tmp_path, "socket")
    directory = tmp_path / "mnt"
    directory.mkdir()
    try:
        source = f"{nats_url}/{bucket}"
        system.natsfs("mount", source, directory, "--log-target=journald").check()
        (pid,) = system.pids()
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: any(b"state: task" in one for one in heard.received), "a dump")
        system.natsfs("umount", directory).check()
    finally:
        heard.close()
    fields = fields_of(next(one for one in heard.received if b"state: bucket" in one))
    assert fields["MESSAGE"].startswith(f"state: bucket {bucket}")
    assert fields["PRIORITY"] == "6"
    assert fields["SYSLOG_IDENTIFIER"] == "natsfs"
    assert fields["LOGGER"] == "natsfs.mount.signals"
    assert system.log_text() == ""


def fields_of(entry: bytes) -> dict[str, str]:
    """An entry of the native protocol whose fields all have a length."""
    fields = {}
    while entry:
        name, _, rest = entry.partition(b"\n")
        (length,) = struct.unpack_from("<Q", rest)
        fields[name.decode()] = rest[8 : 8 + length].decode()
        assert rest[8 + length : 9 + length] == b"\n"
        entry = rest[9 + length :]
    return fields


@root_only
@pytest.mark.skipif(Path("/dev/log").exists(), reason="this machine has a syslog of its own")
def test_syslog(system: System, nats_url: str, bucket: str, tmp_path: Path) -> None:
    """--log-target=syslog sends a line for each record to syslog."""
    heard = listening(system, tmp_path, "dev-log")
    directory = tmp_path / "mnt"
    directory.mkdir()
    try:
        source = f"{nats_url}/{bucket}"
        system.natsfs("mount", source, directory, "--log-target=syslog").check()
        (pid,) = system.pids()
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: any(b"state: task" in one for one in heard.received), "a dump")
        system.natsfs("umount", directory).check()
    finally:
        heard.close()
    line = next(one for one in heard.received if b"state: bucket" in one).rstrip(b"\0").decode()
    # 30 is the facility daemon, 3, with the level info, 6.
    assert line.startswith(f"<30>natsfs[{pid}]: INFO natsfs.mount.signals: state: bucket {bucket}")
    assert all(b"\n" not in one for one in heard.received)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--log-target=syslog", "--log-file=/x"], "exclude each other"),
        (["--log-target=stderr"], "for the foreground"),
        (["--log-target=file", "-f"], "needs --log-file"),
        (["-f", "--log-file=/nowhere/log"], "/nowhere/log: No such file or directory"),
        (["--log-file=/nowhere/log"], "/nowhere/log: No such file or directory"),
    ],
)
def test_wrong_targets(
    tmp_path: Path, environment: dict[str, str], options: list[str], said: str
) -> None:
    """A log that cannot be is refused in one line, before anything is mounted."""
    directory = tmp_path / "mnt"
    directory.mkdir()
    result = run(natsfs_command("mount", "bucket", directory, *options), env=environment)
    assert result.status in (1, 2)
    assert said in result.err
    assert len(result.err.splitlines()) == 1


def test_target_that_is_not_there(
    nats_url: str, bucket: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """A log target that nobody listens at is refused with what to do."""
    if Path("/run/systemd/journal/socket").exists():
        pytest.skip("this machine has a journald")
    directory = tmp_path / "mnt"
    directory.mkdir()
    for more in ([], ["-f"]):
        command = natsfs_command("mount", f"{nats_url}/{bucket}", directory, *more)
        result = run([*command, "--log-target=journald"], env=environment, cwd=Path("/"))
        assert result.status == 1
        assert "no journald listens on /run/systemd/journal/socket" in result.err
