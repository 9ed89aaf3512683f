"""Workloads of bytes: large files, one after the other, at random, and several at once."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean, median

from .bench import Bench
from .clients import GoClient, py_get, py_put
from .competitors import competitors, entry
from .figures import Figure, Target
from .filesystems import FileSystem, Local, Natsfs
from .mounting import memory
from .plain import CHUNK, PlainConnection, chunk_subject, connected
from .race import Contest, Contestant

MIB = 1 << 20
GIB = 1 << 30

#: The name of the file that is read and written.
BIG = "big.bin"

#: Random reads of one round, and the bytes of one.
RANDOM_READS = 200
RANDOM_SIZE = 4096

#: What cp, dd and most programs give to read and write.
_STEP = MIB

#: The contestant that shows what the server can do.
PLAIN = "plain socket"


#: What a daemon spends, which a busy machine changes less than how long it takes.
_CPU = Figure("processor time of the daemon", "ms/MiB")


def sequential_read(bench: Bench) -> Contest:
    """Read one large object from its begin to its end."""
    size = bench.scaled(GIB)
    targets = (Target(0.75, PLAIN), Target(5, "nats-py get"), Target(1.5, "Go get"))
    figures = (Figure("cold", "MB/s", targets), Figure("warm", "MB/s", targets), _CPU)
    stored = Stored(bench, size)
    clients = (
        Contestant(PLAIN, stored.drain, stored.store),
        Contestant("nats-py get", stored.py_get, note="gets into a file on a local disk"),
        Contestant("Go get", stored.go_get, stored.go.build, note="gets into /dev/null"),
    )
    own, *peers = competitors(bench, lambda fs: _read_twice(fs, size), lambda fs: _fill(fs, size))
    return Contest(figures, (own, *clients, *peers))


def reread(bench: Bench) -> Contest:
    """Read what was read before: from the page cache, and from the block cache after a remount."""
    size = bench.scaled(GIB)
    figures = (
        Figure("cold", "MB/s"),
        Figure("page cache", "MB/s", (Target(0.9, "ext4"),)),
        Figure("block cache / cold", "times", (Target(2),)),
    )
    local = Local(bench)
    natsfs = Natsfs(bench)
    return Contest(
        figures,
        (
            entry(natsfs, lambda: _read_again(natsfs, size), lambda: _fill(natsfs, size)),
            entry(local, lambda: _read_again(local, size), lambda: _fill(local, size)),
        ),
    )


def sequential_write(bench: Bench) -> Contest:
    """Write one large file, until close returns, and until fsync and close have."""
    size = bench.scaled(GIB)
    targets = (Target(0.8, PLAIN),)
    figures = (Figure("to close", "MB/s", targets), Figure("to fsync", "MB/s", targets), _CPU)
    stored = Stored(bench, size)
    clients = (
        Contestant(PLAIN, stored.publish),
        Contestant("nats-py put", stored.py_put),
        Contestant("Go put", stored.go_put, stored.go.build),
    )
    source = bench.scratch.payload(size)
    own, *others = competitors(bench, lambda fs: _write_twice(fs, source), extra=(Local(bench),))
    return Contest(figures, (own, *clients, *others))


def random_read(bench: Bench) -> Contest:
    """Read 4 KiB here and there in one large object that nobody has read yet."""
    size = bench.scaled(GIB)
    figures = (Figure("median", "µs", (Target(2, PLAIN, at_least=False),)), Figure("mean", "µs"))
    stored = Stored(bench, size)
    plain = Contestant(PLAIN, stored.get_chunks, stored.store, note="gets a whole chunk each time")
    own, *peers = competitors(
        bench, lambda fs: _read_at_random(fs, size), lambda fs: _fill(fs, size)
    )
    return Contest(figures, (own, plain, *peers))


def first_byte(bench: Bench) -> Contest:
    """Open a large object that nobody has read yet and read its first byte."""
    size = bench.scaled(GIB)
    stored = Stored(bench, size)
    plain = Contestant(PLAIN, stored.first_chunk, stored.store, note="gets a whole chunk each time")
    own, *peers = competitors(bench, _read_first, lambda fs: _fill(fs, size))
    return Contest((Figure("open and read", "ms"),), (own, plain, *peers))


def four_readers(bench: Bench) -> Contest:
    """Read four large objects at once, each from its begin to its end."""
    size = bench.scaled(GIB) // 4
    four = [Stored(bench, size) for _ in range(4)]

    def store() -> None:
        for stored in four:
            stored.store()

    def drain() -> dict[str, float]:
        bench.server.chill()
        return {"all four": rate(4 * size, lambda: _in_threads([one.drained for one in four]))}

    own, *peers = competitors(
        bench, lambda fs: _read_four(fs, size), lambda fs: _fill(fs, size, count=4)
    )
    plain = Contestant(PLAIN, drain, store, note="four connections for the four readers")
    return Contest((Figure("all four", "MB/s"),), (own, plain, *peers))


def memory_peak(bench: Bench) -> Contest:
    """Copy a file larger than any buffer in and out, and look at the daemon's memory."""
    size = bench.scaled(4 * GIB if bench.options.large else GIB)
    bound = (Target(256, at_least=False),)
    source = bench.scratch.payload(size)

    def both_ways(fs: FileSystem) -> dict[str, float]:
        with fs.mounted(fresh=True) as directory:
            _write(directory / BIG, source, sync=False)
            peak_in = memory(fs.pid, "VmHWM") / 1e6
        with fs.mounted(fresh=True) as directory:
            _read(directory / BIG, size)
            peak_out = memory(fs.pid, "VmHWM") / 1e6
            os.unlink(directory / BIG)
        return {"copying in": peak_in, "copying out": peak_out}

    figures = (Figure("copying in", "MB", bound), Figure("copying out", "MB", bound))
    return Contest(figures, competitors(bench, both_ways))


