"""How long, and at what pace, a lost compare-and-set is tried again: the only module that knows.

Of any number of writers of one subject one wins each round, so none waits for another for ever; but
all of them at once cost the server a refusal for each loser and round.  So a loser pauses, at
random and longer each time, before it reads what has won.

Concurrency: a `Contention` serves one read-modify-write in one task.
"""

from __future__ import annotations

import random
from typing import Protocol

import trio

from natsfs.errors import RequestTimeout, WrongRevision

#: Seconds of the longest first pause: about what a read and a commit take, so that two writers who
#: met once seldom meet again.  Eight writers of one meta needed 2.4 attempts for each change with
#: it, 3.2 with 2 ms, 3.9 without pauses.
FIRST_PAUSE = 0.004

#: Seconds of the longest pause of all: it bounds what a writer loses that comes back too late, and
#: leaves hundreds of attempts within the time-out of a request.
LONGEST_PAUSE = 0.128


class Waiting(Protocol):
    """What says how long to wait for it: an `ObjectStore`."""

    @property
    def timeout(self) -> float:
        """`ObjectStore.timeout`."""

    @property
    def patient(self) -> bool:
        """`ObjectStore.patient`."""


class Contention:
    """The attempts of one read-modify-write in *store*, which has the time of one call from now on,
    or for ever while the store is patient."""

    def __init__(self, store: Waiting) -> None:
        self._store = store
        self._end = trio.current_time() + store.timeout
        self._pause = FIRST_PAUSE
        #: What every attempt so far has expected in vain.
        self._expected: set[tuple[str, int | None]] = set()
        self._attempts = 0

    async def lost(self, error: WrongRevision) -> None:
        """An attempt ended with *error*: return when the next one is due, which begins by reading.

        Errors: `RequestTimeout` when time is up.
        """
        self._attempts += 1
        self._expected.add((error.name, error.expected))
        if trio.current_time() >= self._end and not self._store.patient:
            text = f"{error.name!r} {self._why(error)}, for {self._store.timeout:g} s"
            raise RequestTimeout(text) from error
        await trio.sleep(random.uniform(0, self._pause))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _why(self, error: WrongRevision) -> str:
        """A leader without a quorum refuses what is expected rightly: what it has taken before, and
        cannot store, is in the way."""
        found = error.actual in (None, error.expected)
        if self._attempts > 1 and len(self._expected) == 1 and found:
            return "is not taken by the server, though nobody was seen to change it"
        return "was changed by others whenever it was to be changed here"
