"""Recovery without a mount: the filesystem of a bucket, put together for as long as it takes to
save what mounts that died have left in its journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import trio

from natsfs.config import MountConfig
from natsfs.data.cache import BlockCache
from natsfs.data.salvage import Salvaged
from natsfs.filesystem import Filesystem
from natsfs.filesystem.recovery import Left
from natsfs.metrics import Metrics
from natsfs.mount.build import build
from natsfs.mount.ending import Ending
from natsfs.mount.server import server_of
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.link import open_links
from natsfs.store.session import open_session


class Unfinished(Enum):
    """What becomes of files that were still being written."""

    #: They stay in the journal.
    KEEP = "keep"
    #: They are stored beside what they were to replace.
    STORE = "store"
    #: They go.
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many files were saved, and what is left."""

    saved: int
    left: tuple[Left, ...]


async def recover(config: MountConfig, unfinished: Unfinished, into: Path | None) -> Recovered:
    """Save what the journal of *config*'s bucket holds and return when the server has it.  With
    *into*, what cannot be stored goes into files below that directory.

    Errors: those of `natsfs.mount.serve`.
    """
    async with (
        server_of(config) as server,
        open_session(server) as session,
        open_links(session) as links,
        trio.open_nursery() as background,
    ):
        served = await build(
            JetStreamManager(links), config, background, BlockCache(config.cache), Metrics()
        )
        assert isinstance(served, Filesystem)
        recovery = served.recovery
        if unfinished is not Unfinished.KEEP or into is not None:
            await recovery.settle(served.mounted.journal.parent, _how(served, unfinished, into))
        await Ending(served, server.timeout).run()
        stored = recovery.adopted - len(served.mounted.journal)
        recovery.count_left()
        background.cancel_scope.cancel()
    return Recovered(stored, tuple(recovery.left))


def _how(
    served: Filesystem, unfinished: Unfinished, into: Path | None
) -> Callable[[Salvaged], Awaitable[None]]:
    async def discard(salvaged: Salvaged) -> None:
        """Nothing is to be done before it is dropped."""

    if into is not None:
        return lambda salvaged: served.recovery.save(salvaged, into)
    return discard if unfinished is Unfinished.DISCARD else served.recovery.store_beside
