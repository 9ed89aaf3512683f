"""How far something is that takes long: who does it tells, and `cli` shows it if somebody looks."""

from __future__ import annotations

from collections.abc import Callable

from natsfs.store.model import CaughtUp, Restarted, Resumed, WatchEvent

#: Is told how much is done of how much, as often as that changes; of 0 as long as nobody knows.
Progress = Callable[[int, int], None]


def unheard(_done: int, _total: int) -> None:
    """Nobody wants to know."""


class Counted:
    """How far a watch is with what the bucket held when it began: *done* of about *total*."""

    def __init__(self, progress: Progress = unheard) -> None:
        self.done, self.total = 0, 0
        self._progress = progress
        self._behind = True

    def feed(self, event: WatchEvent) -> None:
        """Take note of *event*."""
        if isinstance(event, Restarted | Resumed):
            self.done, self.total, self._behind = 0, event.expected, True
        elif isinstance(event, CaughtUp):
            self.total, self._behind = self.done, False
            self._progress(self.done, self.total)
        elif self._behind:
            self.done += 1
            # There is more to come as long as it has not caught up.
            self.total = max(self.total, self.done + 1)
            self._progress(self.done, self.total)
