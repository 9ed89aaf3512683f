"""The ceilings: what a bare blocking socket gets out of the server, with the least work possible.

A reader looks at nothing but the first line of each message and keeps no byte; a writer keeps a
window of bytes unacknowledged.  That is the server's own speed on this machine, through one
connection and one core of a client.
"""

from __future__ import annotations

import json
import socket
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

from .race import Failed

#: Bytes of a chunk: what every client of the Object Store uses.
CHUNK = 128 * 1024

#: Bytes that a batch of direct gets asks for, two of them at a time.  The server buffers what the
#: client does not take, and cuts off a client that lets it buffer 64 MiB.
BATCH = 16 * 1024 * 1024

#: Bytes published and not acknowledged: more brought nothing.
WINDOW = 8 * 1024 * 1024

#: Small messages that go to the kernel in one piece, and how many may be unacknowledged.
METAS_AT_ONCE = 500
METAS_UNACKNOWLEDGED = 4000

#: Bytes taken from the kernel at once; larger ones fall out of the processor's cache.
_RECEIVED_AT_ONCE = 512 * 1024

#: Seconds for any answer.
_TIMEOUT = 60.0

_CONNECT = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True,
            "protocol": 1, "lang": "python", "version": "0", "name": "natsfs-bench"}  # fmt: skip


