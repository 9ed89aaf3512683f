"""Sockets: bytes in both directions, in clear text or through TLS, on trio.

A clear-text transport uses the socket itself, without trio's stream in between: its receiving and
sending are one system call each and wait only when the kernel says so.  TLS has to copy anyway, so
it goes through trio's stream.

Concurrency: one task receives and one drains; `flush` may be called by any task at any time.
"""

from __future__ import annotations

import socket
import ssl
import struct
from abc import ABC, abstractmethod
from contextlib import suppress

import trio

from natsfs.store.link.outbox import Outbox
from natsfs.store.link.receiver import Event, Receiver

#: Bytes that one task receives before it lets others run when there is always more.  A step of the
#: scheduler costs what receiving 10 KiB does.
TURN_BYTES = 512 * 1024

#: What is waited for of a large payload at most: waking up costs as much as receiving 50 KiB, and a
#: default chunk comes in one piece (0.84 of a plain socket's speed against 0.74 when every segment
#: wakes this up).  The kernel's receive buffer grows to twice this.
AWAIT_BYTES = 256 * 1024

#: Closing with linger 0 resets the connection and empties the kernel's send buffer too: callers
#: have been told that their answers are lost, so nothing of theirs may be executed later.
_RESET = struct.pack("ii", 1, 0)

#: What receiving and sending raise when a connection is broken or closed.
BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Transport(ABC):
    """One connection."""

    @abstractmethod
    async def receive(self, receiver: Receiver) -> list[Event]:
        """Wait for bytes, hand them to *receiver* and give what they complete.

        Errors: `ProtocolError`; those of `BROKEN`, also when the other side has hung up.
        """

    @abstractmethod
    def flush(self, outbox: Outbox) -> None:
        """Send of *outbox* what can be sent without waiting.  Errors: `OSError`."""

    @abstractmethod
    async def drain(self, outbox: Outbox) -> None:
        """Send until *outbox* is empty.  Cancelling may leave half a message sent.

        Errors: those of `BROKEN`.
        """

    @abstractmethod
    def close(self) -> None:
        """Reset the connection."""


class PlainTransport(Transport):
    """Clear text on a TCP connection, which it takes over from *stream*."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)
        self._turn = 0
        self._awaited = 1

    async def receive(self, receiver: Receiver) -> list[Event]:
        if self._turn >= TURN_BYTES:
            self._turn = 0
            await trio.lowlevel.checkpoint()
        while (count := self._receive(receiver)) is None:
            self._turn = 0
            self._await(receiver.missing)
            await trio.lowlevel.wait_readable(self._socket)
        if not count:
            raise trio.BrokenResourceError("the server hung up")
        self._turn += count
        return receiver.received(count)

    def flush(self, outbox: Outbox) -> None:
        with suppress(BlockingIOError):
            while outbox.size and (buffers := outbox.front()):
                outbox.sent(self._socket.sendmsg(buffers))

    async def drain(self, outbox: Outbox) -> None:
        self.flush(outbox)
        while outbox.size:
            await trio.lowlevel.wait_writable(self._socket)
            self.flush(outbox)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> TlsTransport:
        """Shake hands with *host* and go on encrypted.  Errors: `BROKEN`, with the `ssl.SSLError`
        as their cause."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))
        # Without closing handshakes: what is cut short shows in the NATS protocol.
        tls = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        await tls.do_handshake()
        return TlsTransport(self, tls)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def _receive(self, receiver: Receiver) -> int | None:
        try:
            return self._socket.recvmsg_into(receiver.buffers())[0]
        except BlockingIOError:
            return None

    def _await(self, missing: int) -> None:
        """Have the kernel wake this up when there is a good part of what is *missing*."""
        wanted = max(1, min(missing, AWAIT_BYTES))
        if wanted != self._awaited:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
            self._awaited = wanted


class TlsTransport(Transport):
    """TLS on a TCP connection.  Made by `PlainTransport.start_tls`."""

    def __init__(self, plain: PlainTransport, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._plain = plain
        self._stream = stream

    async def receive(self, receiver: Receiver) -> list[Event]:
        first = receiver.buffers()[0]
        data = await self._stream.receive_some(len(first))
        if not data:
            raise trio.BrokenResourceError("the server hung up")
        first[: len(data)] = data
        return receiver.received(len(data))

    def flush(self, outbox: Outbox) -> None:
        """Nothing: encrypted bytes may have to wait, and the next ones then wait for them."""

    async def drain(self, outbox: Outbox) -> None:
        while outbox.size and (buffers := outbox.front()):
            data = b"".join(buffers)
            await self._stream.send_all(data)
            outbox.sent(len(data))

    def close(self) -> None:
        self._plain.close()
