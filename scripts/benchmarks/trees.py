"""Workloads of programs: cp, rsync, git and tar on a real tree of source files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .bench import Bench
from .competitors import competitors
from .figures import Figure
from .filesystems import FileSystem, Local
from .race import Contest
from .timing import seconds

#: Files of the tree.
FILES = 1500

#: Directories of Python's standard library that are not sources or not everywhere.
_LEFT_OUT = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests"})

#: Seconds for one program.
_TIMEOUT = 1800.0

_FIGURES = ("cp -r", "rsync -a", "rsync -a again", "git clone", "tar -x")


def real_tree(bench: Bench) -> Contest:
    """Copy, synchronise twice, clone and unpack a part of Python's own library."""
    tree = Tree(bench)
    figures = tuple(Figure(name, "s") for name in _FIGURES)
    return Contest(
        figures,
        competitors(
            bench,
            tree.copied_to,
            lambda _: tree.make(),
            extra=(Local(bench),),
            # As rclone full in all that is done here, and an hour on s3fs.
            without=frozenset({"rclone writes", "s3fs"}),
        ),
    )


class Tree:
    """A tree on the local disk, as files, as a repository and as an archive."""

    def __init__(self, bench: Bench) -> None:
        self._files = bench.scaled(FILES, 20)
        self._home = bench.scratch.new("tree")
        self._env = bench.env
        self._made = False

    def make(self) -> None:
        """Make it, once."""
        if self._made:
            return
        plain, repository = self._home / "plain", self._home / "repository"
        _copy_library(plain, self._files)
        shutil.copytree(plain, repository)
        git = ("git", "-C", str(repository), "-c", "user.name=b", "-c", "user.email=b@localhost")
        self._run("git", "init", "--quiet", str(repository))
        self._run(*git, "add", "--all")
        self._run(*git, "commit", "--quiet", "--message=tree")
        self._run("tar", "-cf", str(self._home / "tree.tar"), "-C", str(plain), ".")
        self._made = True

    def copied_to(self, fs: FileSystem) -> dict[str, float]:
        """Seconds of each program, until it ends."""
        found = {}
        with fs.mounted(fresh=True) as root:
            for figure, argv in self._programs(root):
                found[figure] = seconds(partial(self._run, *argv))
            fs.settle()
            for name in ("cp", "rsync", "git", "tar"):
                shutil.rmtree(root / name)
        return found

    def _programs(self, root: Path) -> Iterator[tuple[str, Sequence[str]]]:
        plain = str(self._home / "plain")
        rsync = ("rsync", "-a", f"{plain}/", str(root / "rsync"))
        (root / "tar").mkdir()
        yield "cp -r", ("cp", "-r", plain, str(root / "cp"))
        yield "rsync -a", rsync
        yield "rsync -a again", rsync
        yield "git clone", self._clone(root / "git")
        yield "tar -x", ("tar", "-xf", str(self._home / "tree.tar"), "-C", str(root / "tar"))

    def _clone(self, target: Path) -> Sequence[str]:
        source = f"file://{self._home / 'repository'}"
        return ("git", "clone", "--quiet", source, str(target))

    def _run(self, *argv: str) -> None:
        subprocess.run(argv, check=True, capture_output=True, timeout=_TIMEOUT, env=self._env)


def _copy_library(target: Path, count: int) -> None:
    """Copy the first *count* source files of Python's library, in the order of their names."""
    library = Path(sysconfig.get_path("stdlib"))
    for source in list(_sources(library))[:count]:
        copy = target / source.relative_to(library)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)


def _sources(library: Path) -> Iterator[Path]:
    for where, directories, names in os.walk(library):
        directories[:] = sorted(set(directories) - _LEFT_OUT)
        yield from (Path(where, name) for name in sorted(names) if name.endswith(".py"))
