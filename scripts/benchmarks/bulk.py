"""Workloads of bytes: large files, one after the other, at random, and several at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from .bench import Bench
from .competitors import competitors, entry
from .figures import Figure, Target
from .filesystems import FileSystem, Local, Natsfs, SshfsKeeping, Writeback
from .mounting import memory
from .race import Contest, Contestant
from .stored import BIG, CPU, PLAIN, RANDOM_SIZE, Stored, offsets
from .timing import MIB, latency, per_mib, rate, seconds

GIB = 1 << 30

#: Until the server has all that was written, whatever close said before.
_STORED = "until stored"

#: What cp, dd and most programs give to read and write.
_STEP = MIB


def sequential_read(bench: Bench) -> Contest:
    """Read one large object from its begin to its end."""
    size = bench.scaled(GIB)
    targets = (Target(0.75, PLAIN), Target(5, "nats-py get"), Target(1.5, "Go get"))
    figures = (Figure("cold", "MB/s", targets), Figure("warm", "MB/s", targets), CPU)
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
        # Linux 6.18 keeps what comes by FUSE in pages of 4 KiB, and what ext4 reads in larger ones,
        # which take a quarter of the time: sshfs shows what is to be had with small ones.
        Figure("page cache", "MB/s", (Target(0.9, "ext4"), Target(0.9, SshfsKeeping.name))),
        Figure("block cache / cold", "times", (Target(2),)),
    )
    local, natsfs, sshfs = Local(bench), Natsfs(bench), SshfsKeeping(bench)
    return Contest(
        figures,
        (
            entry(natsfs, lambda: _read_again(natsfs, size), lambda: _fill(natsfs, size)),
            entry(local, lambda: _read_again(local, size), lambda: _fill(local, size)),
            entry(sshfs, lambda: _read_again(sshfs, size), lambda: _fill(sshfs, size)),
        ),
    )


def sequential_write(bench: Bench) -> Contest:
    """Write one large file, until close returns, until fsync and close have, until it is stored."""
    size = bench.scaled(GIB)
    targets = (Target(0.8, PLAIN),)
    rates = (Figure("to close", "MB/s", targets), Figure("to fsync", "MB/s", targets))
    figures = (*rates, Figure(_STORED, "MB/s"), CPU)
    stored = Stored(bench, size)
    clients = (
        Contestant(PLAIN, stored.publish),
        Contestant("nats-py put", stored.py_put),
        Contestant("Go put", stored.go_put, stored.go.build),
    )
    source = bench.scratch.payload(size)
    extra = (Writeback(bench), Local(bench))
    own, *others = competitors(bench, lambda fs: _write_twice(fs, source), extra=extra)
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
            found[CPU.name] = per_mib(fs.cpu() - spent, size)
    return found


def _read_again(fs: FileSystem, size: int) -> dict[str, float]:
    with fs.mounted(fresh=True, cold=True) as directory:
        cold = rate(size, lambda: _read(directory / BIG, size))
        again = rate(size, lambda: _read(directory / BIG, size))
    found = {"cold": cold, "page cache": again}
    if isinstance(fs, Natsfs):
        with fs.mounted(fresh=False) as directory:
            found["block cache / cold"] = rate(size, lambda: _read(directory / BIG, size)) / cold
    return found


def _write_twice(fs: FileSystem, source: Path) -> dict[str, float]:
    size = source.stat().st_size
    found = {}
    with fs.mounted(fresh=True) as directory:
        target = directory / BIG
        for figure, sync in (("to fsync", True), ("to close", False)):
            spent, begin = fs.cpu(), time.perf_counter()
            found[figure] = rate(size, partial(_write, target, source, sync=sync))
            fs.settle()
            found[_STORED] = size / 1e6 / (time.perf_counter() - begin)
            found[CPU.name] = per_mib(fs.cpu() - spent, size)
            target.unlink()
    if isinstance(fs, Local):
        del found[CPU.name], found[_STORED]
    return found


def _read_at_random(fs: FileSystem, size: int) -> dict[str, float]:
    with fs.mounted(fresh=True, cold=True) as directory, open(directory / BIG, "rb") as file:
        reads = [
            seconds(partial(os.pread, file.fileno(), RANDOM_SIZE, offset))
            for offset in offsets(size)
        ]
    return latency(reads)


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


def _in_threads(work: Sequence[Callable[[], object]]) -> None:
    """Run all at once and wait.  Errors: the first that one of them raised."""
    with ThreadPoolExecutor(len(work)) as pool:
        for running in [pool.submit(one) for one in work]:
            running.result()


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
