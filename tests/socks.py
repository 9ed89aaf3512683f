"""A SOCKS5 proxy on loopback that counts what it was asked for."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import BinaryIO


class SocksProxy:
    """Connects to wherever it is asked, after a login if it has a *user*; all names are localhost.

    *said*, if it says something, is all that it answers.
    """

    def __init__(self, user: str = "", password: str = "", *, said: bytes = b"") -> None:
        self.asked: list[tuple[str, int]] = []
        self._login = (user, password)
        self._said = said
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> SocksProxy:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                self._start(self._serve, client)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, IndexError), client.makefile("rb") as stream:
            if self._said:
                client.recv(100)
                client.sendall(self._said)
                client.shutdown(socket.SHUT_WR)
            elif self._admits(client, stream):
                self._connect(client, stream)

    def _admits(self, client: socket.socket, stream: BinaryIO) -> bool:
        methods = stream.read(stream.read(2)[1])
        wanted = 2 if self._login[0] else 0
        client.sendall(bytes([5, wanted if wanted in methods else 0xFF]))
        if not wanted:
            return True
        given = tuple(stream.read(stream.read(1)[0]).decode() for _ in stream.read(1) + b"+")
        client.sendall(bytes([1, given != self._login]))
        return given == self._login

    def _connect(self, client: socket.socket, stream: BinaryIO) -> None:
        kind = stream.read(4)[3]
        host = stream.read(stream.read(1)[0]).decode() if kind == 3 else _ip(stream, kind)
        port = int.from_bytes(stream.read(2), "big")
        self.asked.append((host, port))
        try:
            server = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            client.sendall(b"\5\5\0\1" + bytes(6))
            return
        self._open.append(server)
        client.sendall(b"\5\0\0\3\4name\0\0")
        self._start(_hand_on, server, client)
        _hand_on(client, server)


def _ip(stream: BinaryIO, kind: int) -> str:
    return socket.inet_ntop(
        *((socket.AF_INET, stream.read(4)) if kind == 1 else (socket.AF_INET6, stream.read(16)))
    )


def _hand_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(256 * 1024):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
