"""Workloads of large buckets: how the costs of mounting and listing grow with the objects."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from .bench import Bench
from .competitors import entry
from .figures import Figure, Target
from .filesystems import Local, Natsfs
from .mounting import memory, wait_until
from .plain import connected
from .race import Contest, Contestant
from .stored import PLAIN
from .timing import seconds

#: Objects of the buckets, and how many are in one directory.
SIZES = (1_000, 10_000, 100_000)
LARGEST = 1_000_000
IN_A_DIRECTORY = 1_000

#: Seconds for one ls or find.
_TIMEOUT = 600.0

#: About what one meta takes in a stream; the batches of the plain socket are cut by it.
_META_BYTES = 256


def growth(bench: Bench) -> Contest:
    """Mount, list and search buckets of more and more objects."""
    sizes = [bench.scaled(size) for size in (*SIZES, *([LARGEST] if bench.options.large else []))]
    figures = [figure for size in sizes for figure in _figures(size, last=size == sizes[-1])]
    own, local, plain = Bucket(bench, sizes), Tree(bench, sizes), Metas(bench, sizes)
    return Contest(
        tuple(figures),
        (
            entry(own.empty, own.measure, own.fill),
            Contestant(PLAIN, plain.measure, plain.fill, "receives all metas, decodes none"),
            Contestant("ext4", local.measure, local.fill),
        ),
    )


def _figures(size: int, *, last: bool) -> Iterator[Figure]:
    name = f"{size:,}"
    load = (Target(50_000),) if last else ()
    warm = (Target(3, at_least=False),)
    yield Figure(f"{name}: mount cold", "s")
    yield Figure(f"{name}: objects loaded cold", "per s", load)
    yield Figure(f"{name}: mount warm", "s", warm)
    yield Figure(f"{name}: memory per object", "bytes", (Target(400, at_least=False),))
    yield Figure(f"{name}: ls -l of 1,000", "ms")
    yield Figure(f"{name}: find", "ms")


class Bucket:
    """Buckets of all sizes, mounted by natsfs."""

    def __init__(self, bench: Bench, sizes: list[int]) -> None:
        self.empty = Natsfs(bench)
        self._filled = {size: Natsfs(bench) for size in sizes}
        self._bench = bench

    def fill(self) -> None:
        """Make the buckets and store their objects."""
        for size, fs in self._filled.items():
            fs.serve()
            fill(self._bench, fs.bucket, size)

    def measure(self) -> dict[str, float]:
        """All figures of all sizes; the memory that an empty bucket takes is no cost of objects."""
        _, base = _mounted(self.empty, "", fresh=True)
        return {
            f"{size:,}: {figure}": value
            for size, fs in self._filled.items()
            for figure, value in _grown(fs, size, base).items()
        }


class Metas:
    """The same metas, received by a plain socket."""

    def __init__(self, bench: Bench, sizes: list[int]) -> None:
        self._bench = bench
        self._buckets = dict.fromkeys(sizes, "")

    def fill(self) -> None:
        """Make the buckets."""
        for size in self._buckets:
            self._buckets[size] = self._bench.bucket()
            fill(self._bench, self._buckets[size], size)

    def measure(self) -> dict[str, float]:
        """Objects a second, from the server's disk."""
        return {
            f"{size:,}: objects loaded cold": self._received(bucket, size)
            for size, bucket in self._buckets.items()
        }

    def _received(self, bucket: str, size: int) -> float:
        self._bench.server.chill()
        with connected(self._bench.server.port) as connection:
            stream = f"OBJ_{bucket}"
            return size / seconds(lambda: connection.drain(stream, 1, size, each=_META_BYTES))


class Tree:
    """Local files under the same names."""

    def __init__(self, bench: Bench, sizes: list[int]) -> None:
        self._roots = {size: Local(bench).directory for size in sizes if size < LARGEST}

    def fill(self) -> None:
        """Make the files."""
        for size, root in self._roots.items():
            for name in names(size):
                if name.endswith("/f0000000"):
                    (root / name).parent.mkdir(parents=True)
                (root / name).touch()

    def measure(self) -> dict[str, float]:
        """What `ls` and `find` take."""
        return {
            f"{size:,}: {figure}": value
            for size, root in self._roots.items()
            for figure, value in _listed(root).items()
        }


def names(size: int) -> Iterator[str]:
    """The names of *size* objects, `IN_A_DIRECTORY` in each directory."""
    for number in range(size):
        directory, place = divmod(number, IN_A_DIRECTORY)
        yield f"d{directory:04}/f{place:07}"


def fill(bench: Bench, bucket: str, size: int) -> None:
    """Store *size* empty objects."""
    with connected(bench.server.port) as connection:
        connection.publish_metas(bucket, names(size))


def _grown(fs: Natsfs, size: int, empty_memory: int) -> dict[str, float]:
    last = list(names(size))[-1]
    cold, used = _mounted(fs, last, fresh=True)
    with fs.mounted(fresh=False) as root:
        listed = _listed(root)
    warm, _ = _mounted(fs, last, fresh=False)
    return {
        "mount cold": cold,
        "objects loaded cold": size / cold,  # with the 0.3 s that an empty bucket takes
        "mount warm": warm,
        "memory per object": max(used - empty_memory, 0) / size,
        **listed,
    }


def _mounted(fs: Natsfs, last: str, *, fresh: bool) -> tuple[float, int]:
    """Seconds from the command until *last* can be seen, and the daemon's memory then."""
    fs.bench.server.chill()
    with ExitStack() as stack:

        def mount() -> None:
            root = stack.enter_context(fs.mounted(fresh=fresh))
            wait_until((root / last).exists, f"{last} in the mount")

        took = seconds(mount)
        return took, memory(fs.pid, "VmRSS")


def _listed(root: Path) -> dict[str, float]:
    return {
        "ls -l of 1,000": 1e3 * seconds(lambda: _run("ls", "-l", str(root / "d0000"))),
        "find": 1e3 * seconds(lambda: _run("find", str(root), "-type", "f")),
    }


def _run(*argv: str) -> None:
    subprocess.run(
        argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_TIMEOUT,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
