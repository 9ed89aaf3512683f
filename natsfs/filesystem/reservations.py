"""Names that a commit of this mount is changing right now, and who has to wait for it.

While a name is reserved no other commit of this mount touches it, and what the watch tells of it is
put off: a meta may arrive by the watch before the acknowledgement of the publish that made it, and
would be taken for a foreign change.

A reservation is a set of keys: an object name, or a `Subtree`, which covers every name below it.

Concurrency: one trio thread.  Between `hold`'s last look and its return nothing is awaited, so
two tasks never hold overlapping keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio


@dataclass(frozen=True, slots=True)
class Subtree:
    """Every object name that begins with *prefix*, which ends in a slash."""

    prefix: str


Key = str | Subtree


class Reservations:
    """The names being changed by this mount."""

    def __init__(self) -> None:
        self._held: list[frozenset[Key]] = []
        self._change = trio.Event()
        #: Called whenever names are released: what was put off for them can be taken in now.
        self.on_release: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def hold(self, keys: Callable[[], frozenset[Key]]) -> AsyncIterator[None]:
        """Wait until nobody else holds any of *keys*, then hold them.

        *keys* is called anew after every wait, because a rename may have changed the answer.
        """
        while self._conflicts(wanted := keys()):
            await self._change.wait()
        self._held.append(wanted)
        try:
            yield
        finally:
            self._held.remove(wanted)
            self._change.set()
            self._change = trio.Event()
            self.on_release()

    async def released(self, name: str) -> None:
        """Wait until *name* is not covered."""
        while self.covers(name):
            await self._change.wait()

    def covers(self, name: str) -> bool:
        """Whether *name* is being changed or, if it is a directory's marker, anything below it:
        without marker and entries that directory would go, and what is on its way with it."""
        below: frozenset[Key] = frozenset({Subtree(name)} if name.endswith("/") else ())
        return self._conflicts(below | {name})

    def _conflicts(self, wanted: frozenset[Key]) -> bool:
        return any(_overlap(a, b) for a in wanted for keys in self._held for b in keys)


def _overlap(a: Key, b: Key) -> bool:
    if isinstance(a, Subtree):
        name = b.prefix if isinstance(b, Subtree) else b
        return name.startswith(a.prefix) or (isinstance(b, Subtree) and a.prefix.startswith(name))
    return a.startswith(b.prefix) if isinstance(b, Subtree) else a == b
