"""The control socket of a mount: where it lies, what is said on it, who may listen.

Each mount listens on a Unix socket of its own, named after a hash of the mount directory, in a
directory that only its user may enter.  A request is one line of JSON, `{"call": NAME, "args":
{…}}`; the answer is one line, `{"result": …}` or `{"error": TEXT}`.  A connection serves any number
of requests, one after the other.

The server side is trio, the client side is blocking: it serves commands that have nothing else to
do meanwhile.

Concurrency: connections are independent tasks; the requests of one are served in order.  A handler
runs in the mount's own loop, so what it does between two awaits is atomic there.
"""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict

import trio

from natsfs.config import ServerConfig
from natsfs.errors import MountFailed, NatsfsError, RequestTimeout, UsageError

log = logging.getLogger(__name__)

JSON = Any
Handler = Callable[..., Awaitable[JSON]]

#: Bytes; a request names a call and a few words, so 64 KiB is ample and bounds what a client can
#: make the mount hold.
MAX_REQUEST = 64 * 1024

#: Bytes; what a client takes as an answer before it gives up on it.
MAX_ANSWER = 16 * 1024 * 1024

#: A command holds one connection or two; more than this is a mistake, and is turned away.
MAX_CONNECTIONS = 16

#: Seconds until a listener that got no descriptor for a client tries again.
ACCEPT_PAUSE = 1.0

#: Seconds; an answer comes out of memory, so only a mount in trouble takes this long.
ANSWER_TIMEOUT = 5.0

#: The fields of `ServerConfig` that name files.
SERVER_FILES = ("creds", "nkey", "tls_ca", "tls_cert", "tls_key")

_CREDENTIALS = struct.Struct("3i")


class MalformedEntry(TypedDict):
    """An object that is not shown, and why."""

    name: str
    reason: str


class ServerStatus(TypedDict):
    """How a mount reaches its server, without anything secret: *files* names credentials and
    certificates by the fields of `ServerConfig`."""

    urls: list[str]
    files: dict[str, str]
    tls_first: bool


class MountStatus(TypedDict, total=False):
    """The answer to the call `status`, which every mount gives.

    *bucket* is empty for a mount of all; *buckets* are then those in use, to which all numbers
    refer.  *uptime* is in seconds; *connection* is one word, "connected" or what else it is;
    *pending* is the number of bytes that programs wrote and JetStream has not acknowledged, *left*
    what mounts that died have left and `natsfs recover` is to decide on.
    """

    source: str
    directory: str
    bucket: str
    buckets: list[str]
    pid: int
    uptime: float
    connection: str
    read_only: bool
    objects: int
    pending: int
    left: LeftBehind
    malformed: list[MalformedEntry]
    server: ServerStatus


class LeftBehind(TypedDict):
    """Files in a journal, and the bytes of these."""

    files: int
    bytes: int


def server_status(server: ServerConfig) -> ServerStatus:
    """What others may know of *server*."""
    named = {name: getattr(server, name) for name in SERVER_FILES}
    files = {name: str(path) for name, path in named.items() if path is not None}
    return ServerStatus(urls=list(server.urls), files=files, tls_first=server.tls_first)


def socket_path(directory: Path, mount_point: Path) -> Path:
    """Where the mount on *mount_point*, an absolute path, listens within *directory*."""
    digest = hashlib.sha256(os.fsencode(mount_point)).hexdigest()
    return directory / f"{digest[:16]}.sock"


# -- the mount's side -----------------------------------------------------------------------------


