"""The composition root: connect, build, mount, serve, and take down in the right order.

    build     the filesystem of one bucket, or of all
    kernel    the mount itself: pyfuse3, signals, read-ahead
    status    what the mount says of itself

The only package that knows all parts.  The order in which things end is the reverse of the nesting
here: the kernel first, then what is not saved, then the control socket (so that `natsfs umount` can
watch), then the connection, then the embedded server.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from natsfs.config import MountConfig, ServerConfig
from natsfs.control import serve_control
from natsfs.filesystem import Filesystem, Served
from natsfs.mount.build import build
from natsfs.mount.kernel import serve_kernel
from natsfs.mount.status import Status
from natsfs.server import EmbeddedServer
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.link import open_links
from natsfs.store.session import open_session

log = logging.getLogger(__name__)

#: Seconds between the end of the mount and giving up on what still has to be saved or freed, beyond
#: the time-out of a single request.
FINISH_GRACE = 30.0


async def serve(config: MountConfig, *, ready: Callable[[], None], control_path: Path) -> None:
    """Mount the bucket, or all, and serve until unmounted or SIGTERM or SIGINT arrives.

    *ready* is called once, when programs can use the mount.

    Errors: `ConnectFailed`, `JetStreamUnavailable`, `BucketNotFoundError`, `PermissionsError`,
    `MountFailed` (the kernel or fusermount3 refused, the embedded server did not start),
    `CacheError`.
    """
    async with (
        _server(config) as server,
        open_session(server) as session,
        open_links(session) as links,
        trio.open_nursery() as background,
    ):
        served = await build(JetStreamManager(links), config, background)
        status = Status(config, server, session, served)
        await background.start(serve_control, control_path, {"status": status.answer})
        try:
            await serve_kernel(served, config, ready)
        finally:
            await finish(served, server.timeout)
        background.cancel_scope.cancel()


@asynccontextmanager
async def _server(config: MountConfig) -> AsyncIterator[ServerConfig]:
    """The server to connect to, which is ours while the mount lasts if it is the embedded one."""
    if config.embedded is None:
        yield config.server
        return
    embedded = await trio.to_thread.run_sync(EmbeddedServer.join, config.embedded)
    try:
        yield replace(config.server, urls=(embedded.url,))
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(embedded.leave)


async def finish(served: Served, timeout: float) -> None:
    """Save and free what is left.  It may take as long as the server needs, but not for ever."""
    deadline = trio.current_time() + timeout + FINISH_GRACE
    with trio.CancelScope(shield=True, deadline=deadline):
        async with trio.open_nursery() as nursery:
            for bucket, filesystem in served.running().items():
                nursery.start_soon(_finish_one, bucket, filesystem)


async def _finish_one(bucket: str, filesystem: Filesystem) -> None:
    try:
        unsaved = await filesystem.finish()
    except Exception:
        # The other buckets have something to save, too.
        log.exception("bucket %s could not be finished", bucket)
    else:
        if unsaved:
            log.error("%d files of bucket %s could not be saved", unsaved, bucket)
