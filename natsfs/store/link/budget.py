"""A bound on the sum of what several tasks have taken; the rest wait in order.

Concurrency: taking what is free does not wait, not even for the scheduler: that would cost a small
request a tenth of its time.  What is granted to a waiting task is taken at once, before it runs.
"""

from __future__ import annotations

from collections import deque

import trio


class Budget:
    """*total* units of something."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._queue: deque[tuple[int, trio.Event]] = deque()

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._queue)

    async def take(self, amount: int, timeout: float) -> bool:
        """Wait for *amount* units, *timeout* seconds at most, and say whether they were taken.

        More than there are in total are waited for until nobody else has any.
        """
        amount = min(amount, self._total)
        if not self._queue and amount <= self._free:
            self._free -= amount
            return True
        ticket = (amount, trio.Event())
        self._queue.append(ticket)
        try:
            with trio.move_on_after(timeout):
                await ticket[1].wait()
        except BaseException:
            if not self._leave(ticket):
                self.give_back(amount)
            raise
        return not self._leave(ticket)

    def give_back(self, amount: int) -> None:
        """End the use of as much as was taken."""
        self._free += min(amount, self._total)
        self._grant()

    def _grant(self) -> None:
        while self._queue and self._queue[0][0] <= self._free:
            amount, granted = self._queue.popleft()
            self._free -= amount
            granted.set()

    def _leave(self, ticket: tuple[int, trio.Event]) -> bool:
        """Wait no longer, and say whether that was for nothing."""
        if ticket[1].is_set():
            return False
        self._queue.remove(ticket)
        self._grant()
        return True
