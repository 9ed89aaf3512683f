"""Renames by other clients, of which the watch tells only half.

nats.go and its kin rename by publishing a meta with the known nuid under the new name and purging
the old one; no watch shows a purge (protocol.md 1.7).  So a known version that comes up under
another name makes the old name suspect, and the leader is asked for it.

Tombstones the watch does tell, in their order with everything else, so one that is met here is left
to it.

Concurrency: `consider` is atomic.  Each suspect is looked at by a task of its own, which looks at
the tree again when the answer is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from natsfs.errors import NatsfsError, NotFoundError
from natsfs.filesystem.state import Mounted
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import info_of

log = logging.getLogger(__name__)

#: Seconds between looks at the old name.  Clients purge it after they have published the new one,
#: most of them within a millisecond; one that is still there after the last look was not renamed
#: but copied, by a client that lost its way.
CHECKS = (0.0, 0.02, 0.1, 0.5, 2.0, 10.0)


class ForeignRenames:
    """Finds out what became of old names."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        self._suspects: set[str] = set()
        self._suspected = trio.Event()

    def consider(self, info: ObjectInfo) -> None:
        """*info* has just come in and is not in the tree yet."""
        others = set(self._m.namespace.subjects_with(info.nuid)) - {info.subject}
        if others and not info.deleted:
            self._suspects |= others
            self._suspected.set()

    async def run(self, vanish: Callable[[str], None]) -> None:
        """Look at suspects until cancelled; *vanish* takes a subject out of the tree."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._suspected.wait()
                self._suspected = trio.Event()
                suspects, self._suspects = self._suspects, set()
                for subject in suspects:
                    nursery.start_soon(self._follow_up, subject, vanish)

    async def _follow_up(self, subject: str, vanish: Callable[[str], None]) -> None:
        for delay in CHECKS:
            await trio.sleep(delay)
            before = info_of(self._m.namespace.find(subject))
            if before is None or len(self._m.namespace.subjects_with(before.nuid)) < 2:
                return
            try:
                await self._m.store.get_info_at(subject)
            except NotFoundError:
                self._purged(before, vanish)
            except NatsfsError as error:
                log.info("whether %s is still there is unknown: %s", subject, error)

    def _purged(self, before: ObjectInfo, vanish: Callable[[str], None]) -> None:
        """*before* is gone, unless something newer came in while the leader was asked."""
        now = info_of(self._m.namespace.find(before.subject))
        if now is before and not self._m.reservations.covers(before.name):
            vanish(before.subject)
