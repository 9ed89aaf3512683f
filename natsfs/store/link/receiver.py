"""The NATS protocol as a server speaks it: bytes in, messages out, without I/O.

The receiver says where the next bytes belong, and the socket writes them there.  Small messages are
parsed out of a buffer, many at a time.  The payload of a large one goes from the kernel straight
into the buffer that its reader gets, together with the line of the message after it, so that a
batch of chunks costs one system call a chunk and no copy.

Concurrency: synchronous.  Between `buffers` and `received` nothing else may be called.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from natsfs.errors import NatsfsError
from natsfs.store.session import Message

#: Bytes received at once while no payload is under way.  A read of 64 KiB is what a server's write
#: brings on loopback, and enough for 200 acknowledgements.
HEAD_BYTES = 64 * 1024

#: Bytes received behind a large payload: room for the line and the headers of the next chunk (300
#: bytes), since what is more than those is copied.
NEXT_BYTES = 4 * 1024

#: The smallest payload that gets a buffer of its own before it is complete.  Copying so much costs
#: as much as the system call that it saves.
LARGE_BYTES = 8 * 1024

#: Bytes that a message may announce.  The server's own limit is 64 MiB; more is not NATS.
MESSAGE_LIMIT = 256 * 1024 * 1024

_CRLF = b"\r\n"

#: Subject, reply subject and sizes of a message without headers, or those of one with headers.
_LINE = re.compile(
    rb"(?:MSG (\S+) \d+ (?:(\S+) )?(\d{1,9})|HMSG (\S+) \d+ (?:(\S+) )?(\d{1,9}) (\d{1,9}))\r\n"
)


class ProtocolError(NatsfsError):
    """What the server sends is not the NATS protocol, or bytes of it are missing."""


@dataclass(frozen=True, slots=True)
class Control:
    """What is no message: *verb* is `PING`, `PONG`, `+OK`, `-ERR` or `INFO`, *text* the rest."""

    verb: bytes
    text: bytes


Event = Message | Control


@dataclass(slots=True)
class _Announced:
    """A message whose line has come: sizes in bytes of its headers and of its payload."""

    subject: str
    reply: str
    headers: int
    payload: int


class Receiver:
    """One connection's incoming side.

    `lend`, when it is set, is asked where a payload belongs, by the subject and the size of its
    message; None leaves that to the receiver.
    """

    def __init__(self) -> None:
        self.lend: Callable[[str, int], memoryview | None] = _nowhere
        self._head = bytearray(HEAD_BYTES)
        self._view = memoryview(self._head)
        self._start = self._end = 0
        self._announced: _Announced | None = None
        self._block = b""
        self._payload: memoryview | None = None
        self._filled = 0

    @property
    def missing(self) -> int:
        """Bytes that the payload under way still lacks, 0 when none is."""
        return len(self._payload) - self._filled if self._payload is not None else 0

    def buffers(self) -> list[memoryview]:
        """Where the next bytes go: one or two buffers, in this order, at least one of them with
        room.  They are good until `received`."""
        if self._start == self._end:
            self._start = self._end = 0
        if self._payload is not None and self._filled < len(self._payload):
            rest = self._payload[self._filled :]
            return [rest, self._view[:NEXT_BYTES]]
        if len(self._head) - self._end < HEAD_BYTES // 4:
            self._make_room()
        return [self._view[self._end :]]

    def received(self, count: int) -> list[Event]:
        """Take note that *count* bytes were written into `buffers`; gives what they complete.

        Errors: `ProtocolError`.
        """
        payload = min(count, self.missing)
        self._filled += payload
        self._end += count - payload
        events: list[Event] = []
        while True:
            if self.lend is _nowhere and self._announced is None:
                events += self._small_ones()
            event = self._next()
            if event is None:
                return events
            events.append(event)

    def _small_ones(self) -> list[Message]:
        """The messages that begin here and have come whole, by one regular expression each: half of
        what they take otherwise."""
        head, start, end = self._head, self._start, self._end
        found: list[Message] = []
        while (line := _LINE.match(head, start, end)) is not None:
            bare = line[3] is not None
            subject, reply, size = line.group(1, 2, 3) if bare else line.group(4, 5, 7)
            block = start = line.end()
            data = block if bare else block + int(line[6])
            stop = block + int(size)
            small = stop - block < LARGE_BYTES and stop + len(_CRLF) <= end
            if not small or data > stop or not head.startswith(_CRLF, stop):
                start = line.start()
                break
            found.append(
                Message(
                    subject.decode("utf-8", "replace"),
                    reply.decode("utf-8", "replace") if reply else "",
                    bytes(head[block:data]),
                    bytes(head[data:stop]),
                )
            )
            start = stop + len(_CRLF)
        self._start = start
        return found

    def _make_room(self) -> None:
        unread = bytes(self._view[self._start : self._end])
        if len(unread) > len(self._head) // 2:
            self._head = bytearray(2 * len(self._head))
            self._view = memoryview(self._head)
        self._view[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

    def _next(self) -> Event | None:
        if self._announced is None:
            line = self._line()
            if line is None:
                return None
            verb, _, text = line.partition(b" ")
            if verb not in (b"MSG", b"HMSG"):
                return _control(verb, text)
            self._announced = _announced(verb, text)
        if self._payload is not None:
            return self._large(self._announced, self._payload)
        return self._small(self._announced)

    def _line(self) -> bytes | None:
        end = self._head.find(_CRLF, self._start, self._end)
        if end < 0:
            if self._end - self._start >= HEAD_BYTES:
                raise ProtocolError(f"a line that begins {self._shown()!r} does not end")
            return None
        line = bytes(self._view[self._start : end])
        self._start = end + len(_CRLF)
        return line

    def _small(self, announced: _Announced) -> Message | None:
        """The message under way if it is all in the head; begins a buffer for it if it is large."""
        there = self._end - self._start
        data = self._start + announced.headers
        end = data + announced.payload
        if there >= announced.headers + announced.payload + len(_CRLF):
            self._block = bytes(self._view[self._start : data])
            came = self._view[data:end]
            self._start = end
            return self._complete(announced, self._lent(announced, came) or bytes(came))
        if announced.payload >= LARGE_BYTES and there >= announced.headers:
            self._block = bytes(self._view[self._start : data])
            came = self._view[data : min(end, self._end)]
            self._payload = self._lent(announced, came) or _fresh(announced, came)
            self._filled = len(came)
            self._start = data + len(came)
        return None

    def _lent(self, announced: _Announced, came: memoryview) -> memoryview | None:
        """The lent buffer for a payload, beginning with what *came* of it."""
        lent = self.lend(announced.subject, announced.payload)
        if lent is not None:
            lent[: len(came)] = came
        return lent

    def _large(self, announced: _Announced, payload: memoryview) -> Message | None:
        if self._filled < len(payload) or self._end - self._start < len(_CRLF):
            return None
        self._payload = None
        return self._complete(announced, payload)

    def _complete(self, announced: _Announced, payload: bytes | memoryview) -> Message:
        after = self._start + len(_CRLF)
        if self._head[self._start : after] != _CRLF:
            raise ProtocolError(f"a message on {announced.subject} is longer than announced")
        self._start = after
        self._announced = None
        return Message(announced.subject, announced.reply, self._block, payload)

    def _shown(self) -> bytes:
        return bytes(self._view[self._start : self._start + 40])


def _nowhere(_subject: str, _size: int) -> memoryview | None:
    """Nobody lends buffers."""
    return None


def _fresh(announced: _Announced, came: memoryview) -> memoryview:
    payload = memoryview(bytearray(announced.payload))
    payload[: len(came)] = came
    return payload


def _control(verb: bytes, text: bytes) -> Control:
    if verb not in (b"PING", b"PONG", b"+OK", b"-ERR", b"INFO"):
        raise ProtocolError(f"{verb[:40]!r} is no word of the NATS protocol")
    return Control(verb, text)


def _announced(verb: bytes, text: bytes) -> _Announced:
    """The line of a message: subject, number of the subscription, perhaps a reply subject, for HMSG
    the size of the headers, and the size of everything."""
    fields = text.split()
    sizes = 2 if verb == b"HMSG" else 1
    try:
        subject, _, *reply = fields[:-sizes]
        headers, total = (0, *map(int, fields[-sizes:]))[-2:]
    except ValueError:
        raise ProtocolError(f"unreadable line {verb + b' ' + text[:80]!r}") from None
    if len(reply) > 1 or not 0 <= headers <= total <= MESSAGE_LIMIT:
        raise ProtocolError(f"unreadable line {verb + b' ' + text[:80]!r}")
    return _Announced(
        subject.decode("utf-8", "replace"),
        reply[0].decode("utf-8", "replace") if reply else "",
        headers,
        total - headers,
    )
