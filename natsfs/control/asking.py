"""The commands' side, blocking: it serves commands that have nothing else to do meanwhile."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from natsfs.control.values import JSON, MountStatus, short_address
from natsfs.errors import NatsfsError, RequestTimeout

#: Bytes; what a client takes as an answer before it gives up on it.
MAX_ANSWER = 16 * 1024 * 1024

#: Seconds; an answer comes out of memory, so only a mount in trouble takes this long.
ANSWER_TIMEOUT = 5.0

_CREDENTIALS = struct.Struct("3i")


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
            with short_address(path) as address:
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
