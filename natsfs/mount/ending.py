"""The end of a mount: what is not saved is saved, for as long as that gets on, or left in the
journal."""

from __future__ import annotations

import logging

import trio

from natsfs.control import LeftBehind
from natsfs.filesystem import Filesystem, Served

log = logging.getLogger(__name__)

#: Seconds without any progress, beyond the time-out of a single request, after which the end does
#: not wait for the server any more.
GRACE = 30.0

#: Seconds between two looks at the progress.
LOOK = 1.0


class Ending:
    """The end of the mount that shows *served*; *timeout* is that of a request in seconds."""

    def __init__(self, served: Served, timeout: float) -> None:
        self._served = served
        self._patience = timeout + GRACE
        self._scope = trio.CancelScope(shield=True)

    async def hurry(self) -> LeftBehind:
        """Do not wait for the server from now on.  What is left then is in the journal."""
        self._scope.cancel()
        return LeftBehind(files=self._files(), bytes=self._bytes())

    async def run(self) -> None:
        """Save and free what is left, until that is done or does not get on."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                async with trio.open_nursery() as finishing:
                    for bucket, filesystem in self._served.running().items():
                        finishing.start_soon(_finish, bucket, filesystem)
                nursery.cancel_scope.cancel()
        for bucket, filesystem in self._served.running().items():
            left, size = filesystem.mounted.journal.close(), filesystem.pending_bytes()
            if left:
                log.error(
                    "%d files of bucket %s, %d bytes, could not be saved and stay in the journal: "
                    "the next mount or `natsfs recover` saves them",
                    left,
                    bucket,
                    size,
                )

    async def _watch(self) -> None:
        left, deadline = self._left(), trio.current_time() + self._patience
        while trio.current_time() < deadline:
            await trio.sleep(LOOK)
            if (now := self._left()) != left:
                left, deadline = now, trio.current_time() + self._patience
        log.error("the server has not taken anything for %g s", self._patience)
        self._scope.cancel()

    def _left(self) -> tuple[int, int, int]:
        """Something that changes while the end gets on."""
        running = self._served.running().values()
        stored = sum(filesystem.unsaved.stored_bytes() for filesystem in running)
        purges = sum(len(filesystem.mounted.purger) for filesystem in running)
        return self._files(), stored, purges

    def _files(self) -> int:
        return sum(len(found.mounted.journal) for found in self._served.running().values())

    def _bytes(self) -> int:
        return sum(found.pending_bytes() for found in self._served.running().values())


async def _finish(bucket: str, filesystem: Filesystem) -> None:
    try:
        await filesystem.finish()
    except Exception:
        # The other buckets have something to save, too.
        log.exception("bucket %s could not be finished", bucket)
