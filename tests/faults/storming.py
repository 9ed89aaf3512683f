"""A program that changes names and files without a pause and keeps account of what it was told.

    python -m tests.faults.storming DIRECTORY SEED

It works in a directory that it makes, until its standard input ends.  Then it prints, as JSON, the
tree that must be there now by what the calls have returned, how many calls that were, and each call
that failed.  What fails ends its account of that path: nobody knows what is there.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults.ground import Tree, fact

MODES = (0o600, 0o644, 0o640, 0o755)


class Storm:
    """One program's directory and account."""

    def __init__(self, top: Path, seed: int) -> None:
        self.top = top
        self.tree: Tree = {}
        self.calls = 0
        self.failed: list[str] = []
        self._chance = random.Random(seed)
        self._numbers = 0
        top.mkdir()
        top.chmod(0o755)

    def step(self) -> None:
        """One change."""
        changes: list[Callable[[], None]] = [self._write, self._write, self._rewrite, self._mkdir]
        changes += [self._rename, self._rename, self._chmod, self._unlink, self._rename_directory]
        change = self._chance.choice(changes)
        self.calls += 1
        try:
            change()
        except OSError as error:
            self.failed.append(f"{change.__name__}: {error}")

    def _new(self) -> str:
        self._numbers += 1
        directories = [path for path, told in self.tree.items() if told.endswith("directory")]
        where = self._chance.choice(["", *directories])
        return os.path.join(where, f"{self._numbers:05d}")

    def _files(self) -> list[str]:
        return [path for path, told in self.tree.items() if not told.endswith("directory")]

    def _write(self) -> None:
        self._store(self._new())

    def _rewrite(self) -> None:
        if files := self._files():
            self._store(self._chance.choice(files))

    def _store(self, path: str) -> None:
        body = self._chance.randbytes(self._chance.choice((0, 100, 5000, 200_000)))
        before = self.tree.pop(path, "")
        with open(self.top / path, "wb") as file:
            file.write(body)
            if self._chance.random() < 0.3:
                os.fsync(file.fileno())
            if not before:
                os.fchmod(file.fileno(), 0o644)
        self.tree[path] = fact(int(before.split()[0], 8) if before else 0o644, body)

    def _mkdir(self) -> None:
        path = self._new()
        (self.top / path).mkdir()
        (self.top / path).chmod(0o755)
        self.tree[path] = fact(0o755, None)

    def _rename(self) -> None:
        if files := self._files():
            old = self._chance.choice(files)
            new = self._new() if self._chance.random() < 0.5 else self._chance.choice(files)
            if new != old:
                told = self.tree.pop(old)
                self.tree.pop(new, None)
                os.rename(self.top / old, self.top / new)
                self.tree[new] = told

    def _rename_directory(self) -> None:
        directories = [path for path, told in self.tree.items() if told.endswith("directory")]
        if not directories:
            return
        old, new = self._chance.choice(directories), self._new()
        if new.startswith(f"{old}/"):
            return
        os.rename(self.top / old, self.top / new)
        for path in list(self.tree):
            if path == old or path.startswith(f"{old}/"):
                self.tree[new + path[len(old) :]] = self.tree.pop(path)

    def _chmod(self) -> None:
        if self.tree:
            path = self._chance.choice(list(self.tree))
            mode = self._chance.choice(MODES)
            kind = self.tree[path].split()[1]
            mode |= 0o700 if kind == "directory" else 0
            (self.top / path).chmod(mode)
            self.tree[path] = f"{mode:o} {kind}"

    def _unlink(self) -> None:
        if files := self._files():
            path = self._chance.choice(files)
            self.tree.pop(path)
            (self.top / path).unlink()


def main() -> None:
    """Storm until nobody wants more."""
    storm = Storm(Path(sys.argv[1]), int(sys.argv[2]))
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        storm.step()
    print(json.dumps({"tree": storm.tree, "calls": storm.calls, "failed": storm.failed}))


if __name__ == "__main__":
    main()
