"""A TCP proxy that understands NATS frames well enough to lose chosen ones."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

#: Whether a frame (its line and its payload) is to be lost.
Choice = Callable[[bytes], bool]


def nothing(frame: bytes) -> bool:
    return False


class Proxy:
    """Sits between clients and a server on loopback.

    *lose_up* and *lose_down* may be set at any time; `cut` ends all connections.
    """

    def __init__(self, port: int) -> None:
        self.lose_up: Choice = nothing
        self.lose_down: Choice = nothing
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._address[1]}"

    def cut(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything and wait for it.  Closing twice is fine."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            pumps = [
                threading.Thread(target=self._pump, args=(near, far, True)),
                threading.Thread(target=self._pump, args=(far, near, False)),
            ]
            with self._lock:
                self._open += [near, far]
                self._threads += pumps
            for pump in pumps:
                pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with source, suppress(OSError, ValueError):
            with source.makefile("rb") as stream:
                while frame := _frame(stream):
                    if not (self.lose_up if up else self.lose_down)(frame):
                        sink.sendall(frame)
            sink.shutdown(socket.SHUT_RDWR)


def _frame(stream: BinaryIO) -> bytes:
    line = stream.readline()
    if line.split(b" ", 1)[0] in (b"PUB", b"HPUB", b"MSG", b"HMSG"):
        return line + stream.read(int(line.split()[-1]) + 2)
    return line


class Once:
    """Loses the first frame of which *choice* is true."""

    def __init__(self, choice: Choice) -> None:
        self.done = threading.Event()
        self._choice = choice

    def __call__(self, frame: bytes) -> bool:
        if self.done.is_set() or not self._choice(frame):
            return False
        self.done.set()
        return True