async def serve_control(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests on the socket *path* until cancelled; the socket file goes with the server.

    The handler of a call gets the request's arguments by keyword and returns what JSON can hold.  A
    `NatsfsError` from it becomes the error text of the answer; any other exception is logged and
    answered as an internal error, and the mount lives on.

    *task_status* reports started when clients can connect.  Keep the server running until nothing
    else is left to do: `natsfs umount` shows from its answers how far a mount has come.

    Errors: `MountFailed` (another mount answers on *path*), `UsageError` (the directory cannot be
    used).
    """
    listener, inode = _listen(path)
    task_status.started()
    try:
        async with trio.open_nursery() as nursery:
            await _accept(listener, handlers, nursery)
    finally:
        listener.close()
        _remove(path, inode)


async def _accept(
    listener: trio.socket.SocketType, handlers: Mapping[str, Handler], nursery: trio.Nursery
) -> None:
    refused = False
    while True:
        try:
            client, _ = await listener.accept()
        except OSError as error:
            # Descriptors or memory are short, or the client has gone: no reason to end the mount.
            level = logging.DEBUG if refused else logging.WARNING
            log.log(level, "control: connections cannot be accepted now: %s", error)
            refused = True
            await trio.sleep(ACCEPT_PAUSE)
            continue
        refused = False
        if len(nursery.child_tasks) < MAX_CONNECTIONS:
            nursery.start_soon(_converse, trio.SocketStream(client), handlers)
        else:
            log.warning("control: more than %d connections, one closed", MAX_CONNECTIONS)
            client.close()


async def _converse(stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
    """Serve one client until it hangs up, sends an endless line, or stops reading."""
    async with stream:
        with suppress(trio.BrokenResourceError):
            async for line in _lines(stream):
                answer = await _answer(line, handlers)
                with trio.move_on_after(ANSWER_TIMEOUT) as sending:
                    await stream.send_all(answer)
                if sending.cancelled_caught:
                    return


async def _lines(stream: trio.SocketStream) -> AsyncGenerator[bytes, None]:
    received = bytearray()
    async for data in stream:
        received += data
        *lines, rest = bytes(received).split(b"\n")
        received = bytearray(rest)
        for line in lines:
            yield line
        if len(received) > MAX_REQUEST:
            log.warning("control: a request of more than %d bytes", MAX_REQUEST)
            return


async def _answer(line: bytes, handlers: Mapping[str, Handler]) -> bytes:
    """The answer to one request line; every error ends up in it."""
    answer: dict[str, JSON]
    try:
        answer = {"result": await _dispatch(line, handlers)}
        return json.dumps(answer).encode() + b"\n"
    except NatsfsError as exc:
        answer = {"error": str(exc)}
    except Exception:
        log.exception("control: request %r failed", line[:200])
        answer = {"error": "internal error; the mount's log has the details"}
    return json.dumps(answer).encode() + b"\n"


async def _dispatch(line: bytes, handlers: Mapping[str, Handler]) -> JSON:
    try:
        request = json.loads(line)
        call, args = request["call"], request.get("args", {})
        handler = handlers[call]
        inspect.signature(handler).bind(**args)
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise UsageError(f"not a request: {exc}") from None
    except KeyError as exc:
        raise UsageError(f"this mount does not know the call {exc}") from None
    return await handler(**args)


def _listen(path: Path) -> tuple[trio.socket.SocketType, int]:
    """A listening socket at *path*, and the inode of its file.

    It gets its name last: `list_mounts` takes a socket that refuses connections for a dead one.
    """
    _claim_directory(path.parent)
    with suppress(ConnectionError, FileNotFoundError), Client(path):
        raise MountFailed(f"another natsfs answers on {path}; `natsfs status` shows it")
    unready = path.with_suffix(f".{os.getpid()}")
    unready.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _short(unready) as address:
            listener.bind(address)
        unready.chmod(0o600)
        listener.listen()
        unready.rename(path)
        return trio.socket.from_stdlib_socket(listener), path.stat().st_ino
    except OSError as exc:
        listener.close()
        raise UsageError(f"cannot listen on {path}: {exc.strerror}") from exc


def _claim_directory(directory: Path) -> None:
    """Make sure that nobody else can enter *directory*: the sockets in it command mounts."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
        owners = {found.st_uid, directory.lstat().st_uid}
    except OSError as exc:
        raise UsageError(f"cannot use {directory} for control sockets: {exc.strerror}") from exc
    if owners != {os.geteuid()}:
        raise UsageError(f"{directory}, the place of control sockets, belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        if not all(entry.is_socket() for entry in directory.iterdir()):
            # Closing it could lock others out of what is theirs.
            raise UsageError(
                f"{directory}, the place of control sockets, is open to others and holds more than "
                f"sockets; name another, or `chmod 700 {directory}`"
            )
        directory.chmod(0o700)


def _remove(path: Path, inode: int) -> None:
    """Remove the socket file unless another mount has put its own there."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()


# -- the commands' side ---------------------------------------------------------------------------


class Client:
    """A connection to the control socket of one mount; a context manager.

    Errors of the constructor: `ConnectionRefusedError` (the socket is dead), `FileNotFoundError`,
    `PermissionError` (another user listens), other `OSError`.
    """

    def __init__(self, path: Path, timeout: float = ANSWER_TIMEOUT) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(timeout)
            with _short(path) as address:
                self._socket.connect(address)
            self._check_peer()
        except BaseException:
            self._socket.close()
            raise

    @property
    def pid(self) -> int:
        """The process that listens, as the kernel knows it; 0 if it is in a foreign namespace."""
        return self._peer[0]

    def _check_peer(self) -> None:
        """Commands take a mount's word for which server to log in to."""
        if self._peer[1] not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "another user listens there", str(self.path))

    @property
    def _peer(self) -> tuple[int, int, int]:
        """The process, user and group that listen."""
        found = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(found)
        return pid, uid, gid

    def ask(self, call: str, **args: JSON) -> JSON:
        """The result of *call*.

        Errors: `RequestTimeout` (no answer within the client's time-out, seconds), `NatsfsError`
        (the mount answered with an error), `ConnectionError` (it ended meanwhile).
        """
        try:
            self._socket.sendall(json.dumps({"call": call, "args": args}).encode() + b"\n")
            answer = json.loads(self._line())
        except TimeoutError:
            raise RequestTimeout(
                f"the mount behind {self.path} did not answer within "
                f"{self._socket.gettimeout():g} s; its log may say why"
            ) from None
        if "error" in answer:
            raise NatsfsError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _line(self) -> bytes:
        received = bytearray()
        while not received.endswith(b"\n"):
            data = self._socket.recv(64 * 1024)
            if not data or len(received) > MAX_ANSWER:
                raise ConnectionResetError(f"the mount behind {self.path} hung up")
            received += data
        return bytes(received)


def ask(path: Path, call: str, *, timeout: float = ANSWER_TIMEOUT, **args: JSON) -> JSON:
    """One request on a connection of its own.  Errors: those of `Client` and `Client.ask`."""
    with Client(path, timeout) as client:
        return client.ask(call, **args)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one mount said to `status`, or in *trouble* why it said nothing."""

    path: Path
    status: MountStatus | None
    trouble: str = ""


def list_mounts(directory: Path) -> list[Answer]:
    """Ask every mount of this user for its status, in the order of their sockets.

    Sockets that nobody listens on any more are removed; a mount that does not answer is reported.
    """
    answers = (_status(path) for path in sorted(directory.glob("*.sock")))
    return [answer for answer in answers if answer is not None]


def _status(path: Path) -> Answer | None:
    try:
        return Answer(path, ask(path, "status"))
    except FileNotFoundError:
        return None
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return None
    except (NatsfsError, OSError) as exc:
        return Answer(path, None, str(exc))


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """*path* in a form that fits into a socket address, which holds 107 bytes (unix(7))."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
