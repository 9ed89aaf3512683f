"""The composition root: connect, build, mount, serve, and take down in the right order.

    build     the filesystem of one bucket, or of all
    kernel    the mount itself: pyfuse3, the signals that end it, read-ahead
    mountinfo the kernel's table of mounts
    holders   who has files open
    signals   the other ones
    supervision  what systemd is told
    ending    what is left to be saved when it is over
    recover   the same without a mount
    server    the embedded server
    status    what the mount says of itself
    activity  what it is doing
    exporter  Prometheus' way to its counters

The only package that knows all parts.  The order in which things end is the reverse of the nesting
here: the kernel first, then what is not saved, then the control socket (so that `natsfs umount` can
watch), then the connection, then the embedded server.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from natsfs.config import MountConfig
from natsfs.control import serve_control
from natsfs.data.cache import BlockCache
from natsfs.filesystem import Served
from natsfs.headroom import keep_what_is_freed
from natsfs.metrics import Metrics
from natsfs.mount.activity import Active, count_reconnects
from natsfs.mount.build import build
from natsfs.mount.ending import Ending
from natsfs.mount.exporter import export, open_listeners
from natsfs.mount.kernel import serve_kernel
from natsfs.mount.server import server_of
from natsfs.mount.signals import Signals
from natsfs.mount.status import Status
from natsfs.mount.supervision import Supervision
from natsfs.progress import Progress, unheard
from natsfs.store.buffers import clear_shelves
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.link import open_links
from natsfs.store.session import open_session
from natsfs.supervisor import NOBODY, Supervisor
from natsfs.threads import in_thread


async def serve(
    config: MountConfig,
    *,
    ready: Callable[[], None],
    control_path: Path,
    hang_up: Callable[[], None] = lambda: None,
    supervisor: Supervisor = NOBODY,
    listing: Progress = unheard,
) -> None:
    """Mount the bucket, or all, and serve until unmounted or SIGTERM or SIGINT arrives.

    *ready* is called once, in a thread, when programs can use the mount, *hang_up* at each SIGHUP.
    SIGUSR1 logs the state.  *supervisor* hears how the mount is until it has ended, *listing* how
    far the tree is before it can be used.

    Errors: `ConnectFailed`, `JetStreamUnavailable`, `BucketNotFoundError`, `PermissionsError`,
    `MountFailed` (the kernel or fusermount3 refused, the embedded server did not start),
    `CacheError`.
    """
    _prepare_memory()
    metrics, cache = Metrics(), BlockCache(config.cache)
    async with (
        server_of(config) as server,
        open_session(server) as session,
        open_links(session) as links,
        trio.open_nursery() as background,
    ):
        if config.metrics_address is not None:
            listeners = await open_listeners(*config.metrics_address)
            background.start_soon(export, listeners, metrics)
        signals, supervision = Signals(hang_up), Supervision(supervisor)
        await background.start(signals.run)
        background.start_soon(supervision.run)
        served = await build(JetStreamManager(links), config, background, cache, metrics, listing)
        status = Status(config, server, session, served, cache, metrics)
        active, ending = Active(status, metrics, cache), Ending(served, session)
        background.start_soon(count_reconnects, session, metrics)
        background.start_soon(cache.tidy)

        def end() -> None:
            # Whoever unmounts wants an end.
            session.patient = False

        calls = {"status": status.answer, "activity": active.answer, "hurry": ending.hurry}
        await background.start(serve_control, control_path, calls)
        signals.status = status

        async def usable() -> None:
            # It may run a program that looks at the mount, so it must not run here.
            await in_thread(ready)
            await supervision.ready(status.answer)

        try:
            session.patient = config.hard
            await serve_kernel(served, config, metrics, usable, end, partial(_relieve, served))
        finally:
            end()
            await supervision.ending()
            await ending.run()
        background.cancel_scope.cancel()


def _prepare_memory() -> None:
    """Keep what was freed for what streams.  Do not look through modules and their functions for
    cycles, 45,000 objects that stay: that took 13 ms at a time, 17 of the 330 that reading 500
    small files takes."""
    keep_what_is_freed()
    gc.freeze()


def _relieve(served: Served) -> None:
    """Free what memory can be spared."""
    clear_shelves()
    for filesystem in served.running().values():
        filesystem.mounted.outflows.hurry()
