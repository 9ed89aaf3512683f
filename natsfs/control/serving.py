"""The mount's side: it answers requests on its socket.

Concurrency: connections are independent tasks; the requests of one are served in order.  A handler
runs in the mount's own loop, so what it does between two awaits is atomic there.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import trio

from natsfs.control.asking import ANSWER_TIMEOUT, Client
from natsfs.control.values import JSON, short_address
from natsfs.errors import MountFailed, NatsfsError, UsageError

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[JSON]]

#: Bytes; a request names a call and a few words, so 64 KiB is ample and bounds what a client can
#: make the mount hold.
MAX_REQUEST = 64 * 1024

#: A command holds one connection or two; more than this is a mistake, and is turned away.
MAX_CONNECTIONS = 16

#: Seconds until a listener that got no descriptor for a client tries again.
ACCEPT_PAUSE = 1.0


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
        with short_address(unready) as address:
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
