"""A TCP proxy that understands NATS frames: it loses, doubles or breaks off chosen ones, stands
still in one direction or both, is slow, or is not there.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import BinaryIO

#: Seconds that a slow line catches up with at most.
OVERSLEPT = 0.1


class Fate(IntEnum):
    """What becomes of a frame."""

    PASS = 0
    LOSE = 1
    TWICE = 2
    #: Half of it is handed on, then the connection is cut.
    HALF = 3
    #: It is handed on, then the connection is cut.
    LAST = 4


#: Decides on a frame (its line and its payload); true for one that is to be lost, bytes for what is
#: handed on instead.
Choice = Callable[[bytes], Fate | bool | bytes]


def nothing(frame: bytes) -> bool:
    return False


class Proxy:
    """Sits between clients and a server on loopback.

    *up* and *down* decide on frames to and from the server, *rate* bounds the bytes per second of
    each direction of a connection; all may be set at any time.  `cut` ends all connections.
    """

    def __init__(self, port: int) -> None:
        self.up: Choice = nothing
        self.down: Choice = nothing
        self.rate = 0
        self._port = port
        #: Set while frames in that direction (True: up) may go on.
        self._moving = {True: threading.Event(), False: threading.Event()}
        self._absent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self.go_on()
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._address[1]}"

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Hand nothing on, on connections that stay open: the line is dead and nobody says so."""
        for direction, stalled in ((True, up), (False, down)):
            if stalled:
                self._moving[direction].clear()

    def leave(self) -> None:
        """Cut everything, and hang up on whoever comes until `go_on`."""
        self._absent = True
        self.cut()

    def go_on(self) -> None:
        """End `stall` and `leave`; what was held is handed on."""
        self._absent = False
        for moving in self._moving.values():
            moving.set()

    def cut(self) -> None:
        with self._lock:
            for connection in self._open:
                _end(connection)

    def close(self) -> None:
        """End everything and wait for it.  Closing twice is fine."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.go_on()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                if self._absent:
                    near.close()
                    continue
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                near.close()
                continue
            self._begin(near, far)

    def _begin(self, near: socket.socket, far: socket.socket) -> None:
        for end in (near, far):
            # Nagle's algorithm would keep back a frame for 40 ms that follows another one.
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        line = _Line()
        with source:
            with suppress(OSError, ValueError), source.makefile("rb") as stream:
                while frame := _frame(stream):
                    self._moving[up].wait()
                    if not self._hand_on(frame, sink, up, line):
                        break
            _end(sink)
            _end(source)

    def _hand_on(self, frame: bytes, sink: socket.socket, up: bool, line: _Line) -> bool:
        """Treat *frame* as is chosen; whether the connection goes on."""
        chosen = (self.up if up else self.down)(frame)
        if isinstance(chosen, bytes):
            frame, chosen = chosen, Fate.PASS
        match Fate(chosen):
            case Fate.LOSE:
                return True
            case Fate.HALF:
                sink.sendall(frame[: len(frame) // 2])
                return False
            case Fate.LAST:
                sink.sendall(frame)
                return False
            case Fate.TWICE:
                frame += frame
        if self.rate:
            line.carry(len(frame) / self.rate)
        sink.sendall(frame)
        return True


class _Line:
    """A line that is busy with each frame for its time.

    A thread of a loaded machine oversleeps by more than a frame takes; the next frames make up.
    """

    def __init__(self) -> None:
        self._free = 0.0

    def carry(self, seconds: float) -> None:
        """Return when a frame that takes *seconds* is through."""
        now = time.monotonic()
        self._free = max(self._free, now - OVERSLEPT) + seconds
        if self._free > now:
            time.sleep(self._free - now)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _frame(stream: BinaryIO) -> bytes:
    line = stream.readline()
    if line.split(b" ", 1)[0] in (b"PUB", b"HPUB", b"MSG", b"HMSG"):
        return line + stream.read(int(line.split()[-1]) + 2)
    return line


class Once:
    """Gives *fate* to the frame of which *choice* is true for the *nth* time, from 1."""

    def __init__(self, choice: Choice, fate: Fate = Fate.LOSE, nth: int = 1) -> None:
        self.done = threading.Event()
        self._choice = choice
        self._fate = fate
        self._left = nth

    def __call__(self, frame: bytes) -> Fate:
        if self.done.is_set() or not self._choice(frame):
            return Fate.PASS
        self._left -= 1
        if self._left:
            return Fate.PASS
        self.done.set()
        return self._fate


class Answer:
    """Gives *fate* to the answer to the request of which *choice* is true for the *nth* time, or
    has it say *fate*: set `request` as the proxy's *up* and `answer` as its *down*."""

    def __init__(self, choice: Choice, fate: Fate | bytes, nth: int = 1) -> None:
        self._request = Once(choice, nth=nth)
        self._fate = fate
        self._inbox = b""
        self.done = threading.Event()

    def request(self, frame: bytes) -> Fate:
        if self._request(frame):
            self._inbox = reply_of(frame)
        return Fate.PASS

    def answer(self, frame: bytes) -> Fate | bytes:
        if not self._inbox or self.done.is_set() or subject_of(frame) != self._inbox:
            return Fate.PASS
        self.done.set()
        if isinstance(self._fate, bytes):
            line = b" ".join(frame.partition(b"\r\n")[0].split()[:3])
            return b"%s %d\r\n%s\r\n" % (line, len(self._fate), self._fate)
        return self._fate


def subject_of(frame: bytes) -> bytes:
    """The subject of a message to or from the server; empty for another frame."""
    words = frame.partition(b"\r\n")[0].split()
    return words[1] if words and words[0] in (b"PUB", b"HPUB", b"MSG", b"HMSG") else b""


def reply_of(frame: bytes) -> bytes:
    """Where the answer to a message to the server goes; empty where none is asked for."""
    words = frame.partition(b"\r\n")[0].split()
    sizes = 2 if words[0] == b"HPUB" else 1
    return words[2] if len(words) == 3 + sizes else b""
