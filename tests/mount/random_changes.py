"""Random changes of a small tree, as values: made once on a reference, once on what is tested.

A change is chosen by looking at the reference, a local directory, so that most of them succeed, and
few names are used, so that they meet: what was a file becomes a directory, what was removed comes
back, what is open elsewhere is replaced.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .facts import ATTRIBUTE, SET_ON_PURPOSE, Facts, look
from .syscalls import RENAME_EXCHANGE, renameat2

#: Names that changes use, in directories nested this deep: some 80 paths, most of them unused.
NAMES = ("a", "b", "c", "long name ü")
DEPTH = 3

#: Bytes of the largest file: three chunks, the last one short.
LARGEST = 300_000


@dataclass(frozen=True)
class Change:
    """One change: what is done, to which path, with what else."""

    what: str
    path: str
    other: str = ""
    number: int = 0
    body: bytes = b""

    def make(self, top: Path) -> None:
        """Make the change below *top*.  Errors: `OSError`, the same one everywhere."""
        _MAKERS[self.what](os.path.join(top, self.path), os.path.join(top, self.other), self)

    def __str__(self) -> str:
        body = f" {len(self.body)} bytes" if self.body else ""
        return f"{self.what} {self.path!r} {self.other!r} {self.number}{body}"


def _write(path: str, flags: int, change: Change) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags, 0o644)
    try:
        if change.number:
            os.lseek(descriptor, change.number, os.SEEK_SET)
        os.write(descriptor, change.body)
    finally:
        os.close(descriptor)


def _replace(path: str, other: str, change: Change) -> None:
    """The way of editors: write beside it, rename over it."""
    _write(path + ".new", os.O_CREAT | os.O_TRUNC, change)
    os.rename(path + ".new", path)


def _become(path: str, other: str, change: Change) -> None:
    """What is there makes way for another kind."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
        os.symlink("was a directory", path)
    else:
        os.unlink(path)
        os.mkdir(path)


_MAKERS: dict[str, Callable[[str, str, Change], None]] = {
    "create": lambda path, _, c: _write(path, os.O_CREAT | os.O_EXCL, c),
    "overwrite": lambda path, _, c: _write(path, os.O_TRUNC, c),
    "append": lambda path, _, c: _write(path, os.O_APPEND, c),
    "patch": lambda path, _, c: _write(path, 0, c),
    "replace": _replace,
    "truncate": lambda path, _, c: os.truncate(path, c.number),
    "unlink": lambda path, *_: os.unlink(path),
    "mkdir": lambda path, *_: os.mkdir(path, 0o755),
    "rmdir": lambda path, *_: os.rmdir(path),
    "rename": lambda path, other, _: os.rename(path, other),
    "exchange": lambda path, other, _: renameat2(path, other, RENAME_EXCHANGE),
    "chmod": lambda path, _, c: os.chmod(path, c.number),
    "utime": lambda path, _, c: os.utime(path, ns=(c.number, c.number)),
    "setxattr": lambda path, _, c: os.setxattr(path, ATTRIBUTE, str(c.number).encode()),
    "removexattr": lambda path, *_: os.removexattr(path, ATTRIBUTE),
    "symlink": lambda path, _, c: os.symlink(f"target-{c.number}", path),
    "link": lambda path, other, _: os.link(path, other),
    "become": _become,
}


class RandomChanges:
    """Chooses changes and makes them on the reference."""

    def __init__(
        self, reference: Path, chance: random.Random, kinds: Sequence[str] = tuple(_MAKERS)
    ) -> None:
        self._reference = reference
        self._chance = chance
        self._kinds = kinds
        #: Every path that ever was, for asking whether it still is not.
        self._known: set[str] = set()

    def batch(self, size: int) -> list[Change]:
        """The next *size* changes, made on the reference already."""
        changes: list[Change] = []
        while len(changes) < size:
            change = self._choose()
            if change is None:
                continue
            try:
                change.make(self._reference)
            except OSError:
                # Not possible here and now.  Two changes in one leave their first half behind.
                (self._reference / (change.path + ".new")).unlink(missing_ok=True)
                continue
            changes.append(change)
            self._known.update(filter(None, (change.path, change.other)))
        return changes

    def facts(self) -> Facts:
        """What is true of the reference now, of everything in it and everything that was."""
        self._known.update(self._paths())
        return {
            path: look(self._reference, path, reference=True) for path in sorted(self._known | {""})
        }

    def files(self) -> list[str]:
        """The regular files that are not empty."""
        return [
            path
            for path in self._paths()
            if stat.S_ISREG((status := (self._reference / path).lstat()).st_mode) and status.st_size
        ]

    def _paths(self) -> list[str]:
        return sorted(
            os.path.relpath(os.path.join(top, name), self._reference)
            for top, directories, files in os.walk(self._reference)
            for name in (*directories, *files)
        )

    def _choose(self) -> Change | None:
        chance = self._chance
        existing = self._paths()
        what = chance.choice(self._kinds)
        if what in ("create", "mkdir", "symlink"):
            return self._filled(what, self._new())
        if not existing:
            return None
        path = chance.choice(existing)
        if what in ("rename", "link"):
            return Change(what, path, chance.choice([self._new(), chance.choice(existing)]))
        if what == "exchange":
            return Change(what, path, chance.choice(existing))
        if os.path.islink(self._reference / path) and what not in ("unlink", "become"):
            return None
        if what in ("chmod", "setxattr", "removexattr", "utime") or self._fits(what, path):
            return self._filled(what, path)
        return None

    def _fits(self, what: str, path: str) -> bool:
        """Whether *what* is done to files or directories."""
        is_directory = (self._reference / path).is_dir()
        return what == "become" or (what == "rmdir") == is_directory

    def _filled(self, what: str, path: str) -> Change:
        chance = self._chance
        size = chance.choice((0, 1, 100, 5000, chance.randrange(LARGEST)))
        number = {
            "chmod": chance.choice((0o700, 0o755, 0o644, 0o600, 0o640)),
            "truncate": size,
            "patch": chance.randrange(1000),
            "utime": chance.randrange(10**9, SET_ON_PURPOSE),
        }.get(what, chance.randrange(100))
        writes = what in ("create", "overwrite", "append", "patch", "replace")
        if what in ("create", "overwrite", "append", "replace"):
            number = 0
        return Change(what, path, "", number, chance.randbytes(size) if writes else b"")

    def _new(self) -> str:
        """A path that may or may not be taken, in a directory that exists."""
        directories = [
            path
            for path in ["", *self._paths()]
            if (self._reference / path).is_dir()
            and not (self._reference / path).is_symlink()
            and path.count("/") < DEPTH - 1
        ]
        return os.path.join(self._chance.choice(directories), self._chance.choice(NAMES))


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Median, p90, p99 and maximum of *latencies* in seconds, as milliseconds."""
    ordered = sorted(latencies)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)

    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)}


def batches(chance: random.Random) -> Iterator[int]:
    """Sizes of batches, for ever."""
    while True:
        yield chance.choice((1, 1, 2, 4, 8, 16))
