"""Directory trees: a deterministic one to copy, what one looks like, and two compared.

`Pair` is how every tool test is written: the same command in a directory of a local file system and
in one of the mount, with identical results.  The local side is the control.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from .mounting import COMMAND_TIMEOUT, Result, run

#: What issue 2 calls a real tree.
TREE_FILES = 3000
TREE_BYTES = 50 * 1024 * 1024

#: Whole seconds of 2001 to 2023: where the made times of files lie.  tar warns of the future.
_TIMES = (10**9, 17 * 10**8)

#: Characters of output that a failed comparison shows of either side.
_SHOWN = 3000


@dataclass(frozen=True)
class Entry:
    """What a program can see of one file; *content* is a digest, a link's target, or empty."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    content: str


def tree(directory: Path, *, times: bool = True) -> dict[str, Entry]:
    """Everything below *directory* by relative path; with *times* off, without times."""
    found = {}
    for top, directories, files in os.walk(directory):
        for name in [*directories, *files]:
            path = Path(top, name)
            entry = look_at(path)
            found[str(path.relative_to(directory))] = entry if times else replace(entry, mtime_ns=0)
    return found


def look_at(path: Path) -> Entry:
    """One file as lstat and read show it."""
    status = path.lstat()
    kind = stat.filemode(status.st_mode)[0]
    if kind == "-":
        content = digest(path)
    elif kind == "l":
        content = os.readlink(path)
    else:
        content = ""
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        # What a directory's size means is each file system's own affair.
        size=0 if kind == "d" else status.st_size,
        mtime_ns=status.st_mtime_ns,
        content=content,
    )


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assert_same(left: Mapping[str, Entry], right: Mapping[str, Entry]) -> None:
    """Fail with the first few differences, which a diff of thousands of entries would bury."""
    differing = [
        f"{path}:\n  {left.get(path)}\n  {right.get(path)}"
        for path in sorted({*left, *right})
        if left.get(path) != right.get(path)
    ]
    assert not differing, f"{len(differing)} differ:\n" + "\n".join(differing[:8])


@dataclass(frozen=True)
class Pair:
    """The same place on a local file system and on the mount."""

    reference: Path
    mounted: Path
    env: Mapping[str, str]

    def same(
        self, command: str, *, timeout: float = COMMAND_TIMEOUT, ordered: bool = True
    ) -> Result:
        """Run a line of sh in both directories; fails unless status and output are the same.

        Paths of the directories are shown as `DIR`.  *ordered* off compares the output as a set of
        lines, for what follows the order of readdir.
        """
        left, right = (
            self._shown(run(command, cwd=where, env=self.env, timeout=timeout), where)
            for where in (self.reference, self.mounted)
        )
        if not ordered:
            left, right = (
                Result(side.status, "\n".join(sorted(side.out.splitlines())), side.err)
                for side in (left, right)
            )
        if right != left:
            pytest.fail(f"{command}\nreference: {left!s:.{_SHOWN}}\nmount:     {right!s:.{_SHOWN}}")
        return right

    def works(self, command: str, *, timeout: float = COMMAND_TIMEOUT, ordered: bool = True) -> str:
        """As `same`, and the command must succeed; returns its standard output."""
        return self.same(command, timeout=timeout, ordered=ordered).check()

    def same_trees(self, below: str = ".", *, times: bool = True) -> None:
        """Fail unless both directories look the same."""
        left, right = (tree(side / below, times=times) for side in (self.reference, self.mounted))
        assert left, f"nothing below {below}"
        assert_same(left, right)

    @staticmethod
    def _shown(result: Result, where: Path) -> Result:
        return replace(
            result,
            out=result.out.replace(str(where), "DIR"),
            err=result.err.replace(str(where), "DIR"),
        )


def make_tree(directory: Path) -> None:
    """A tree of at least `TREE_FILES` files and `TREE_BYTES` bytes, always the same on one Python.

    The standard library as it is installed, generated files of the sizes that matter to chunks, and
    what archives are known to get wrong: odd names, modes, empty files and directories, symbolic
    links, times before 1970 and with nanoseconds.
    """
    dice = random.Random(20)
    library = Path(sysconfig.get_paths()["stdlib"])
    ignored = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__", "*.a", "*.so")
    shutil.copytree(library, directory / "stdlib", symlinks=True, ignore=ignored)
    _make_sizes(directory / "sizes", dice)
    _make_many(directory / "many", dice)
    _make_odd(directory / "odd")
    _fill_up(directory, dice)
    _make_times(directory, dice)


def _make_sizes(directory: Path, dice: random.Random) -> None:
    directory.mkdir()
    chunk = 128 * 1024
    for size in (0, 1, 4095, 4096, chunk - 1, chunk, chunk + 1, 10 * chunk, 5_000_000):
        (directory / f"{size}.bin").write_bytes(dice.randbytes(size))


def _make_many(directory: Path, dice: random.Random) -> None:
    for number in range(2000):
        path = directory / f"{number % 20:02}" / f"{number % 7}" / f"file-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(dice.randrange(3000)))
        path.chmod(dice.choice((0o644, 0o600, 0o755, 0o440)))


def _make_odd(directory: Path) -> None:
    directory.mkdir()
    names = (
        "two words",
        "tab\there",
        "new\nline",
        "ünïcodé",
        "日本語",
        "-dash",
        "*star?",
        "a\\b",
        "~",
    )
    for name in (*names, "'quote\"", ".hidden", "x" * 255, "e\u0301", "\u00e9", "CASE", "case"):
        (directory / name).write_text(name)
    (directory / os.fsdecode(b"latin-\xe9")).write_text("not UTF-8")
    (directory / "empty directory" / "nested").mkdir(parents=True)
    (directory / "private").mkdir(mode=0o700)
    (directory / "to a file").symlink_to("two words")
    (directory / "to a directory").symlink_to("empty directory/nested")
    (directory / "to nothing").symlink_to("../no/such/thing")
    (directory / "to the outside").symlink_to("/etc/hostname")


def _fill_up(directory: Path, dice: random.Random) -> None:
    """Standard libraries differ in size from one distribution to the next."""
    found = [path.lstat() for path in directory.rglob("*")]
    files = [status for status in found if stat.S_ISREG(status.st_mode)]
    missing = TREE_BYTES - sum(status.st_size for status in files)
    if missing > 0:
        (directory / "sizes" / "rest.bin").write_bytes(dice.randbytes(missing + 1))
    for number in range(TREE_FILES - len(files)):
        (directory / "many" / f"rest-{number}").write_text(str(number))


def _make_times(directory: Path, dice: random.Random) -> None:
    # Deepest first: making a file touches its directory.
    for path in sorted(directory.rglob("*"), reverse=True):
        time_ns = dice.randrange(*_TIMES) * 10**9 + dice.randrange(10**9)
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
    os.utime(directory / "odd" / "~", ns=(-1_500_000_001, -1_500_000_001))
