"""Keeps whoever supervises the mount informed: that it lives, and how far it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from natsfs.control import MountStatus
from natsfs.supervisor import Supervisor

#: Times the pause between two messages that starting and ending may take from each message on: a
#: mount that fills its tree, or stores what is left, lives as long as its loop does.
_EXTENSION = 6


class Supervision:
    """Tells *supervisor* of the mount."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._status: Callable[[], Awaitable[MountStatus]] | None = None
        self._doing = "filling the tree"

    async def run(self) -> None:
        """Say how the mount is, again and again, from the loop that serves it: while that stands
        still, nothing is said, and a watchdog bites."""
        while self._supervisor.listens:
            await self._say()
            await trio.sleep(self._supervisor.pause)

    async def ready(self, status: Callable[[], Awaitable[MountStatus]]) -> None:
        """Programs can use the mount; *status* tells how it is from now on."""
        self._status, self._doing = status, ""
        self._supervisor.tell("READY=1")
        await self._say()

    async def ending(self) -> None:
        """The mount has begun to end."""
        self._doing = "ending"
        self._supervisor.tell("STOPPING=1")
        await self._say()

    async def _say(self) -> None:
        if not self._supervisor.listens:
            return
        lines = ["WATCHDOG=1", f"STATUS={await self._words()}"]
        if self._doing:
            lines.append(f"EXTEND_TIMEOUT_USEC={_EXTENSION * self._supervisor.pause * 1e6:.0f}")
        self._supervisor.tell(*lines)

    async def _words(self) -> str:
        if self._status is None:
            return self._doing
        status = await self._status()
        pending = f"{status['pending']} bytes to store" if status["pending"] else "all is stored"
        known = f"{status['connection']}, {status['objects']} objects, {pending}"
        return f"{self._doing}: {known}" if self._doing else known