class PlainConnection:
    """One connection; not for several threads."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_RECEIVED_AT_ONCE)
        self._view = memoryview(self._buffer)
        self._start = self._stop = 0
        self._inbox = f"_INBOX.{uuid.uuid4().hex}"
        connect = f"CONNECT {json.dumps(_CONNECT)}\r\nSUB {self._inbox} 1\r\nPING\r\n"
        self._socket.sendall(connect.encode())
        while self._line() != b"PONG":
            pass

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def request(self, subject: str, body: object) -> bytes:
        """The payload of the one answer."""
        self._ask(subject, body)
        header, total = self._message()
        return self._take(total)[header:]

    def stream_info(self, stream: str) -> dict[str, Any]:
        """What the server says about a stream."""
        info: dict[str, Any] = json.loads(self.request(f"$JS.API.STREAM.INFO.{stream}", {}))
        return info

    def get(self, stream: str, sequence: int) -> int:
        """The length of one stored message, which is received whole."""
        return len(self.request(f"$JS.API.DIRECT.GET.{stream}", {"seq": sequence}))

    def drain(self, stream: str, first: int, count: int, *, each: int = CHUNK) -> None:
        """Receive the *count* messages stored from *first* on, of about *each* bytes.

        Errors: `Failed` when the stream ends before.
        """
        batches = _batches(stream, first, count, BATCH // each)
        received = 0
        asked = self._next_batch(batches) + self._next_batch(batches)
        while asked:
            header, total = self._message()
            self._skip(total)
            if total > header:
                received += 1
            else:  # the end of a batch
                asked += self._next_batch(batches) - 1
        if received != count:
            raise Failed(f"a plain socket got {received} of {count} messages")

    def publish(self, subject: str, size: int, source: bytes | memoryview) -> None:
        """Store *size* bytes of *source*, over and over, as chunks, and wait for all acks."""
        unacknowledged = 0
        source = memoryview(source)
        for start in range(0, size, CHUNK):
            at = start % (len(source) - CHUNK + 1)
            piece = source[at : at + min(CHUNK, size - start)]
            line = f"PUB {subject} {self._inbox} {len(piece)}\r\n".encode()
            self._send(line, piece)
            unacknowledged += 1
            while unacknowledged * CHUNK >= WINDOW:
                unacknowledged -= self._acks()
        while unacknowledged:
            unacknowledged -= self._acks()

    def store(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Store *messages*, (subject, payload) each, in one piece, and wait for all acks."""
        frames = [_publish(subject, body, self._inbox) for subject, body in messages]
        self._socket.sendall(b"".join(frames))
        unacknowledged = len(frames)
        while unacknowledged:
            unacknowledged -= self._acks()

    def get_last(self, stream: str, subject: str) -> int:
        """The length of the last message on *subject*, which is received whole."""
        request = {"last_by_subj": subject}
        return len(self.request(f"$JS.API.DIRECT.GET.{stream}", request))

    def publish_metas(self, bucket: str, names: Iterator[str]) -> int:
        """Store an empty object under each name; their number."""
        unacknowledged = stored = 0
        while batch := [
            _publish_meta(*meta(bucket, name), self._inbox) for name in islice(names, METAS_AT_ONCE)
        ]:
            self._socket.sendall(b"".join(batch))
            stored += len(batch)
            unacknowledged += len(batch)
            while unacknowledged > METAS_UNACKNOWLEDGED:
                unacknowledged -= self._acks()
        while unacknowledged:
            unacknowledged -= self._acks()
        return stored

    # -- what is sent ------------------------------------------------------------------------------

    def _ask(self, subject: str, body: object) -> None:
        payload = json.dumps(body).encode()
        line = f"PUB {subject} {self._inbox} {len(payload)}\r\n".encode()
        self._socket.sendall(b"".join((line, payload, b"\r\n")))

    def _next_batch(self, batches: Iterator[tuple[str, object]]) -> int:
        """Ask for one more batch; 0 when there is none."""
        for subject, body in batches:
            self._ask(subject, body)
            return 1
        return 0

    def _send(self, line: bytes, piece: memoryview) -> None:
        sent = self._socket.sendmsg((line, piece, b"\r\n"))
        if sent < len(line) + len(piece) + 2:
            rest = b"".join((line, piece, b"\r\n"))
            self._socket.sendall(memoryview(rest)[sent:])

    # -- what is received --------------------------------------------------------------------------

    def _acks(self) -> int:
        """Wait for an ack; how many have come."""
        count = 0
        while True:
            header, total = self._message()
            if b'"error"' in (ack := self._take(total)[header:]):
                raise Failed(f"refused: {ack.decode(errors='replace')}")
            count += 1
            if self._buffer.find(b"\r\n", self._start, self._stop) < 0:
                return count

    def _message(self) -> tuple[int, int]:
        """The lengths of the next message: of its headers, and of all after its first line."""
        while True:
            line = self._line()
            if line.startswith(b"HMSG "):
                *_, header, total = line.split()
                return int(header), int(total)
            if line.startswith(b"MSG "):
                return 0, int(line.rsplit(b" ", 1)[1])
            if line == b"PING":
                self._socket.sendall(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                raise Failed(f"nats-server says {line.decode()}")

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n", self._start, self._stop)) < 0:
            self._receive()
        line = bytes(self._view[self._start : end])
        self._start = end + 2
        return line

    def _take(self, size: int) -> bytes:
        """The next *size* bytes and the line end after them, which is dropped."""
        parts = []
        wanted = size + 2
        while wanted:
            if self._start == self._stop:
                self._receive()
            step = min(wanted, self._stop - self._start)
            parts.append(bytes(self._view[self._start : self._start + step]))
            self._start += step
            wanted -= step
        return b"".join(parts)[:-2]

    def _skip(self, size: int) -> None:
        """As `_take`, keeping nothing."""
        wanted = size + 2
        while wanted > self._stop - self._start:
            wanted -= self._stop - self._start
            self._start = self._stop
            self._receive()
        self._start += wanted

    def _receive(self) -> None:
        """Get more bytes behind those that are there, which are few."""
        rest = self._stop - self._start
        self._view[:rest] = self._view[self._start : self._stop]
        self._start, self._stop = 0, rest
        got = self._socket.recv_into(self._view[rest:])
        if not got:
            raise Failed("nats-server closed the connection")
        self._stop += got


@contextmanager
def connected(port: int) -> Iterator[PlainConnection]:
    """A connection for as long as the block runs."""
    with closing(PlainConnection(port)) as connection:
        yield connection


def chunk_subject(bucket: str) -> str:
    """A subject that chunks of a new object go to."""
    return f"$O.{bucket}.C.{uuid.uuid4().hex[:22]}"


def _batches(stream: str, first: int, count: int, step: int) -> Iterator[tuple[str, object]]:
    """Requests for *count* messages, *step* of them at a time."""
    subject = f"$JS.API.DIRECT.GET.{stream}"
    for start in range(0, count, step):
        batch = min(step, count - start)
        yield subject, {"seq": first + start, "batch": batch, "max_bytes": 2 * BATCH}


def meta(bucket: str, name: str, size: int = 0, nuid: str = "") -> tuple[str, bytes]:
    """Subject and payload of the message that makes an object, about as large as in real life."""
    body = {
        "name": name,
        "options": {"max_chunk_size": CHUNK},
        "bucket": bucket,
        "nuid": nuid or uuid.uuid4().hex[:22],
        "size": size,
        "mtime": "0001-01-01T00:00:00Z",
        "chunks": -(-size // CHUNK),
        "digest": "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=",
    }
    token = urlsafe_b64encode(name.encode()).decode()
    return f"$O.{bucket}.M.{token}", json.dumps(body).encode()


def _publish(subject: str, body: bytes, inbox: str) -> bytes:
    return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), inbox.encode(), len(body), body)


def _publish_meta(subject: str, body: bytes, inbox: str) -> bytes:
    """As every client does, so that a name has one meta."""
    head = b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n"
    sizes = b"%d %d" % (len(head), len(head) + len(body))
    return b"HPUB %b %b %b\r\n%b%b\r\n" % (subject.encode(), inbox.encode(), sizes, head, body)
