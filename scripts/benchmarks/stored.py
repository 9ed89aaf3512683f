"""One large object as a plain socket, nats-py and the Go client see it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from .bench import Bench
from .clients import GoClient, py_get, py_put
from .figures import Figure
from .plain import CHUNK, PlainConnection, chunk_subject, connected
from .timing import MIB, latency, per_mib, rate, seconds

#: The name of the object.
BIG = "big.bin"

#: The contestant that shows what the server can do.
PLAIN = "plain socket"

#: What a daemon or a client spends, which a busy machine changes less than how long it takes.
CPU = Figure("processor time", "ms/MiB")

#: Random reads of one round, and the bytes of one.
RANDOM_READS = 200
RANDOM_SIZE = 4096


class Stored:
    """The object *BIG* of *size* bytes in a bucket of its own."""

    def __init__(self, bench: Bench, size: int) -> None:
        self.go = GoClient(bench.server.url)
        self._bench = bench
        self._size = size
        self._bucket = ""
        self._first = 0
        self._target = bench.scratch.new("copy")

    def store(self) -> None:
        """Make the bucket and store the object, its chunks one after another."""
        source = self._bench.scratch.payload(self._size)
        py_put(self._bench.server.url, self._own(), BIG, source)
        with connected(self._bench.server.port) as connection:
            self._first = connection.stream_info(self._stream)["state"]["first_seq"]

    def drain(self) -> dict[str, float]:
        """The object from the server's disk, then from its memory."""
        self._bench.server.chill()
        spent = time.process_time()
        found = {"cold": rate(self._size, self.drained), "warm": rate(self._size, self.drained)}
        return {**found, CPU.name: self._since(spent, objects=2)}

    def drained(self) -> None:
        """Receive the object."""
        with connected(self._bench.server.port) as connection:
            connection.drain(self._stream, self._first, -(-self._size // CHUNK))

    def py_get(self) -> dict[str, float]:
        """As `drain`, by nats-py."""
        self._bench.server.chill()
        url, target = self._bench.server.url, self._target / BIG
        spent = time.process_time()
        cold, warm = (py_get(url, self._bucket, BIG, target) for _ in range(2))
        found = {"cold": self._size / cold / 1e6, "warm": self._size / warm / 1e6}
        return {**found, CPU.name: self._since(spent, objects=2)}

    def go_get(self) -> dict[str, float]:
        """As `drain`, by the Go client."""
        self._bench.server.chill()
        cold, warm = (self.go.get(self._bucket, BIG) for _ in range(2))
        return {"cold": self._size / cold / 1e6, "warm": self._size / warm / 1e6}

    def publish(self) -> dict[str, float]:
        """Store the bytes as chunks of no object; an acknowledged chunk is stored, fsync or not."""
        block = self._bench.scratch.payload(self._size).open("rb").read(64 * MIB)
        with connected(self._bench.server.port) as connection:
            subject = chunk_subject(self._own())
            spent = time.process_time()
            speed = rate(self._size, lambda: connection.publish(subject, self._size, block))
            spent = self._since(spent)
            connection.request(f"$JS.API.STREAM.PURGE.{self._stream}", {"filter": subject})
        return {"to close": speed, "to fsync": speed, CPU.name: spent}

    def py_put(self) -> dict[str, float]:
        """As `publish`, by nats-py."""
        source = self._bench.scratch.payload(self._size)
        return self._put(lambda: py_put(self._bench.server.url, self._own(), BIG, source))

    def go_put(self) -> dict[str, float]:
        """As `publish`, by the Go client."""
        source = self._bench.scratch.payload(self._size)
        return self._put(lambda: self.go.put(self._own(), BIG, source))

    def get_chunks(self) -> dict[str, float]:
        """Chunks here and there, from the server's disk; microseconds for one."""
        self._bench.server.chill()
        chunks = [offset // CHUNK for offset in offsets(self._size)]
        with connected(self._bench.server.port) as connection:
            return latency([self._get(connection, chunk) for chunk in chunks])

    def first_chunk(self) -> dict[str, float]:
        """The first chunk from the server's disk, in milliseconds."""
        self._bench.server.chill()
        with connected(self._bench.server.port) as connection:
            return {"open and read": 1e3 * self._get(connection, 0)}

    @property
    def _stream(self) -> str:
        return f"OBJ_{self._bucket}"

    def _since(self, spent: float, objects: int = 1) -> float:
        """The processor time of this process for a MiB, in ms, since it was *spent*."""
        return per_mib(time.process_time() - spent, objects * self._size)

    def _own(self) -> str:
        self._bucket = self._bucket or self._bench.bucket()
        return self._bucket

    def _put(self, put: Callable[[], float]) -> dict[str, float]:
        speed = self._size / put() / 1e6
        return {"to close": speed, "to fsync": speed}

    def _get(self, connection: PlainConnection, chunk: int) -> float:
        return seconds(lambda: connection.get(self._stream, self._first + chunk))


def offsets(size: int) -> list[int]:
    """The same for everybody, no two of them in one chunk if that can be."""
    generator = random.Random(size)
    chunks = size // CHUNK
    chosen = generator.sample(range(chunks), min(RANDOM_READS, chunks))
    return [chunk * CHUNK + generator.randrange(CHUNK - RANDOM_SIZE) for chunk in chosen]
