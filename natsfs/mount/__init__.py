"""The composition root: connect, build, mount, serve, and take down in the right order.

    build     the filesystem of one bucket, or of all
    kernel    the mount itself: pyfuse3, signals, read-ahead
    ending    what is left to be saved when it is over
    recover   the same without a mount
    server    the embedded server
    status    what the mount says of itself

The only package that knows all parts.  The order in which things end is the reverse of the nesting
here: the kernel first, then what is not saved, then the control socket (so that `natsfs umount` can
watch), then the connection, then the embedded server.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from natsfs.config import MountConfig
from natsfs.control import serve_control
from natsfs.mount.build import build
from natsfs.mount.ending import Ending
from natsfs.mount.kernel import serve_kernel
from natsfs.mount.server import server_of
from natsfs.mount.status import Status
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.link import open_links
from natsfs.store.session import open_session


async def serve(config: MountConfig, *, ready: Callable[[], None], control_path: Path) -> None:
    """Mount the bucket, or all, and serve until unmounted or SIGTERM or SIGINT arrives.

    *ready* is called once, when programs can use the mount.

    Errors: `ConnectFailed`, `JetStreamUnavailable`, `BucketNotFoundError`, `PermissionsError`,
    `MountFailed` (the kernel or fusermount3 refused, the embedded server did not start),
    `CacheError`.
    """
    async with (
        server_of(config) as server,
        open_session(server) as session,
        open_links(session) as links,
        trio.open_nursery() as background,
    ):
        served = await build(JetStreamManager(links), config, background)
        status, ending = Status(config, server, session, served), Ending(served, server.timeout)

        def end() -> None:
            # Whoever unmounts wants an end.
            session.patient = False

        calls = {"status": status.answer, "hurry": ending.hurry}
        await background.start(serve_control, control_path, calls)
        try:
            session.patient = config.hard
            await serve_kernel(served, config, ready, end)
        finally:
            end()
            await ending.run()
        background.cancel_scope.cancel()