class Stored:
    """An object as the clients that are no file systems see it."""

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
        return {"cold": rate(self._size, self.drained), "warm": rate(self._size, self.drained)}

    def drained(self) -> None:
        """Receive the object."""
        with connected(self._bench.server.port) as connection:
            connection.drain(self._stream, self._first, -(-self._size // CHUNK))

    def py_get(self) -> dict[str, float]:
        """As `drain`, by nats-py."""
        self._bench.server.chill()
        url, target = self._bench.server.url, self._target / BIG
        cold, warm = (py_get(url, self._bucket, BIG, target) for _ in range(2))
        return {"cold": self._size / cold / 1e6, "warm": self._size / warm / 1e6}

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
            speed = rate(self._size, lambda: connection.publish(subject, self._size, block))
            connection.request(f"$JS.API.STREAM.PURGE.{self._stream}", {"filter": subject})
        return {"to close": speed, "to fsync": speed}

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
        chunks = [offset // CHUNK for offset in _offsets(self._size)]
        with connected(self._bench.server.port) as connection:
            return _latency([self._get(connection, chunk) for chunk in chunks])

    def first_chunk(self) -> dict[str, float]:
        """The first chunk from the server's disk, in milliseconds."""
        self._bench.server.chill()
        with connected(self._bench.server.port) as connection:
            return {"open and read": 1e3 * self._get(connection, 0)}

    @property
    def _stream(self) -> str:
        return f"OBJ_{self._bucket}"

    def _own(self) -> str:
        self._bucket = self._bucket or self._bench.bucket()
        return self._bucket

    def _put(self, put: Callable[[], float]) -> dict[str, float]:
        speed = self._size / put() / 1e6
        return {"to close": speed, "to fsync": speed}

    def _get(self, connection: PlainConnection, chunk: int) -> float:
        return seconds(lambda: connection.get(self._stream, self._first + chunk))


def seconds(work: Callable[[], object]) -> float:
    """How long *work* takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rate(size: int, work: Callable[[], object]) -> float:
    """Megabytes in a second when *work* moves *size* bytes."""
    return size / seconds(work) / 1e6


# -- what is done with a file system --------------------------------------------------------------


def _fill(fs: FileSystem, size: int, count: int = 1) -> None:
    source = fs.bench.scratch.payload(size)
    with fs.mounted(fresh=True) as directory:
        for number in range(count):
            _write(directory / _numbered(number), source, sync=False)


def _read_twice(fs: FileSystem, size: int) -> dict[str, float]:
    """By two new mounts without caches, from the server's disk and then from its memory."""
    found = {}
    for figure in ("cold", "warm"):
        with fs.mounted(fresh=True, cold=figure == "cold") as directory:
            spent = fs.cpu()
            found[figure] = rate(size, lambda: _read(directory / BIG, size))
            found[_CPU.name] = (fs.cpu() - spent) / size * MIB * 1e3
    return found


def _read_again(fs: FileSystem, size: int) -> dict[str, float]:
    with fs.mounted(fresh=True, cold=True) as directory:
        cold = rate(size, lambda: _read(directory / BIG, size))
        again = rate(size, lambda: _read(directory / BIG, size))
    found = {"cold": cold, "page cache": again}
    if not isinstance(fs, Local):
        with fs.mounted(fresh=False) as directory:
            found["block cache / cold"] = rate(size, lambda: _read(directory / BIG, size)) / cold
    return found


def _write_twice(fs: FileSystem, source: Path) -> dict[str, float]:
    size = source.stat().st_size
    found = {}
    with fs.mounted(fresh=True) as directory:
        target = directory / BIG
        for figure, sync in (("to fsync", True), ("to close", False)):
            spent = fs.cpu()
            found[figure] = rate(size, partial(_write, target, source, sync=sync))
            fs.settle()
            found[_CPU.name] = (fs.cpu() - spent) / size * MIB * 1e3
            target.unlink()
    if isinstance(fs, Local):
        del found[_CPU.name]
    return found


def _read_at_random(fs: FileSystem, size: int) -> dict[str, float]:
    with fs.mounted(fresh=True, cold=True) as directory, open(directory / BIG, "rb") as file:
        reads = [
            seconds(partial(os.pread, file.fileno(), RANDOM_SIZE, offset))
            for offset in _offsets(size)
        ]
    return _latency(reads)


def _read_first(fs: FileSystem) -> dict[str, float]:
    def open_and_read() -> None:
        with open(directory / BIG, "rb", buffering=0) as file:
            file.read(1)

    with fs.mounted(fresh=True, cold=True) as directory:
        return {"open and read": 1e3 * seconds(open_and_read)}


def _read_four(fs: FileSystem, size: int) -> dict[str, float]:
    with fs.mounted(fresh=True, cold=True) as directory:
        paths = [directory / _numbered(number) for number in range(4)]
        work = [partial(_read, path, size) for path in paths]
        return {"all four": rate(4 * size, lambda: _in_threads(work))}


def _latency(reads: Sequence[float]) -> dict[str, float]:
    """The median shows a read that costs a request; the mean includes what reading ahead costs."""
    return {"median": 1e6 * median(reads), "mean": 1e6 * mean(reads)}


def _in_threads(work: Sequence[Callable[[], object]]) -> None:
    """Run all at once and wait.  Errors: the first that one of them raised."""
    with ThreadPoolExecutor(len(work)) as pool:
        for running in [pool.submit(one) for one in work]:
            running.result()


def _offsets(size: int) -> list[int]:
    """The same for everybody, no two of them in one chunk if that can be."""
    generator = random.Random(size)
    chunks = size // CHUNK
    chosen = generator.sample(range(chunks), min(RANDOM_READS, chunks))
    return [chunk * CHUNK + generator.randrange(CHUNK - RANDOM_SIZE) for chunk in chosen]


def _numbered(number: int) -> str:
    return f"{number}-{BIG}" if number else BIG


def _read(path: Path, size: int) -> None:
    """Read all of a file.  Errors: `OSError` when it does not have *size* bytes."""
    buffer = bytearray(_STEP)
    got = 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            got += count
    if got != size:
        raise OSError(f"{path} has {got} bytes instead of {size}")


def _write(path: Path, source: Path, *, sync: bool) -> None:
    """Copy a file that is in the page cache, as cp does."""
    buffer = bytearray(_STEP)
    view = memoryview(buffer)
    with open(source, "rb", buffering=0) as reading, open(path, "wb", buffering=0) as writing:
        while count := reading.readinto(buffer):
            written = 0
            while written < count:
                written += writing.write(view[written:count])
        if sync:
            os.fsync(writing.fileno())
