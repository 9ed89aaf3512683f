"""A program that writes until its file system dies, and keeps a manifest of what it was promised.

    python -m tests.faults.writer DIRECTORY MANIFEST NAME SEED

It changes files of its own, whose names begin with NAME.  The manifest, on another file system, has
a JSON object a line.  `{"may": {FILE: DIGEST, …}}` says what these files may become together from
now on, by a call that is about to be made; `{"must": {…}}` says that the call has returned, and so
what they are.  A digest is null for a file that does not exist.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import sys
from pathlib import Path

#: How many files it changes.
FILES = 6

#: Sizes in bytes: of one chunk, of several, more than stays in memory, more than waits there.
SIZES = (0, 1, 5_000, 200_000, 700_000, 3_000_000)

#: What calls say when the daemon is gone.
DEAD = {errno.ENOTCONN, errno.ECONNABORTED}

#: What they say when the server is.
AWAY = {errno.EIO}


class Writer:
    """Knows what its files are."""

    def __init__(self, directory: Path, manifest: Path, name: str, seed: str) -> None:
        #: Not its path: where the mount was is an ordinary directory once it is taken away.
        self.directory = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        self.manifest = manifest.open("a")
        self.name = name
        self.random = random.Random(seed)

    def file(self) -> str:
        return f"{self.name}-{self.random.randrange(FILES)}"

    def open(self, name: str, flags: int) -> int:
        return os.open(name, flags, 0o644, dir_fd=self.directory)

    def say(self, word: str, files: dict[str, bytes | None]) -> None:
        digests = {
            name: None if body is None else hashlib.sha256(body).hexdigest()
            for name, body in files.items()
        }
        self.manifest.write(json.dumps({word: digests}) + "\n")
        self.manifest.flush()

    def body(self) -> bytes:
        return self.random.randbytes(self.random.choice(SIZES))

    # -- what it does -----------------------------------------------------------------------------

    def rewrite(self) -> None:
        """open with O_TRUNC, write, close."""
        name, body = self.file(), self.body()
        file = self.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        self.finish(file, name, [body], b"")

    def append(self) -> None:
        """open with O_APPEND, write several times, sync in between, close."""
        name = self.file()
        before = self.read(name) or b""
        file = self.open(name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.finish(file, name, [self.body() for _ in range(3)], before)

    def finish(self, file: int, name: str, bodies: list[bytes], before: bytes) -> None:
        written = before
        try:
            for body in bodies:
                for start in range(0, len(body), 100_000):
                    write_all(file, body[start : start + 100_000])
                    written += body[start : start + 100_000]
                if self.random.random() < 0.3:
                    self.say("may", {name: written})
                    os.fsync(file)
                    self.say("must", {name: written})
            self.say("may", {name: written})
        except BaseException:
            # The close that follows may store what there is.
            self.say("may", {name: written})
            os.close(file)
            raise
        os.close(file)
        self.say("must", {name: written})

    def change(self) -> None:
        """Write in the middle, close."""
        name = self.file()
        body = self.read(name)
        if not body:
            return
        at, piece = self.random.randrange(len(body)), self.random.randbytes(10_000)
        file = self.open(name, os.O_RDWR)
        changed = body[:at] + piece + body[at + len(piece) :]
        try:
            done = os.pwrite(file, piece, at)
            assert done == len(piece)
        finally:
            self.say("may", {name: changed})
            os.close(file)
        self.say("must", {name: changed})

    def rename(self) -> None:
        """Replace one file by another."""
        name, other = self.file(), self.file()
        body = self.read(name)
        if body is None or name == other:
            return
        self.say("may", {name: None, other: body})
        os.rename(name, other, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        self.say("must", {name: None, other: body})

    def unlink(self) -> None:
        name = self.file()
        if self.read(name) is None:
            return
        self.say("may", {name: None})
        os.unlink(name, dir_fd=self.directory)
        self.say("must", {name: None})

    def read(self, name: str) -> bytes | None:
        try:
            with open(self.open(name, os.O_RDONLY), "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def run(self) -> None:
        """Go on until the file system is dead."""
        actions = [self.rewrite, self.rewrite, self.append, self.append, self.change, self.rename]
        while True:
            try:
                self.random.choice([*actions, self.unlink])()
            except OSError as error:
                if error.errno in DEAD:
                    return
                if error.errno not in AWAY:
                    raise


def write_all(file: int, body: bytes) -> None:
    rest = memoryview(body)
    while rest:
        rest = rest[os.write(file, rest) :]


if __name__ == "__main__":
    Writer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]).run()
