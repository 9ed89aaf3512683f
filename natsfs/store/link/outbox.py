"""What waits to be sent on one link: whole frames, in order, gathered into few large writes.

Concurrency: synchronous.  Whoever sends takes `front`, sends some of it and says how much with
`sent`, without an await between the two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from natsfs.errors import InvalidArgument
from natsfs.store.headers import encode_headers
from natsfs.store.session import Request

#: Payloads up to this size are copied into their frame: cheaper than a buffer of their own.
JOIN_BYTES = 4 * 1024

#: Bytes of one write: half of what loopback's send buffer takes at first, and so little that other
#: tasks wait 0.1 ms at most.
WRITE_BYTES = 512 * 1024

#: Buffers of one write: a quarter of the kernel's limit (IOV_MAX, 1024).
WRITE_BUFFERS = 256

Buffer = bytes | bytearray | memoryview


def encode(request: Request, reply: str, max_payload: int) -> list[Buffer]:
    """The frame of *request*, which asks for its answer on *reply*; for none where that is empty.

    Errors: `InvalidArgument` for headers that cannot be sent, and for more than *max_payload* bytes
    of headers and data: the server would hang up.
    """
    block = encode_headers(request.headers) if request.headers else b""
    size = len(block) + len(request.data)
    if size > max_payload:
        raise InvalidArgument(f"message of {size} bytes: the server takes {max_payload}")
    verb, lengths = ("HPUB", f"{len(block)} {size}") if block else ("PUB", f"{size}")
    subjects = f"{request.subject} {reply}" if reply else request.subject
    head = f"{verb} {subjects} {lengths}\r\n".encode() + block
    if len(request.data) <= JOIN_BYTES:
        return [b"".join((head, request.data, b"\r\n"))]
    return [head, request.data, b"\r\n"]


@dataclass(slots=True)
class _Frame:
    buffers: list[Buffer]
    wanted: Callable[[], bool]


class Outbox:
    """Frames that are not sent yet.  *size* is the number of their bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._frames: deque[_Frame] = deque()
        self._begun: deque[Buffer] = deque()

    def add(self, buffers: list[Buffer], wanted: Callable[[], bool] = lambda: True) -> None:
        """Put a frame last.  It is dropped instead of being begun if it is not *wanted* then: what
        its caller has given up must not be executed later."""
        self._frames.append(_Frame(buffers, wanted))
        self.size += sum(map(len, buffers))

    def front(self) -> list[Buffer]:
        """The buffers to send next; none when nothing is left."""
        size = sum(map(len, self._begun))
        while self._frames and size < WRITE_BYTES and len(self._begun) < WRITE_BUFFERS:
            frame = self._frames.popleft()
            length = sum(map(len, frame.buffers))
            if frame.wanted():
                self._begun += frame.buffers
                size += length
            else:
                self.size -= length
        return list(self._begun)

    def sent(self, count: int) -> None:
        """Take note that the first *count* bytes of `front` are sent."""
        self.size -= count
        while count:
            buffer = self._begun.popleft()
            if count < len(buffer):
                self._begun.appendleft(memoryview(buffer)[count:])
                return
            count -= len(buffer)

    def clear(self) -> None:
        """Drop everything."""
        self._frames.clear()
        self._begun.clear()
        self.size = 0
