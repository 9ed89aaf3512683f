"""Workloads of names: many small files, and one name asked for again and again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from .bench import Bench
from .competitors import competitors, entry
from .figures import Figure, Target
from .filesystems import FileSystem, Local, Natsfs, Writeback
from .plain import connected, meta
from .race import Contest, Contestant, Failed
from .stored import PLAIN
from .timing import seconds

#: Files of one round, and the bytes of each.
FILES = 1000
SIZE = 4096

#: Until the server has all of them, whatever close said before.
_STORED = "create, until stored"

#: How often the one name is asked for.
STATS = 20_000

_PLAIN_NOTE = (
    "small: chunk and meta of a file in one piece; no compare-and-set, no atomic batch, no purge"
)

T = TypeVar("T")

_OBJECT_STORES = ("rclone full", "rclone writes", "s3fs", "JuiceFS")


def small_files(bench: Bench) -> Contest:
    """Create 1,000 files of 4 KiB; after a remount stat, read, move, rename and unlink them."""
    count = bench.scaled(FILES, 20)
    twice = tuple(Target(2, name) for name in _OBJECT_STORES)
    targets = (*twice, Target(1, "sshfs"))
    rates = (
        Figure("create", "files/s", targets),
        Figure(_STORED, "files/s"),
        Figure("stat", "files/s"),
        Figure("read", "files/s", targets),
        Figure("rename", "files/s", targets),
        Figure("unlink", "files/s", targets),
    )
    moved = Figure("mv of the directory", "ms", (Target(0.05, "rclone full", at_least=False),))
    spent = tuple(Figure(_spent_on(one.name), "ms/file") for one in rates if one.name != _STORED)
    figures = (*rates, moved, *spent)
    extra = (Writeback(bench), Local(bench))
    own, *others = competitors(bench, lambda fs: _lives(fs, count), extra=extra)
    plain = Contestant(PLAIN, lambda: _messages(bench, count), note=_PLAIN_NOTE)
    return Contest(figures, (own, plain, *others))


def known_name(bench: Bench) -> Contest:
    """Stat one name that was looked up before."""
    figure = Figure("stat", "per s", (Target(0.9, "ext4"),))
    systems: tuple[FileSystem, ...] = (Natsfs(bench), Local(bench))
    return Contest((figure,), tuple(entry(fs, partial(_stat_often, fs)) for fs in systems))


def _lives(fs: FileSystem, count: int) -> dict[str, float]:
    """The rates of what happens to *count* files, by the names of the figures."""
    body = os.urandom(SIZE)
    found: dict[str, float] = {}
    step = partial(_step, fs, found)
    with fs.mounted(fresh=True) as root:
        home = _home(fs, root, "new")
        if fs.directories:
            home.mkdir()
        begin = time.perf_counter()
        step("create", _files(home, count), lambda path: _create(path, body), fs.settle)
        if not isinstance(fs, Local):
            found[_STORED] = count / (time.perf_counter() - begin)
    with fs.mounted(fresh=True) as root:
        step("stat", _files(home, count), os.stat)
        step("read", _files(home, count), lambda path: _read(path, body))
        if fs.directories:
            old, home = home, _home(fs, root, "moved")
            found["mv of the directory"] = 1e3 * seconds(partial(os.rename, old, home))
        files = _files(home, count)
        step("rename", files, lambda path: os.rename(path, f"{path}-renamed"))
        step("unlink", [Path(f"{path}-renamed") for path in files], os.unlink)
        if fs.directories:
            home.rmdir()
    return found


def _step(
    fs: FileSystem,
    found: dict[str, float],
    name: str,
    files: Sequence[Path],
    work: Callable[[Path], object],
    settle: Callable[[], None] = lambda: None,
) -> None:
    """Do *work* with all *files*; note their rate and what the daemon has spent on each until all
    has *settle*d."""
    spent = fs.cpu()
    found[name] = _rate(files, work)
    settle()
    if not isinstance(fs, Local):
        found[_spent_on(name)] = (fs.cpu() - spent) / len(files) * 1e3


def _spent_on(name: str) -> str:
    return f"{name}, processor time"


def _messages(bench: Bench, count: int) -> dict[str, float]:
    """The rates of the messages that the server has to store and send for *count* files."""
    bucket, body = bench.bucket(), os.urandom(SIZE)
    numbers = [f"{number:022}" for number in range(count)]
    with connected(bench.server.port) as connection:

        def chunk(nuid: str) -> str:
            return f"$O.{bucket}.C.{nuid}"

        def move(nuid: str) -> list[tuple[str, bytes]]:
            return [meta(bucket, f"{nuid}-renamed", SIZE, nuid), meta(bucket, nuid)]

        def create(nuid: str) -> None:
            connection.store([(chunk(nuid), body), meta(bucket, nuid, SIZE, nuid)])

        def unlink(nuid: str) -> None:
            connection.store([meta(bucket, f"{nuid}-renamed")])

        return {
            "create": _rate(numbers, create),
            "read": _rate(numbers, lambda nuid: connection.get_last(f"OBJ_{bucket}", chunk(nuid))),
            "mv of the directory": 1e3
            * seconds(lambda: connection.store(part for nuid in numbers for part in move(nuid))),
            "rename": _rate(numbers, lambda nuid: connection.store(move(nuid))),
            "unlink": _rate(numbers, unlink),
        }


def _home(fs: FileSystem, root: Path, name: str) -> Path:
    return root / name if fs.directories else root


def _stat_often(fs: FileSystem) -> dict[str, float]:
    with fs.mounted(fresh=True) as root:
        name = str(root / "known")
        if not os.path.exists(name):
            _create(Path(name), b"known")

        def ask() -> None:
            for _ in range(STATS):
                os.stat(name)

        os.stat(name)
        return {"stat": STATS / seconds(ask)}


def _files(directory: Path, count: int) -> list[Path]:
    return [directory / f"file-{number:05}" for number in range(count)]


def _rate(files: Sequence[T], work: Callable[[T], object]) -> float:
    """How many of *files* a second are worked on."""
    return len(files) / seconds(lambda: _each(files, work))


def _each(files: Iterable[T], work: Callable[[T], object]) -> None:
    for path in files:
        work(path)


def _create(path: Path, body: bytes) -> None:
    with open(path, "xb", buffering=0) as file:
        file.write(body)


def _read(path: Path, body: bytes) -> None:
    with open(path, "rb", buffering=0) as file:
        got = file.read(len(body) + 1)
    if got != body:
        raise Failed(f"{path} has other bytes than were written")
