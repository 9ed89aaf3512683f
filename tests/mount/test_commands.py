"""`natsfs mount` in the background, `umount`, `status` and `ls`, as a shell sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from natsfs.server import start_server
from tests.contract.linked import freeze

from .mounting import SETTLE, Result, mounted_device, natsfs_command, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]


class Shell:
    """Runs natsfs commands and knows what they left mounted on *directory*."""

    def __init__(self, source: str, directory: Path, env: dict[str, str]) -> None:
        self.source = source
        self.directory = directory
        self.env = env
        self.pids: list[int] = []

    def natsfs(self, *arguments: str | Path) -> Result:
        return run(natsfs_command(*arguments), env=self.env, cwd=Path("/"), timeout=60)

    def mount(self, *options: str, source: str = "") -> int:
        """Mount in the background; the process number of the daemon."""
        self.natsfs("mount", source or self.source, self.directory, *options).check()
        pid: int = self.status()["pid"]
        self.pids.append(pid)
        return pid

    def status(self) -> dict[str, Any]:
        found = json.loads(self.natsfs("status", "--json", self.directory).check())
        assert len(found) == 1
        mine: dict[str, Any] = found[0]
        return mine

    def clean_up(self) -> None:
        if mounted_device(self.directory):
            self.natsfs("umount", "--lazy", self.directory)
        for pid in filter(is_running, self.pids):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def shell(
    nats_url: str, bucket: str, tmp_path: Path, environment: dict[str, str]
) -> Iterator[Shell]:
    directory = tmp_path / "a mount"
    directory.mkdir()
    shell = Shell(f"{nats_url}/{bucket}", directory, environment)
    yield shell
    shell.clean_up()


def is_running(pid: int) -> bool:
    """Whether *pid* runs and is not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_background(shell: Shell, bucket: str) -> None:
    """The command returns when the mount works; umount returns when its process has ended."""
    pid = shell.mount()
    (shell.directory / "f").write_bytes(b"x")
    status = shell.status()
    assert (status["bucket"], status["directory"]) == (bucket, str(shell.directory))
    assert (status["connection"], status["objects"], status["pending"]) == ("connected", 1, 0)
    assert shell.natsfs("umount", shell.directory) == Result(0, "", "")
    assert not is_running(pid)
    assert mounted_device(shell.directory) is None
    assert list(Path(shell.env["XDG_RUNTIME_DIR"], "natsfs").iterdir()) == []


def test_status_table(shell: Shell) -> None:
    """The table has a line for each mount of the host."""
    pid = shell.mount("--read-only")
    lines = shell.natsfs("status").check().splitlines()
    mine = next(line for line in lines if str(shell.directory) in line)
    assert str(pid) in mine.split()
    assert "connected, read-only" in mine
    assert shell.source in mine


def test_ls_of_a_mounted_directory(shell: Shell) -> None:
    """`natsfs ls` in a mount asks the server of that mount, below that directory."""
    shell.mount()
    (shell.directory / "d").mkdir()
    (shell.directory / "d" / "f").write_bytes(b"x")
    (shell.directory / "g").write_bytes(b"y")
    found = json.loads(shell.natsfs("ls", shell.directory, "--json").check())
    assert [info["name"] for info in found] == ["d/", "d/f", "g"]
    below = shell.natsfs("ls", shell.directory / "d").check().splitlines()
    assert [line.split()[-1] for line in below] == ["d/", "d/f"]
    nothing = shell.natsfs("ls", f"{shell.source}/nothing")
    assert (nothing.status, nothing.out) == (1, "")
    assert nothing.err.endswith(" has nothing at or below 'nothing'\n")


def test_nothing_to_mount(shell: Shell) -> None:
    """Who does not say what to mount is told how."""
    said = shell.natsfs("mount")
    assert (said.status, said.err.count("\n")) == (1, 1)
    assert "`natsfs mount SOURCE DIRECTORY` mounts a bucket" in said.err


