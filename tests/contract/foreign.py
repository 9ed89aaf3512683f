"""A foreign client: what it does to a bucket owes nothing to the code under test."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any, Protocol

from natsfs.store.memory import MemoryManager
from natsfs.store.memory_stream import Publish


class Foreign(Protocol):
    """Another client of the same server."""

    async def publish(
        self, bucket: str, subject: str, payload: bytes, *, rollup: bool = False
    ) -> int:
        """Store a message and return its sequence."""

    async def purge(self, bucket: str, subject: str) -> None:
        """Drop all messages on *subject*."""

    async def remove(self, bucket: str, sequence: int) -> None:
        """Drop one message."""

    async def messages(self, bucket: str, subject: str) -> list[tuple[int, bytes]]:
        """Sequence and payload of every message on *subject*."""


class MemoryForeign:
    """Reaches around the API of the in-memory store."""

    def __init__(self, manager: MemoryManager) -> None:
        self._manager = manager

    async def publish(
        self, bucket: str, subject: str, payload: bytes, *, rollup: bool = False
    ) -> int:
        stream = (await self._manager.bind(bucket)).stream
        return stream.publish(Publish(subject, payload, rollup))[0].sequence

    async def purge(self, bucket: str, subject: str) -> None:
        (await self._manager.bind(bucket)).stream.purge(subject)

    async def remove(self, bucket: str, sequence: int) -> None:
        (await self._manager.bind(bucket)).stream.remove(sequence)

    async def messages(self, bucket: str, subject: str) -> list[tuple[int, bytes]]:
        stream = (await self._manager.bind(bucket)).stream
        return [(message.sequence, message.data) for message in stream.on(subject)]


class SocketForeign:
    """Speaks NATS on a plain blocking socket: every answer on loopback is a millisecond away."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        # Nagle's algorithm would keep back what is sent in two parts, for 40 ms each time.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        options = json.dumps({"verbose": False, "headers": True, "protocol": 1})
        self._send(f"CONNECT {options}\r\nSUB _INBOX.foreign.{id(self)} 1\r\n".encode())

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    async def publish(
        self, bucket: str, subject: str, payload: bytes, *, rollup: bool = False
    ) -> int:
        ack = self._request(subject, payload, b"Nats-Rollup: sub\r\n" if rollup else b"")
        return int(ack["seq"])

    async def purge(self, bucket: str, subject: str) -> None:
        self._call(f"STREAM.PURGE.OBJ_{bucket}", {"filter": subject})

    async def remove(self, bucket: str, sequence: int) -> None:
        self._call(f"STREAM.MSG.DELETE.OBJ_{bucket}", {"seq": sequence})

    async def messages(self, bucket: str, subject: str) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        while True:
            after = found[-1][0] + 1 if found else 1
            request = json.dumps({"seq": after, "next_by_subj": subject}).encode()
            reply = self._request(f"$JS.API.STREAM.MSG.GET.OBJ_{bucket}", request)
            if "error" in reply:
                return found
            message = reply["message"]
            found.append((message["seq"], base64.b64decode(message.get("data", ""))))

    def _call(self, api: str, request: dict[str, Any]) -> None:
        reply = self._request(f"$JS.API.{api}", json.dumps(request).encode())
        assert "error" not in reply, reply

    def _request(self, subject: str, payload: bytes, headers: bytes = b"") -> dict[str, Any]:
        block = b"NATS/1.0\r\n" + headers + b"\r\n"
        size, total = len(block), len(block) + len(payload)
        self._send(f"HPUB {subject} _INBOX.foreign.{id(self)} {size} {total}\r\n".encode())
        self._send(block + payload + b"\r\n")
        reply: dict[str, Any] = json.loads(self._receive())
        return reply

    def _receive(self) -> bytes:
        while True:
            verb, *words = self._lines.readline().split()
            if verb == b"PING":
                self._send(b"PONG\r\n")
            elif verb in (b"MSG", b"HMSG"):
                frame = self._lines.read(int(words[-1]) + 2)[:-2]
                return frame[int(words[-2]) :] if verb == b"HMSG" else frame
            elif verb == b"-ERR":
                raise AssertionError(words)

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)
