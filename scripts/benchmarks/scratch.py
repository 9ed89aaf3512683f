"""The files of one run: a directory on a local disk, and the page cache over them."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

from .interrupts import unbroken

#: Bytes of a payload that are made at once.
_BLOCK = 1 << 20


class Scratch:
    """A temporary directory in *parent*; a context manager that removes it."""

    def __init__(self, parent: Path | None, prefix: str = "natsfs-bench-") -> None:
        self.root = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
        self._count = 0

    def within(self, name: str) -> Scratch:
        """Another one inside."""
        return Scratch(self.root, f"{name}-")

    def new(self, kind: str) -> Path:
        """A new, empty directory."""
        self._count += 1
        made = self.root / f"{kind}-{self._count}"
        made.mkdir(mode=0o700)
        return made

    def payload(self, size: int) -> Path:
        """A file of *size* random bytes, made when it is first asked for, in the page cache."""
        path = self.root / f"payload-{size}"
        if not path.exists():
            generator = random.Random(size)
            with open(path, "wb", buffering=0) as file:
                for start in range(0, size, _BLOCK):
                    file.write(generator.randbytes(min(_BLOCK, size - start)))
        return path

    def free(self) -> int:
        """Bytes that can still be written."""
        return shutil.disk_usage(self.root).free

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        with unbroken():
            shutil.rmtree(self.root, ignore_errors=True)


def evict(directory: Path) -> None:
    """Take all files under *directory* out of the page cache.

    Unlike /proc/sys/vm/drop_caches it needs no root and leaves other programs' files alone.  Dirty
    pages cannot be dropped, so they are written first.
    """
    for where, _, names in os.walk(directory):
        for name in names:
            try:
                file = os.open(
                    os.path.join(where, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                )
            except OSError:  # gone meanwhile, a symlink or a socket: nothing of it is cached
                continue
            try:
                os.fdatasync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def empty(directory: Path) -> None:
    """Remove all that is in *directory*."""
    for entry in list(directory.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
