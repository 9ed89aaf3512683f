"""A mount as a test sees it: a child process, a directory, a log, and a way out of every hang.

The only module that knows how `natsfs` is called, how one sees that it is mounted, and how a mount
that does not answer is taken down.  The test's own process is never the daemon: a process that
waits for a file system it serves itself waits for ever (design.md, concurrency rule 5).

A request that the daemon has read can be interrupted by nothing, not even SIGKILL of the caller.
So every mount has a life: a timer that aborts its FUSE connection, which frees all that wait.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest

import natsfs

#: The directory that `python -m natsfs` must find the package in.
PACKAGE_ROOT = Path(next(iter(natsfs.__path__))).parent

#: Seconds until a mount has to be there, or gone: the 5 s of the first connection and some for a
#: machine that runs other tests as well.
SETTLE = 30.0

#: Seconds that one command may take where the test does not say otherwise.
COMMAND_TIMEOUT = 120.0

#: Seconds after which a mount's connection is aborted where the test does not say otherwise.
LIFE = 240.0

#: Lines of a log that no healthy run has.
TROUBLE = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^Traceback|never awaited|ResourceWarning")


@dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    out: str
    err: str

    def check(self) -> str:
        """The command's standard output; fails the test if its exit status is not 0."""
        assert self.status == 0, f"exit status {self.status}\n{self.out}\n{self.err}"
        return self.out


def wait_until(condition: Callable[[], object], what: str, timeout: float = SETTLE) -> None:
    """Wait for *condition*; fails the test, naming *what*, when it does not come in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.01)


def refused(call: Callable[[], object]) -> str:
    """The name of the errno that *call* fails with."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  (the errno is returned)
        call()
    assert caught.value.errno is not None
    return errno.errorcode[caught.value.errno]


def shows(mount: Mount, path: Path, body: bytes) -> bool:
    """Whether the file at *path* has these bytes by now.

    A foreign client purges what it replaces at once, so a reader may still meet ESTALE (R1), which
    the log of *mount* then tells.
    """
    mount.expect_trouble("WARNING.*was purged")
    try:
        return path.read_bytes() == body
    except OSError as error:
        if error.errno not in (errno.ESTALE, errno.ENOENT):
            raise
        return False


def run(
    command: Sequence[str | os.PathLike[str]] | str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = COMMAND_TIMEOUT,
) -> Result:
    """Run a command, or a line of sh, to its end; fails the test when it takes longer than
    *timeout* seconds, after aborting every mount so that the command can end."""
    done = run_bytes(command, cwd=cwd, env=env, stdin=stdin, timeout=timeout)
    return Result(done.returncode, *(_text(stream) for stream in (done.stdout, done.stderr)))


