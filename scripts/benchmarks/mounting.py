"""A FUSE daemon in the foreground as a child: started, waited for, ended, and never left behind.

A request that a FUSE daemon has read cannot be interrupted, not even by SIGKILL of the caller.  So
every mount has a life, after which a timer aborts its connection, which frees all that wait.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .race import Failed

#: Seconds until a mount has to be there, or gone.  A bucket of a million objects takes its time.
SETTLE = 300.0

#: Seconds after which a mount's connection is aborted.  No measurement may take that long.
LIFE = 3600.0

#: Seconds between two looks at what cannot be waited for.
POLL = 0.002


def wait_until(
    condition: Callable[[], object], what: str, timeout: float = SETTLE, every: float = POLL
) -> None:
    """Wait for *condition*, looking *every* so many seconds.  Errors: `Failed`, naming *what*."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {timeout:.0f} s: {what}")
        time.sleep(every)


class Daemon:
    """A child process with a log; given time to end in order, then killed with its children."""

    def __init__(
        self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self._name = argv[0]
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                argv,
                env=dict(env) if env is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the benchmark, which unmounts first
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def running(self) -> bool:
        """Whether it has not ended.  Errors: `Failed` with its last words when it has."""
        if self._process.poll() is None:
            return True
        words = " | ".join(self.log.read_text(errors="replace").splitlines()[-5:])
        raise Failed(f"{self._name} ended with {self._process.returncode}: {words}")

    def wait(self, timeout: float) -> None:
        """Wait for its end.  Errors: `subprocess.TimeoutExpired`."""
        self._process.wait(timeout)

    def end(self) -> None:
        """Ask it to end; after 10 s, kill its session."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Mount:
    """A daemon that mounts *directory*."""

    def __init__(
        self, argv: Sequence[str], directory: Path, log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the daemon, which must be `kill`ed whatever happens."""
        self.directory = directory
        self._daemon = Daemon(argv, log, env)
        self._device = ""
        self._timer = threading.Timer(LIFE, self.abort)
        self._timer.daemon = True

    def wait(self) -> None:
        """Wait for the mount.  Errors: `Failed`."""
        what = f"mount of {self.directory}"
        wait_until(lambda: self._daemon.running() and self._mounted(), what)
        self._timer.start()

    @property
    def pid(self) -> int:
        """The daemon's process number."""
        return self._daemon.pid

    def unmount(self) -> None:
        """Unmount and wait for the daemon's end.  Errors: `Failed`; the mount is gone anyway."""
        try:
            wait_until(self._unmounted, f"umount of {self.directory}", 60)
            self._daemon.wait(SETTLE)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self._daemon.log.stem} does not end after umount") from error
        finally:
            self.kill()

    def kill(self) -> None:
        """Take away what is left of it, at any time and any number of times."""
        self._timer.cancel()
        if self._mounted():
            self.abort()
            subprocess.run(_umount(self.directory, lazy=True), check=False, timeout=60)
        self._daemon.end()

    def abort(self) -> None:
        """Cut the FUSE connection: whatever waits for the daemon gets ENOTCONN."""
        connection = Path("/sys/fs/fuse/connections") / self._device.partition(":")[2] / "abort"
        if self._device and connection.exists():
            connection.write_text("1")

    def _mounted(self) -> bool:
        self._device = mounted_device(self.directory)
        return bool(self._device)

    def _unmounted(self) -> bool:
        """A process that a program left behind may keep the mount busy for a moment."""
        command = _umount(self.directory, lazy=False)
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0


def cpu(pid: int) -> float:
    """Seconds that the processors have spent for a daemon and its children."""
    ticks = sum(int(fields[11]) + int(fields[12]) for _, fields in _session(pid))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int, key: str) -> int:
    """Bytes of a daemon and its children: VmRSS (now) or VmHWM (the most ever)."""
    found = 0
    for member, _ in _session(pid):
        status = Path(f"/proc/{member}/status").read_text()
        line = re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)
        found += int(line[1]) * 1024 if line else 0
    return found


def _session(pid: int) -> Iterator[tuple[int, list[str]]]:
    """The processes in the session that *pid* leads, with the fields of stat from the state on."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == pid:
                yield int(stat.parent.name), fields


def mounted_device(directory: Path) -> str:
    """The `major:minor` of what is mounted on *directory*, empty if nothing is.

    From the kernel's list, for asking the file system itself may hang.
    """
    found = re.findall(
        rf"^\d+ \d+ (\d+:\d+) \S+ {re.escape(str(directory))} ",
        Path("/proc/self/mountinfo").read_text(),
        re.MULTILINE,
    )
    return found[-1] if found else ""


def _umount(directory: Path, *, lazy: bool) -> list[str]:
    if os.geteuid() == 0:
        return ["umount", *(["-l"] if lazy else []), str(directory)]
    return ["fusermount3", "-uz" if lazy else "-u", str(directory)]
