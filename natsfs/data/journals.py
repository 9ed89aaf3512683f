"""The journals of one mounted bucket, and of those that were made again in its place.

What was written to a bucket belongs to that one: a journal lies under its identity, where the next
mount looks for what it can store, and `natsfs recover` says of an earlier bucket's that it is one.

Concurrency: everything is synchronous and atomic, but for `run`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from natsfs.data.disk import REST, Watched
from natsfs.data.journal import Journal
from natsfs.data.records import State


class Journals:
    """One journal for each bucket that the mount has shown; *make* makes that of an identity, and
    *identity* is the first."""

    def __init__(self, make: Callable[[str], Journal], identity: str) -> None:
        self._make = make
        self._first = make(identity)
        self._all = {identity: self._first}

    def of(self, identity: str) -> Journal:
        """The journal of the bucket *identity*."""
        journal = self._all.get(identity)
        if journal is None:
            journal = self._all[identity] = self._make(identity)
        return journal

    def __len__(self) -> int:
        """How many files are in them."""
        return sum(map(len, self._all.values()))

    @property
    def disk(self) -> Watched:
        """What they lie on."""
        return self._first.disk

    @property
    def parent(self) -> Path:
        """`Journal.parent` of the bucket that was mounted."""
        return self._first.parent

    def former(self) -> list[Path]:
        """`Journal.former` of the bucket that was mounted."""
        return self._first.former()

    def left(self) -> list[State]:
        """The files in them."""
        return [state for journal in self._all.values() for state in journal.left()]

    async def run(self) -> None:
        """Notice a disk that hangs while something is in a journal, until cancelled."""
        while True:
            await trio.sleep(REST)
            if len(self):
                await self.disk.look()

    def close(self) -> int:
        """The mount is over.  What is in the journals stays; returns how many files that is."""
        return sum(journal.close() for journal in self._all.values())