def run_bytes(
    command: Sequence[str | os.PathLike[str]] | str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = COMMAND_TIMEOUT,
) -> subprocess.CompletedProcess[bytes]:
    """As `run`, with the output as it came."""
    argv = ["sh", "-c", command] if isinstance(command, str) else command
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, cwd=cwd, env=env, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            for mount in list(Mount.alive):
                mount.abort()
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"hangs after {timeout:.0f} s: {command}\n{_text(out)}\n{_text(err)}")
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def private_environment(directory: Path) -> dict[str, str]:
    """An environment in which natsfs and all other programs keep their files under *directory*."""
    kept = {
        key: os.environ[key] for key in ("PATH", "TMPDIR", "LD_LIBRARY_PATH") if key in os.environ
    }
    home = directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    xdg = {
        f"XDG_{kind}_HOME": str(directory / kind.lower())
        for kind in ("CACHE", "CONFIG", "DATA", "STATE")
    }
    runtime = directory / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    return {
        **kept,
        **xdg,
        "XDG_RUNTIME_DIR": str(runtime),
        "HOME": str(home),
        "PYTHONPATH": str(PACKAGE_ROOT),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def natsfs_command(*arguments: str | os.PathLike[str]) -> list[str]:
    """The argv of a natsfs command."""
    return [sys.executable, "-m", "natsfs", *map(str, arguments)]


def mounted_device(directory: Path) -> str | None:
    """The `major:minor` of the file system mounted on *directory*, None if there is none.

    From the kernel's list, for asking the file system itself may hang.
    """
    shown = re.escape(str(directory)).replace(r"\ ", r"\\040")
    found = re.findall(
        rf"^\d+ \d+ (\d+:\d+) \S+ {shown} ", Path("/proc/self/mountinfo").read_text(), re.MULTILINE
    )
    return found[-1] if found else None


class Mount:
    """`natsfs mount -f` in a child process; a context manager that unmounts.

    *patience* is how many seconds it may take to be there, and to end.

    Leaving it fails the test when the daemon does not end with status 0 or when its log has a line
    of trouble that `expect_trouble` did not announce.
    """

    #: Those that are mounted now.
    alive: list[Mount] = []  # noqa: RUF012  (shared on purpose)

    def __init__(
        self,
        source: str,
        directory: Path,
        *options: str,
        env: Mapping[str, str],
        log: Path,
        life: float = LIFE,
        patience: float = SETTLE,
        inside: Sequence[str] = (),
    ) -> None:
        self.source = source
        self.directory = directory
        self.log = log
        self._options = options
        self._patience = patience
        #: What starts the daemon somewhere else, as on a host of its own.
        self._inside = inside
        self._env = env
        self._expected: list[str] = []
        self._timer = threading.Timer(life, self.abort)
        self._device = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The daemon's process number."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Mount:
        """Start the daemon and wait until the directory is mounted."""
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [
                    *self._inside,
                    *natsfs_command("mount", self.source, self.directory, "-f", *self._options),
                ],
                env=dict(self._env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        Mount.alive.append(self)
        try:
            wait_until(self._settled, f"mount of {self.source}", self._patience)
        except BaseException as error:
            error.add_note(f"log of the mount:\n{self.log_text()}")
            self._give_up()
            raise
        self._timer.daemon = True
        self._timer.start()
        return self

    def stop(self) -> None:
        """Unmount by path, wait for the daemon, judge its status and log."""
        assert self._process is not None
        try:
            self._unmount()
        except (Exception, pytest.fail.Exception) as error:
            self._give_up()
            pytest.fail(f"unmounting {self.directory}: {error}\n{self.log_text()}")
        self.ended(self._patience)

    def wait(self, timeout: float) -> int:
        """The status that the daemon ends with.  Errors: `subprocess.TimeoutExpired`."""
        assert self._process is not None
        return self._process.wait(timeout)

    def ended(self, timeout: float) -> None:
        """After somebody has unmounted: wait *timeout* seconds at most for the daemon, judge its
        status and log."""
        assert self._process is not None
        self._timer.cancel()
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self._give_up()
            pytest.fail(f"unmounting {self.directory}: {error}\n{self.log_text()}")
        Mount.alive.remove(self)
        assert status == 0, f"the daemon ended with {status}\n{self.log_text()}"
        assert not self.trouble(), self.log_text()

    def remount(self) -> None:
        """Stop, and start a new daemon with the same cache; the old one's log is judged first."""
        self.stop()
        self._timer = threading.Timer(self._timer.interval, self.abort)
        self.start()

    def kill(self) -> None:
        """End the daemon as a crash would, and free its directory."""
        self._timer.cancel()
        self._give_up()

    def abort(self) -> None:
        """Cut the FUSE connection: whatever waits for the daemon gets ENOTCONN.

        Only while it is mounted: the kernel gives the number of a connection that is gone to the
        next one, which may be another test's.
        """
        minor = self._device.partition(":")[2]
        connection = Path("/sys/fs/fuse/connections") / minor / "abort"
        if minor and mounted_device(self.directory) == self._device and connection.exists():
            connection.write_text("1")

    def expect_trouble(self, pattern: str) -> None:
        """Lines of the log that match *pattern* are part of the test."""
        self._expected.append(pattern)

    def log_text(self) -> str:
        """What the daemon has logged so far."""
        return self.log.read_text(errors="replace")

    def trouble(self) -> list[str]:
        """The lines of the log that announce trouble and were not expected."""
        return [
            line
            for line in self.log_text().splitlines()
            if TROUBLE.search(line) and not any(re.search(known, line) for known in self._expected)
        ]

    def peak_memory(self) -> int:
        """The most resident memory that the daemon ever had, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def __enter__(self) -> Mount:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self in Mount.alive:
            self.stop()

    def _settled(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"the daemon ended with {self._process.returncode}\n{self.log_text()}")
        self._device = mounted_device(self.directory) or ""
        return bool(self._device)

    def _unmount(self) -> None:
        """A process that a program left behind may keep the mount busy for a moment."""
        command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
        wait_until(
            lambda: run([*command, self.directory], timeout=SETTLE).status == 0,
            f"{command[0]} of {self.directory}",
        )

    def _give_up(self) -> None:
        assert self._process is not None
        self.abort()
        self._process.kill()
        self._process.wait()
        if mounted_device(self.directory):
            lazily = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
            subprocess.run([*lazily, self.directory], check=False, timeout=SETTLE)
        if self in Mount.alive:
            Mount.alive.remove(self)


def _text(stream: bytes) -> str:
    return stream.decode(errors="replace")