def test_busy(shell: Shell) -> None:
    """A mount in use stays, and the message names who uses it; --lazy detaches it all the same."""
    pid = shell.mount()
    with subprocess.Popen(["sleep", "60"], cwd=shell.directory) as user:
        try:
            result = shell.natsfs("umount", shell.directory)
            assert (result.status, result.out, result.err.count("\n")) == (32, "", 1)
            assert f"sleep (process {user.pid})" in result.err
            assert mounted_device(shell.directory) is not None
            assert shell.natsfs("umount", "--lazy", shell.directory) == Result(0, "", "")
            assert mounted_device(shell.directory) is None
        finally:
            user.kill()
    wait_until(lambda: not is_running(pid), "the end of the daemon")


def test_dead_daemon(shell: Shell) -> None:
    """A mount whose process was killed is shown as such and cleared away by umount."""
    pid = shell.mount()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the end of the daemon")
    assert "pid" not in shell.status()
    assert shell.natsfs("umount", shell.directory) == Result(0, "", "")
    assert mounted_device(shell.directory) is None
    shell.mount()
    assert shell.natsfs("umount", shell.directory) == Result(0, "", "")


def test_umount_saves_first(shell: Shell) -> None:
    """W1: what was written before umount is there after the next mount."""
    shell.mount()
    (shell.directory / "big").write_bytes(b"z" * 5_000_000)
    assert shell.natsfs("umount", shell.directory).status == 0
    shell.mount()
    assert (shell.directory / "big").read_bytes() == b"z" * 5_000_000


def test_sigterm_unmounts(shell: Shell) -> None:
    """SIGTERM ends the mount as umount does."""
    pid = shell.mount()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_running(pid), "the end of the daemon")
    assert mounted_device(shell.directory) is None


def test_credentials_are_shown_nowhere(shell: Shell, tmp_path: Path) -> None:
    """A password in SOURCE is in no process list, mount table, status or log."""
    users = 'authorization { users: [{user: "u", password: "s3cr3t"}] }'
    server = start_server(tmp_path / "auth", extra_config=users)
    try:
        source = server.url.replace("://", "://u:s3cr3t@") + "/private"
        pid = shell.mount("--create", "--verbose", source=source)
        shown = [
            Path(f"/proc/{pid}/cmdline").read_text(),
            Path("/proc/self/mountinfo").read_text(),
            json.dumps(shell.status()),
            *(log.read_text() for log in Path(shell.env["XDG_STATE_HOME"]).rglob("*.log")),
        ]
        assert len(shown) == 4
        assert [text for text in shown if "s3cr3t" in text] == []
        assert shell.natsfs("umount", shell.directory).status == 0
    finally:
        server.stop()


def test_embedded(shell: Shell) -> None:
    """`--embedded` needs no server: it is started for the mount and stopped with it."""
    shell.mount("--embedded", "--create", source="demo")
    (shell.directory / "f").write_bytes(b"x")
    assert shell.status()["source"] == "embedded:demo"
    listed = json.loads(shell.natsfs("bucket", "list", "--embedded", "--json").check())
    assert [status["bucket"] for status in listed] == ["demo"]
    assert len(servers_of(shell)) == 1
    assert shell.natsfs("umount", shell.directory).status == 0
    assert servers_of(shell) == []
    assert json.loads(shell.natsfs("ls", "demo", "--embedded", "--json").check())[0]["name"] == "f"
    assert servers_of(shell) == []


def servers_of(shell: Shell) -> list[str]:
    """The nats-servers whose store is the test's own."""
    found = run(["pgrep", "-f", f"nats-server.*{shell.env['XDG_DATA_HOME']}"])
    return found.out.split()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_mount(shell: Shell, tmp_path: Path, number: signal.Signals) -> None:
    """A command that is interrupted while it waits leaves no mount and no process."""
    # A server that is stopped accepts connections and says nothing.
    server = start_server(tmp_path / "stopped")
    freeze(server)
    try:
        command = natsfs_command("mount", f"{server.url}/b", shell.directory, "--timeout=60")
        with subprocess.Popen(command, env=shell.env, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: len(processes(shell)) == 2, "the daemon")
            process.send_signal(number)
            process.wait(SETTLE)
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.stop()
    assert process.returncode == 128 + number
    assert processes(shell) == []
    assert mounted_device(shell.directory) is None


def processes(shell: Shell) -> list[str]:
    """The processes that were asked to mount the directory."""
    return run(["pgrep", "-f", f"natsfs mount .*{shell.directory}"]).out.split()
