"""A bound on how many may do something at once; the rest wait in order.

Concurrency: taking a turn that is free does not wait, not even for the scheduler: that would cost a
small request a tenth of its time (which is why this is no `trio.CapacityLimiter`).
"""

from __future__ import annotations

import trio


class Turns:
    """At most *most* turns are taken at a time."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._queue = trio.lowlevel.ParkingLot()

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return len(self._queue)

    async def take(self, timeout: float) -> bool:
        """Wait for a turn, *timeout* seconds at most, and say whether it has come."""
        if self._free:
            self._free -= 1
            return True
        with trio.move_on_after(timeout):
            await self._queue.park()
            return True
        return False

    def give_back(self) -> None:
        """End a turn; the first who waits has the next."""
        if not self._queue.unpark():
            self._free += 1
