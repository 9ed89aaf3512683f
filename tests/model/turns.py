"""Whose turn it is, where a bucket is mounted more than once.

Operations by path are for one mount after the other.  Descriptors and directory streams stay where
they were opened, and what is called by way of them is done there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.model.actions import FROM_SLOT
from tests.model.sides import Operation

#: Operations whose first argument is a slot.
BY_SLOT = frozenset(
    {
        *("close", "pread", "read", "pwrite", "write", "seek", "seek_hole", "ftruncate", "fsync"),
        *("allocate", "fstat", "fchmod", "fchown", "futimens", "fsetxattr", "fgetxattr", "flink"),
        *("fremovexattr", "map_write", "map_late", "map_private", "map_beside", "map_read"),
    }
)
#: Operations on two slots.
BY_SLOTS = frozenset({"copy_range", "sendfile"})
BY_STREAM = frozenset({"readdir", "closedir"})

#: Operations by path that neither name nor change the bytes of what they are called with.
HARMLESS = frozenset(
    {
        *("readlink", "list", "scan", "opendir", "access", "stat", "getxattr", "setxattr"),
        *("removexattr", "chmod", "chown", "utimens", "umask", "mkdir", "symlink", "mknod"),
    }
)


class Turns:
    """The mounts of one run by their numbers, and what is open on which."""

    def __init__(self, mounts: int) -> None:
        self._mounts = mounts
        self._turn = 0
        #: On which mount a slot was opened, and a directory stream.
        self._slots: dict[int, int] = {}
        self._streams: dict[int, int] = {}

    def pass_on(self) -> None:
        """The next operation by path is for the next mount."""
        self._turn = (self._turn + 1) % self._mounts

    def slots_of(self, mount: int) -> list[int]:
        """The slots that were opened on *mount*."""
        return [slot for slot, owner in self._slots.items() if owner == mount]

    def acting(
        self, operation: Operation, concerns: Callable[[list[int], list[str]], bool]
    ) -> int | None:
        """The mount that has to do *operation*; None if no single one could, or if it would take
        away what another mount has open: that mount's readers keep the old version (R1), which a
        local directory does not.  *concerns* says whether paths lead to what slots have open.
        """
        name, *arguments = operation
        owners = self._named_owners(name, arguments) or {self._turn}
        if len(owners) > 1:
            return None
        (acting,) = owners
        elsewhere = [slot for slot, owner in self._slots.items() if owner != acting]
        paths = [argument for argument in arguments if isinstance(argument, str)]
        if not elsewhere or name in HARMLESS or name in BY_SLOT or name in BY_SLOTS:
            return acting
        return None if concerns(elsewhere, paths) else acting

    def opening(self, operation: Operation, acting: int) -> tuple[int, Operation] | None:
        """*operation*, if it opens something, is about to on the mount *acting*.  What another
        mount has in that place is to be closed there first: that mount, and how."""
        name, number, *_ = (*operation, None)
        if not name.startswith("open"):
            return None
        owners = self._streams if name == "opendir" else self._slots
        previous = owners.get(number, acting)
        owners[number] = acting
        close = ("closedir" if name == "opendir" else "close", number)
        return None if previous == acting else (previous, close)

    def _named_owners(self, name: str, arguments: list[Any]) -> set[int]:
        """The mounts of the slots that an operation names."""
        if name in BY_STREAM:
            return {self._streams.get(arguments[0], 0)}
        slots = arguments[: 1 if name in BY_SLOT else 2 if name in BY_SLOTS else 0]
        if name == "open_again":
            slots = [arguments[1]]
        found = {self._slots.get(slot, 0) for slot in slots}
        for path in (argument for argument in arguments if isinstance(argument, str)):
            start = FROM_SLOT.match(path)
            if start is not None:
                found.add(self._slots.get(int(start[1]), 0))
        return found
