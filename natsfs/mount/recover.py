"""Recovery without a mount: the filesystem of a bucket, put together for as long as it takes to
save what mounts that died have left in its journal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import trio

from natsfs.config import MountConfig
from natsfs.data.cache import BlockCache
from natsfs.data.salvage import Salvaged
from natsfs.filesystem import Filesystem
from natsfs.filesystem.recovery import Deal, Left, Recovery
from natsfs.metrics import Metrics
from natsfs.mount.build import TELLING, build
from natsfs.mount.ending import Ending
from natsfs.mount.server import server_of
from natsfs.progress import Progress, unheard
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.link import open_links
from natsfs.store.session import open_session


class Wish(Enum):
    """What becomes of files that are not stored without being asked for."""

    #: They stay in the journal.
    KEEP = "keep"
    #: They are stored, and replace nothing.
    STORE = "store"
    #: They go.
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many files were saved, and what is left."""

    saved: int
    left: tuple[Left, ...]


async def recover(
    config: MountConfig,
    unfinished: Wish,
    former: Wish,
    into: Path | None,
    listing: Progress = unheard,
    storing: Progress = unheard,
) -> Recovered:
    """Save what the journal of *config*'s bucket holds and return when the server has it.

    *unfinished* is for files that were still being written, *former* for those of an earlier bucket
    of that name.  With *into*, either go into files below that directory instead.  *listing* is
    told how far the tree is, *storing* how many bytes are stored.

    Errors: those of `natsfs.mount.serve`.
    """
    async with (
        server_of(config) as server,
        open_session(server) as session,
        open_links(session) as links,
        trio.open_nursery() as background,
    ):
        cache, metrics = BlockCache(config.cache), Metrics()
        manager = JetStreamManager(links)
        served = await build(manager, config, background, cache, metrics, listing)
        assert isinstance(served, Filesystem)
        background.start_soon(_tell, served, metrics, storing)
        recovery = served.recovery
        if unfinished is not Wish.KEEP or into is not None:
            deal = _how(unfinished, into, recovery, recovery.store_beside)
            await recovery.settle(served.mounted.journal.parent, deal)
        if former is not Wish.KEEP or into is not None:
            await served.former.settle(_how(former, into, recovery, served.former.store))
        await Ending(served, session).run()
        stored = recovery.adopted - len(served.mounted.journal)
        recovery.count_left()
        background.cancel_scope.cancel()
    return Recovered(stored, (*recovery.left, *served.former.left))


async def _tell(served: Filesystem, metrics: Metrics, storing: Progress) -> None:
    """Tell *storing* how much of what waits is stored, until cancelled."""
    most = 0
    while True:
        most = max(most, served.pending_bytes())
        if most:
            # A file waits until all of it is stored: what has gone says more.
            storing(min(metrics.bytes()["stored"], most), most)
        await trio.sleep(TELLING)


def _how(wish: Wish, into: Path | None, recovery: Recovery, store: Deal) -> Deal:
    async def discard(salvaged: Salvaged) -> None:
        """Nothing is to be done before it is dropped."""

    if into is not None:
        return lambda salvaged: recovery.save(salvaged, into)
    return discard if wish is Wish.DISCARD else store
