"""The sides and a foreign client: runs an operation on all and fails when they differ.

With one mount, every operation runs on the reference and on it.  With several, operations by path
run on the reference and on the mount whose turn it is, those by descriptor where that was opened;
the others have to follow.  They are given the time they need by a barrier: the mount that acted
sets the mtime of a file, and what another mount sees after that time-stamp, it sees after all that
came before it, because changes of one bucket arrive in one order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from natsfs.tree.names import decode_component
from tests.model.actions import TOP
from tests.model.sides import Difference, Operation, Side, next_tick_ns
from tests.model.tolerance import excused
from tests.model.turns import Turns
from tests.mount.mounting import Mount

#: Seconds until the kernels of all mounts have heard of a change that their daemons know.
CATCH_UP = 10.0

#: Later than every time-stamp: nothing moved since then.
NEVER = 1 << 62


class Foreign(Protocol):
    """Another client of the bucket."""

    def put(self, name: str, body: bytes) -> None:
        """Store an object, and return when it is stored."""

    def delete(self, name: str) -> None:
        """Delete an object."""


class Comparison:
    """The reference, the mounts, and who else writes into the bucket.

    *history* is what was done since the last `start`, as a list that can be done again.
    """

    def __init__(self, reference: Side, mounts: Sequence[Side], foreign: Foreign) -> None:
        self._reference = reference
        self._mounts = list(mounts)
        self._foreign = foreign
        self._turns = Turns(len(self._mounts))
        self._since_ns = 0
        self._signals = 0
        #: Which mount did the last operation, and the last two.
        self._acted = 0
        self._recent: list[Operation] = []
        self._name = ""
        self._histories: dict[str, list[Operation]] = {}
        self._implied: set[str] = set()
        #: How many operations were compared.
        self.performed = 0
        self.history: list[Operation] = []
        #: The last difference.
        self.difference: Difference | None = None

    def start(self) -> None:
        """Go on in a new directory on all sides."""
        self._name = f"run-{len(self._histories) + 1}"
        self.history = self._histories[self._name] = []
        self._turns = Turns(len(self._mounts))
        self._acted = 0
        self._recent = []
        self._reference.act(("reset", self._name), 0)
        for number, mount in enumerate(self._mounts):
            mount.act(("reset", self._name), 0)
            if not number:
                self._signal(0)
        self._since_ns = next_tick_ns()

    def do(self, operation: Operation) -> Any:
        """Run *operation* on both sides and return its result.

        Errors: `Difference`, with the operations that led to it.
        """
        self.history.append(operation)
        name, *arguments = operation
        if name == "turn":
            self._turns.pass_on()
            return None
        if name == "foreign":
            self._change(*arguments)
            return None
        acting = self._turns.acting(operation, self._concerns)
        if acting is None:
            return "not here"
        self.performed += 1
        return self._do(operation, acting)

    def check(self, *, contents: bool) -> dict[str, Any]:
        """Compare the whole tree and return it.  Errors: as `do`."""
        tree = self._agreed(("tree", contents), waiting=False)
        self._since_ns = next_tick_ns()
        return tree

    def replay(self, operations: Sequence[Operation]) -> None:
        """Do all of *operations* in a new directory and compare after each.  Errors: as `do`."""
        self.start()
        for operation in operations:
            self.do(operation)
            self.check(contents=True)

    def check_all(self) -> None:
        """Compare what all runs left behind; not of those where a directory that only foreign
        objects implied may have lost them all, which ends with the mount (N5)."""
        self._since_ns = NEVER
        self._recent = []
        for name in self._lasting():
            self.history = self._histories[name]
            self._reference.act(("go", name), NEVER)
            for mount in self._mounts:
                mount.act(("go", name, str(self._mounts[0].directory)), NEVER)
            self._agreed(("tree", True), waiting=True)

    def times(self, number: int) -> dict[str, Any]:
        """The times of all that all runs left behind, exactly as mount *number* has them.

        Not the mtime of directories in which a foreign client made or removed entries: that is the
        server's time of the event, which nobody stores.
        """
        found = {}
        for name in self._lasting():
            self._mounts[number].act(("go", name), NEVER)
            times = self._mounts[number].act(("times",), NEVER)
            foreign = any(operation == "foreign" for operation, *_ in self._histories[name])
            kept = {path: two for path, two in times.items() if two[1] is not None or not foreign}
            found[name] = kept
        return found

    def join(self, mount: Side) -> None:
        """Compare another *mount* of the bucket as well, from now on."""
        self._mounts.append(mount)

    def part(self) -> None:
        """Do without the mount that joined last, and without what it has open."""
        self._mounts.pop().act(("leave",), NEVER)

    def leave(self) -> None:
        """Keep nothing open, so that the mounts can end."""
        for side in (self._reference, *self._mounts):
            side.act(("leave",), NEVER)

    def _lasting(self) -> list[str]:
        return [name for name in self._histories if name not in self._implied]

    def _do(self, operation: Operation, acting: int) -> Any:
        taken = self._turns.opening(operation, acting)
        if taken is not None:
            previous, close = taken
            for side in (self._reference, self._mounts[previous]):
                side.act(close, self._since_ns)
            self._signal(previous)
        self._recent = [*self._recent[-1:], operation]
        expected = self._reference.act(operation, self._since_ns)
        for mount in self._mounts if operation[0] == "umask" else [self._mounts[acting]]:
            found = mount.act(operation, self._since_ns)
            if expected != found:
                self._fail(operation, expected, found)
        if len(self._mounts) > 1:
            for slot in self._turns.slots_of(acting):
                # What is not committed yet no other mount can see.
                self._mounts[acting].act(("fsync", slot), self._since_ns)
        self._acted = acting
        return expected

    def _concerns(self, slots: list[int], paths: list[str]) -> bool:
        found: bool = self._reference.act(("concerns", slots, paths), self._since_ns)
        return found

    # -- agreement --------------------------------------------------------------------------------

    def _agreed(self, look: Operation, *, waiting: bool) -> dict[str, Any]:
        """What *look* gives on all sides; *waiting* says that also the mount that acted may need
        time.  Errors: `Difference`."""
        self._signal(self._acted)
        sides = [self._reference, *self._mounts]
        for side in sides:
            side.send(look, self._since_ns)
        expected, *trees = [side.receive(look) for side in sides]
        for number, found in enumerate(trees):
            patient = waiting or number != self._acted
            self._agree(look, expected, found, number, CATCH_UP if patient else 0.0)
        assert isinstance(expected, dict)
        return expected

    def _agree(
        self, look: Operation, expected: Any, found: Any, number: int, timeout: float
    ) -> None:
        """The kernel hears of names, attributes and pages one after the other."""
        deadline = time.monotonic() + timeout
        several = len(self._mounts) > 1
        while expected != (found := excused(expected, found, self._recent, several=several)):
            if time.monotonic() >= deadline:
                self._fail((*look, f"mount {number}"), expected, found)
            time.sleep(0.001)
            found = self._mounts[number].act(look, self._since_ns)

    def _signal(self, acting: int) -> None:
        """Wait until the daemons of all other mounts know what the mount *acting* did."""
        if len(self._mounts) == 1:
            return
        self._signals += 1
        self._mounts[acting].act(("signal", self._signals), self._since_ns)
        for mount in self._mounts:
            self._await_signal(mount)

    def _await_signal(self, mount: Side) -> None:
        late = mount.act(("await_signal", self._signals), self._since_ns)
        if late is not None:
            self._fail(("await_signal", self._signals), None, late)

    def _change(self, path: str, body: str | None) -> None:
        """A foreign client puts or, with None, deletes the object behind *path*."""
        self._recent = []
        sight = self._reference.act(("foreign_sight", path), self._since_ns)
        if sight == "no" or (body is None and sight != "file"):
            return
        if sight == "nothing in nothing" and len(self._mounts) > 1:
            return  # a directory without a marker stays in each mount until rmdir there (N5)
        if sight == "nothing in nothing":
            self._implied.add(self._name)
        name = object_name(f"{self._name}/{TOP}/{path}")
        self.performed += 1
        if body is None:
            self._reference.act(("drop", path), self._since_ns)
            self._foreign.delete(name)
        else:
            self._reference.act(("replace", path, body), self._since_ns)
            self._foreign.put(name, body.encode())
        for mount in self._mounts:
            late = mount.act(("await", path, body), self._since_ns)
            if late is not None:
                self._fail(("foreign", path, body), "visible", late)
        self._agreed(("tree", False), waiting=True)

    def _fail(self, operation: Operation, expected: Any, found: Any) -> None:
        steps = "\n".join(f"    {step!r}," for step in self.history)
        text = f"{operation}\n{_differing(expected, found)}\nafter\n{steps}"
        self.difference = Difference(text, self.history)
        raise self.difference


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
def comparing(reference: Path, mounts: Sequence[Mount], foreign: Foreign) -> Iterator[Comparison]:
    """All sides started; they are ended when the block is left."""

    def abort() -> None:
        for mount in mounts:
            mount.abort()

    with ExitStack() as stack:
        sides = []
        for directory in (reference, *(mount.directory for mount in mounts)):
            side = Side(directory, abort)
            stack.callback(side.close)
            sides.append(side)
        yield Comparison(sides[0], sides[1:], foreign)
