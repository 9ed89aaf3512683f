"""The end of a mount: what is not saved is saved, for as long as that gets on, or left in the
journal."""

from __future__ import annotations

import logging
from collections.abc import Hashable

import trio

from natsfs.control import LeftBehind
from natsfs.filesystem import Filesystem, Served
from natsfs.store.session import LIVENESS_INTERVAL, Session

log = logging.getLogger(__name__)

#: Seconds without any progress, beyond the time-out of a single request, after which the end does
#: not wait any more for the server to take what is not saved.
GRACE = 30.0

#: The same when all is saved, and nothing beyond it: times of directories and old chunks are worth
#: asking for, and no more.
SHORT_GRACE = 3.0

#: The same while the server is there and JetStream takes its time: an answer that was lost is
#: waited for 10 s (`api.ATTEMPT_TIMEOUT`), and a cluster chooses a leader in 4 to 9 s, or in twice
#: that if the votes are split.  The local disk, of which nothing shows here, may take 20 s.
SLOW_GRACE = 30.0

#: Seconds after which a server that says nothing, not even to a ping, counts as one that hangs.
HANGS = LIVENESS_INTERVAL + 1.5

#: Seconds between two looks at the progress.
LOOK = 0.5


class Ending:
    """The end of the mount that shows *served* by way of *session*."""

    def __init__(self, served: Served, session: Session) -> None:
        self._served = served
        self._session = session
        self._patience = session.config.timeout + GRACE
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
                    "the next mount or `natsfs recover` saves them, or says why it cannot",
                    left,
                    bucket,
                    size,
                )

    async def _watch(self) -> None:
        reached, since = self._reached(), trio.current_time()
        while trio.current_time() < since + self._grace():
            await trio.sleep(LOOK)
            if (now := self._reached()) != reached:
                reached, since = now, trio.current_time()
        waited = trio.current_time() - since
        if not self._is_all_saved():
            log.error("the server has not taken anything for %.0f s", waited)
        elif self._hangs():
            log.warning(
                "no answer from the server for %.0f s: the mount ends, all files are stored, but "
                "maybe not each directory's mtime; `natsfs gc` frees old versions that are left",
                waited,
            )
        else:
            log.warning(
                "the server answers, and nothing gets done for %.0f s: the mount ends, all files "
                "are stored, but maybe not each directory's mtime; `natsfs gc` frees old versions "
                "that are left",
                waited,
            )
        self._scope.cancel()

    def _grace(self) -> float:
        if not self._is_all_saved():
            return self._patience
        return SHORT_GRACE if self._hangs() else SLOW_GRACE

    def _hangs(self) -> bool:
        return self._session.silence > HANGS

    def _is_all_saved(self) -> bool:
        return not any(found.unsaved_files() for found in self._served.running().values())

    def _reached(self) -> list[Hashable]:
        """Something that changes while the end gets on."""
        return [found.progress() for found in self._served.running().values()]

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
