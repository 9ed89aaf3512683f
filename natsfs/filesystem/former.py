"""What was written to an earlier bucket of the same name, which was deleted and made again.

Nobody can know whether it is wanted in the new bucket, which may be somebody else's.  So a mount
says that it is there and stores none of it.  Its user may: under its name where nothing has that,
and beside otherwise.  What the journal has only in part cannot be stored, as the rest went with the
bucket; it can be saved as a file.

Concurrency: one task, before programs can use the tree.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from natsfs.data.salvage import Salvaged
from natsfs.errors import CacheError, StaleVersion
from natsfs.filesystem.recovery import Deal, Left, Recovery
from natsfs.filesystem.state import Mounted
from natsfs.filesystem.unsaved import FORMER
from natsfs.threads import in_thread_or_here

log = logging.getLogger(__name__)


class Former:
    """Looks after the journals of earlier buckets."""

    def __init__(self, mounted: Mounted, recovery: Recovery) -> None:
        self._m = mounted
        self._recovery = recovery
        #: What is left.
        self.left: list[Left] = []

    async def report(self) -> None:
        """Find what there is, and say so."""

        async def leave(salvaged: Salvaged) -> bool:
            self._leave(salvaged)
            return False

        for parent in await self._found():
            await self._recovery.each(parent, leave)
        if self.left:
            log.warning(
                "bucket %s: %d files, %d bytes, that were written to an earlier bucket of this "
                "name wait in the journal for `natsfs recover --former`",
                self._m.store.bucket,
                len(self.left),
                sum(left.size for left in self.left),
            )

    async def _found(self) -> list[Path]:
        try:
            return await in_thread_or_here(self._m.journal.former)
        except CacheError as error:
            # What the mount's own journal meets there is a warning; it does without.
            log.info("whether something waits for an earlier bucket is not known: %s", error)
            return []

    async def settle(self, deal: Deal) -> None:
        """Let *deal* decide on what was left; it gets each file without what binds it to the
        bucket that is gone.  Where it fails, `Recovery.left` says why."""
        self.left = []

        async def dealt(salvaged: Salvaged) -> bool:
            return await self._recovery.attempt(_severed(salvaged), deal)

        for parent in await in_thread_or_here(self._m.journal.former):
            await self._recovery.each(parent, dealt)

    async def store(self, salvaged: Salvaged) -> None:
        """Put *salvaged* into the tree, to be stored in the bucket of today.

        Errors: `StaleVersion` (the journal has only a part of it), those of `Recovery.restore`."""
        if not salvaged.is_self_contained:
            raise StaleVersion("the rest of it was in the bucket that is gone")
        if salvaged.finished:
            await self._recovery.restore_there(salvaged)
        else:
            await self._recovery.store_beside(salvaged)
        self._recovery.adopted += 1

    def _leave(self, salvaged: Salvaged) -> None:
        why = FORMER
        if not salvaged.is_self_contained:
            why += ", which had the rest of it"
        self.left.append(Left(salvaged.state.name, salvaged.size, salvaged.time_ns, why))


def _severed(salvaged: Salvaged) -> Salvaged:
    """*salvaged* without the versions of the bucket that is gone."""
    free = salvaged.state.but(below=None, replaces="", appended_from=None, nuids=())
    return replace(salvaged, state=free)
