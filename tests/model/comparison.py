"""Two sides and a foreign client: runs an operation on both and fails when they differ."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from natsfs.tree.names import decode_component
from tests.model.actions import FOREIGN_TIMEOUT, TOP
from tests.mount.mounting import PACKAGE_ROOT

#: One operation: its name and its arguments, see `actions`.
Operation = tuple[Any, ...]

#: Seconds that one operation may take before it counts as a hang.
DEADLINE = 30.0


class Difference(AssertionError):
    """The mount and the reference do not agree."""


class Side:
    """A child process that acts in one directory."""

    def __init__(self, directory: Path, on_hang: Callable[[], None]) -> None:
        self.directory = directory
        self._on_hang = on_hang
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.model.runner", directory],
            cwd=PACKAGE_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def act(self, operation: Operation) -> Any:
        """The result of *operation*.  Errors: `Difference` when it does not come."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(operation).encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], DEADLINE)[0]:
            self._on_hang()
            raise Difference(f"{operation} hangs in {self.directory}")
        line = self._process.stdout.readline()
        if not line:
            raise Difference(f"{operation} ends the process in {self.directory}")
        return json.loads(line)

    def close(self) -> None:
        """End the process, which closes what it has open."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._on_hang()
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Foreign(Protocol):
    """Another client of the bucket."""

    def put(self, name: str, body: bytes) -> None:
        """Store an object, and return when it is stored."""

    def delete(self, name: str) -> None:
        """Delete an object."""


class Comparison:
    """The reference, the mount, and who else writes into the bucket.

    *history* is what was done since the last `start`, as a list that `replay` takes.
    """

    def __init__(self, reference: Side, mounted: Side, foreign: Foreign) -> None:
        self._sides = (reference, mounted)
        self._foreign = foreign
        self._name = ""
        self._histories: dict[str, list[Operation]] = {}
        self._implied: set[str] = set()
        #: How many operations were compared.
        self.performed = 0
        self.history: list[Operation] = []

    def start(self) -> None:
        """Go on in a new directory on both sides."""
        self._name = f"run-{len(self._histories) + 1}"
        self.history = self._histories[self._name] = []
        for side in self._sides:
            side.act(("reset", self._name))

    def do(self, operation: Operation) -> Any:
        """Run *operation* on both sides and return its result.

        Errors: `Difference`, with the operations that led to it.
        """
        self.history.append(operation)
        self.performed += 1
        name, *arguments = operation
        if name == "foreign":
            self._change(*arguments)
            return None
        return self._same(operation)

    def check(self, *, contents: bool) -> dict[str, Any]:
        """Compare the whole tree and return it.  Errors: as `do`."""
        tree = self._same(("tree", contents))
        assert isinstance(tree, dict)
        return tree

    def check_all(self) -> None:
        """Compare what all runs left behind; not of those where a directory that only foreign
        objects implied may have lost them all, which ends with the mount (N5)."""
        for name in self._histories.keys() - self._implied:
            self.history = self._histories[name]
            for side in self._sides:
                side.act(("go", name))
            self.check(contents=True)

    def leave(self) -> None:
        """Keep nothing open, so that the mount can end."""
        for side in self._sides:
            side.act(("leave",))

    def _same(self, operation: Operation) -> Any:
        expected, found = (side.act(operation) for side in self._sides)
        if expected != found:
            self._fail(operation, expected, found)
        return found

    def _change(self, path: str, body: str | None) -> None:
        """A foreign client puts or, with None, deletes the object behind *path*."""
        sight = self._same(("foreign_sight", path))
        if sight == "no" or (body is None and sight != "file"):
            return
        if sight == "nothing in nothing":
            self._implied.add(self._name)
        reference, mounted = self._sides
        name = object_name(f"{self._name}/{TOP}/{path}")
        if body is None:
            reference.act(("drop", path))
            self._foreign.delete(name)
        else:
            reference.act(("replace", path, body))
            self._foreign.put(name, body.encode())
        late = mounted.act(("await", path, body))
        if late is not None:
            self._fail(("foreign", path, body), "visible", late)
        self._await_tree()

    def _await_tree(self) -> None:
        """The kernel hears of names, attributes and pages one after the other."""
        deadline = time.monotonic() + FOREIGN_TIMEOUT
        expected, found = (side.act(("tree", False)) for side in self._sides)
        while expected != found and time.monotonic() < deadline:
            time.sleep(0.001)
            found = self._sides[1].act(("tree", False))
        if expected != found:
            self._fail(("tree", False), expected, found)

    def _fail(self, operation: Operation, expected: Any, found: Any) -> None:
        steps = "\n".join(f"    {step!r}," for step in self.history)
        raise Difference(f"{operation}\n{_differing(expected, found)}\nafter\n{steps}")


def object_name(path: str) -> str:
    """The object that a foreign client has to name to mean *path* (N1)."""
    return "/".join(decode_component(os.fsencode(part)) for part in path.split("/"))


def _differing(expected: Any, found: Any) -> str:
    if not (isinstance(expected, dict) and isinstance(found, dict)):
        return f"  reference: {expected}\n  mount:     {found}"
    lines = []
    for key in sorted({*expected, *found}):
        if expected.get(key) != found.get(key):
            lines.append(f"  {key}")
            lines.append(_differing(expected.get(key), found.get(key)))
    return "\n".join(lines)


@contextmanager
def comparing(
    reference: Path, mounted: Path, foreign: Foreign, on_hang: Callable[[], None]
) -> Iterator[Comparison]:
    """Both sides started; they are ended when the block is left."""
    with ExitStack() as stack:
        sides = []
        for directory in (reference, mounted):
            side = Side(directory, on_hang)
            stack.callback(side.close)
            sides.append(side)
        yield Comparison(sides[0], sides[1], foreign)
