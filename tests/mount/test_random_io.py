"""Random input and output on one file, against bytes in memory and, by several processes at once,
against what each knows to have written.

The local file system is the control: a test that fails there is wrong.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .conftest import Mounter
from .syscalls import fallocate

pytestmark = pytest.mark.mount

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
FALLOC_FL_ZERO_RANGE = 16


@dataclass
class Exerciser:
    """A file at *path*, what should be in it, and random changes of both.

    Sizes are up to *most* bytes in one operation, and *longest* bytes in the file.
    """

    path: Path
    chance: random.Random
    longest: int
    most: int
    expected: bytearray = field(default_factory=bytearray)
    #: What was done, for whoever has to understand a failure.
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        self._acts: list[tuple[int, Callable[[], None]]] = [
            (6, self.write),
            (6, self.read),
            (2, self.append),
            (3, self.map_write),
            (3, self.map_read),
            (2, self.truncate),
            (2, self.copy_range),
            (1, self.allocate),
            (1, self.punch),
            (1, self.zero_range),
            (1, self.sync),
            (2, self.reopen),
            (1, self.forget_pages),
            (1, self.compare),
        ]

    def run(self, count: int) -> None:
        """*count* random operations, then a look at the whole file."""
        weights = [weight for weight, _ in self._acts]
        for _ in range(count):
            self.chance.choices(self._acts, weights)[0][1]()
            assert os.fstat(self.file).st_size == len(self.expected), self.story()
        self.compare()
        os.close(self.file)

    def story(self) -> str:
        """The last operations."""
        return "\n".join(self.done[-40:])

    # -- what changes the file --------------------------------------------------------------------

    def write(self) -> None:
        offset, data = self._place(self.longest), self._bytes()
        data = data[: self.longest - offset]
        self._note(f"write {len(data)} at {offset}")
        assert os.pwrite(self.file, data, offset) == len(data)
        self._put(offset, data)

    def append(self) -> None:
        data = self._bytes()[: max(0, self.longest - len(self.expected))]
        self._note(f"append {len(data)}")
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        assert os.write(descriptor, data) == len(data)
        os.close(descriptor)
        self.expected += data

    def map_write(self) -> None:
        offset, data = self._place(len(self.expected)), self._bytes()
        data = data[: len(self.expected) - offset]
        if not data:
            return
        self._note(f"map and write {len(data)} at {offset}")
        with mmap.mmap(self.file, len(self.expected)) as view:
            view[offset : offset + len(data)] = data
            if self.chance.random() < 0.5:
                view.flush()
        self._put(offset, data)

    def truncate(self) -> None:
        size = self._place(self.longest)
        self._note(f"truncate to {size}")
        if self.chance.random() < 0.5:
            os.ftruncate(self.file, size)
        else:
            os.truncate(self.path, size)
        self._resize(size)

    def copy_range(self) -> None:
        start, count = self._range()
        target = self._place(self.longest - count)
        if abs(start - target) < count:
            return  # what overlaps is EINVAL
        self._note(f"copy {count} from {start} to {target}")
        left, moved = count, 0
        while left and (moved := os.copy_file_range(self.file, self.file, left, start, target)):
            self._put(target, bytes(self.expected[start : start + moved]))
            start, target, left = start + moved, target + moved, left - moved
        assert not left, self.story()

    def allocate(self) -> None:
        offset = self._place(self.longest)
        length = self.chance.randint(1, self.most)
        length = min(length, self.longest - offset) or 1
        self._note(f"allocate {length} at {offset}")
        os.posix_fallocate(self.file, offset, length)
        self._resize(max(len(self.expected), offset + length))

    def punch(self) -> None:
        self._zeros(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

    def zero_range(self) -> None:
        self._zeros(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

    def _zeros(self, mode: int) -> None:
        start, count = self._range()
        if not count:
            return
        self._note(f"fallocate {mode} of {count} at {start}")
        try:
            fallocate(self.file, mode, start, count)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return  # the one refusal that makes programs write zeros themselves
        self._put(start, bytes(count))

    # -- what does not ----------------------------------------------------------------------------

    def read(self) -> None:
        start, count = self._place(self.longest), self.chance.randint(0, self.most)
        self._note(f"read {count} at {start}")
        found = os.pread(self.file, count, start)
        self._check(found, self.expected[start : start + count], start)

    def map_read(self) -> None:
        start, count = self._range()
        if not count:
            return
        self._note(f"map and read {count} at {start}")
        with mmap.mmap(self.file, len(self.expected), prot=mmap.PROT_READ) as view:
            self._check(view[start : start + count], self.expected[start : start + count], start)

    def compare(self) -> None:
        self._note("compare")
        self._check(self.path.read_bytes(), self.expected, 0)

    def sync(self) -> None:
        self._note("sync")
        self.chance.choice([os.fsync, os.fdatasync])(self.file)

    def reopen(self) -> None:
        self._note("reopen")
        os.close(self.file)
        self.file = os.open(self.path, os.O_RDWR)

    def forget_pages(self) -> None:
        self._note("forget pages")
        os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_DONTNEED)

    # -- chance -----------------------------------------------------------------------------------

    def _note(self, what: str) -> None:
        self.done.append(f"{what}, size {len(self.expected)}")

    def _place(self, limit: int) -> int:
        """An offset, which is often where a page, a chunk or the file begins or ends."""
        edges = (0, 4096, 131_072, len(self.expected), len(self.expected) - 1)
        near = self.chance.choice(edges) + self.chance.randint(-2, 2)
        anywhere = self.chance.randint(0, max(0, limit))
        return min(max(0, near if self.chance.random() < 0.3 else anywhere), max(0, limit))

    def _range(self) -> tuple[int, int]:
        start = self._place(len(self.expected))
        return start, min(self.chance.randint(0, self.most), len(self.expected) - start)

    def _bytes(self) -> bytes:
        return self.chance.randbytes(self.chance.randint(1, self.most))

    def _put(self, offset: int, data: bytes) -> None:
        self._resize(max(len(self.expected), offset + len(data)) if data else len(self.expected))
        self.expected[offset : offset + len(data)] = data

    def _resize(self, size: int) -> None:
        del self.expected[size:]
        self.expected.extend(bytes(size - len(self.expected)))

    def _check(self, found: bytes, expected: bytes | bytearray, start: int) -> None:
        if found != expected:
            wrong = next(
                (n for n, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
                min(len(found), len(expected)),
            )
            lengths = f"{len(found)} bytes and not {len(expected)}"
            pytest.fail(f"{lengths}; wrong from {start + wrong} on\n{self.story()}")


#: The longest file, the most bytes in one operation, how many operations.
SHAPES = {
    "bytes": (3_000, 100, 400),
    "pages": (60_000, 9_000, 300),
    "chunks": (700_000, 300_000, 60),
    "large": (20_000_000, 3_000_000, 15),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_random_operations(directory: Path, shape: str) -> None:
    """W3: what is read from a file is what was written to it, by every call that does either."""
    longest, most, count = SHAPES[shape]
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    Exerciser(directory / "file", random.Random(seed), longest, most).run(count)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shape", SHAPES)
def test_random_operations_for_long(mounter: Mounter, shape: str) -> None:
    """W3: and it still is after a hundred times as many of them."""
    mount = mounter(life=3500.0)
    longest, most, count = SHAPES[shape]
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    Exerciser(mount.directory / "file", random.Random(seed), longest, most).run(count * 100)


#: One of several processes: writes its own records of a shared file, reads them back, now and then
#: through a descriptor of its own making.
WRITER = """
import os, random, sys
who, writers, records, rounds, size = map(int, sys.argv[1:])
chance = random.Random(who)
mine = {}
file = os.open("shared", os.O_RDWR)
for _ in range(rounds):
    number = chance.randrange(records) * writers + who
    data = chance.randbytes(size)
    assert os.pwrite(file, data, number * size) == size
    mine[number] = data
    look = chance.choice(list(mine))
    found = os.pread(file, size, look * size)
    assert found == mine[look], f"record {look} of {who}"
    step = chance.random()
    if step < 0.05:
        os.fsync(file)
    elif step < 0.1:
        os.close(file)
        file = os.open("shared", os.O_RDWR)
os.fsync(file)
os.close(file)
with open("shared", "rb") as file:
    for number, data in mine.items():
        file.seek(number * size)
        assert file.read(size) == data, f"record {number} of {who} at the end"
"""

WRITERS = 4


@pytest.mark.parametrize(
    ("size", "rounds"),
    [(1000, 100), (70_001, 30), pytest.param(5000, 5000, marks=pytest.mark.nightly)],
)
@pytest.mark.timeout(1200)
def test_writers_of_one_file(directory: Path, size: int, rounds: int) -> None:
    """W3: processes that write to ranges of their own in one file lose nothing to each other, while
    they sync, close and open it."""
    (directory / "shared").touch()
    arguments = [str(WRITERS), "8", str(rounds), str(size)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(who), *arguments],
            cwd=directory,
            stderr=subprocess.PIPE,
        )
        for who in range(WRITERS)
    ]
    failures = [writer.communicate(timeout=1000)[1].decode() for writer in writers]
    assert failures == [""] * WRITERS
