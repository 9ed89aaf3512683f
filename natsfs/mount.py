"""The composition root: connect, build, mount, serve, and take down in the right order.

The only module that knows all parts.  The order in which things end is the reverse of the nesting
here: the kernel first, then what is not saved, then the control socket (so that `natsfs umount` can
watch), then the connection, then the embedded server.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pyfuse3
import trio

from natsfs.config import MountConfig, ServerConfig
from natsfs.control import MalformedEntry, MountStatus, serve_control, server_status
from natsfs.data.cache import BlockCache
from natsfs.data.reader import ObjectReader
from natsfs.errors import BucketNotFoundError, ExistsError, MountFailed
from natsfs.filesystem import Filesystem, Mounted
from natsfs.filesystem.attributes import is_hard_link
from natsfs.filesystem.purger import Purger
from natsfs.filesystem.reservations import Reservations
from natsfs.operations.handlers import Operations
from natsfs.operations.notifier import KernelNotifier
from natsfs.server import EmbeddedServer
from natsfs.store.base import ObjectStore
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.link import open_links
from natsfs.store.model import BucketConfig, BucketStatus
from natsfs.store.session import Session, open_session
from natsfs.tree.inodes import InodeTable
from natsfs.tree.namespace import Namespace

log = logging.getLogger(__name__)

#: KiB that the kernel reads ahead of a sequential reader: with its default of 128 a prototype read
#: 0.48 GB/s through FUSE on the machine that read 4.6 GB/s with this (design.md, rule 8).
READ_AHEAD_KB = 1024

#: Seconds between the end of the mount and giving up on what still has to be saved or freed, beyond
#: the time-out of a single request.
FINISH_GRACE = 30.0


async def serve(config: MountConfig, *, ready: Callable[[], None], control_path: Path) -> None:
    """Mount the bucket and serve it until it is unmounted or SIGTERM or SIGINT arrives.

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
        store = await _open_bucket(JetStreamManager(links), config)
        filesystem = await _build(store, config, background)
        status = _Status(config, server, session, filesystem)
        await background.start(serve_control, control_path, {"status": status.answer})
        try:
            await _serve_kernel(filesystem, config, ready)
        finally:
            await _finish(filesystem, server.timeout)
        background.cancel_scope.cancel()


# -- what the mount stands on -----------------------------------------------------------------


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


async def _open_bucket(manager: JetStreamManager, config: MountConfig) -> ObjectStore:
    try:
        return await manager.bind(config.bucket)
    except BucketNotFoundError:
        if not config.create:
            raise
    try:
        return await manager.create(BucketConfig(config.bucket))
    except ExistsError:
        # Another mount with --create was faster.
        return await manager.bind(config.bucket)


async def _build(store: ObjectStore, config: MountConfig, nursery: trio.Nursery) -> Filesystem:
    """The filesystem of the bucket, its tree complete."""
    status = await store.status()
    namespace = Namespace(is_hard_link)
    # Until something is in it, the bucket's directory is as old as the bucket.
    namespace.root.changed = (0, status.created_ns)
    cache = BlockCache(config.cache)
    identity = f"{status.stream}@{status.created_ns}"
    mounted = Mounted(
        store=store,
        namespace=namespace,
        inodes=InodeTable(namespace.root),
        reader=ObjectReader(store, cache, identity, nursery),
        purger=Purger(store, config.purge_delay),
        reservations=Reservations(),
        tree=config.tree,
        root=PurePosixPath(config.directory),
        spool_directory=config.cache.directory / "spool",
        read_only=_why_read_only(config, status),
        atomic=status.allow_atomic,
    )
    filesystem = Filesystem(mounted)
    await filesystem.start(nursery)
    return filesystem


def _why_read_only(config: MountConfig, status: BucketStatus) -> str | None:
    if config.read_only:
        return "the mount is read-only"
    if status.sealed:
        reason = f"bucket {status.bucket} is sealed"
    elif status.mirror is not None:
        reason = f"bucket {status.bucket} is a mirror of {status.mirror}"
    else:
        return None
    log.info("%s: mounted read-only", reason)
    return reason


async def _finish(filesystem: Filesystem, timeout: float) -> None:
    """Save and free what is left.  It may take as long as the server needs, but not for ever."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout + FINISH_GRACE):
        unsaved = await filesystem.finish()
        if unsaved:
            log.error("%d files could not be saved", unsaved)


# -- the kernel -------------------------------------------------------------------------------


async def _serve_kernel(
    filesystem: Filesystem, config: MountConfig, ready: Callable[[], None]
) -> None:
    connected = trio.Event()
    operations = Operations(filesystem, on_init=connected.set)
    with _captured_stderr() as said:
        try:
            pyfuse3.init(operations, str(config.directory), _options(filesystem, config))
        except RuntimeError as error:
            raise MountFailed(f"cannot mount on {config.directory}: {said() or error}") from error
    notifier = KernelNotifier()
    filesystem.mounted.notifier = notifier
    # A mount point that turns into an empty directory after a crash would invite a mirroring job to
    # delete everything; one that says ENOTCONN does not.  So only an orderly end unmounts.
    orderly = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal)
            nursery.start_soon(_announce, connected, config.directory, ready)
            await pyfuse3.main()
            nursery.cancel_scope.cancel()
        orderly = True
    finally:
        notifier.stop()
        pyfuse3.close(unmount=orderly)


def _options(filesystem: Filesystem, config: MountConfig) -> set[str]:
    source = (config.source or config.bucket).replace("\\", "\\\\").replace(",", "\\,")
    options = {"default_permissions", f"fsname={source}", "subtype=natsfs", *config.kernel_options}
    if config.allow_other:
        options.add("allow_other")
    if filesystem.mounted.read_only is not None:
        options.add("ro")
    return options


@contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """What libfuse and fusermount3 print, which is the only place where they say what is wrong."""
    with tempfile.TemporaryFile() as stream:
        kept = os.dup(2)
        os.dup2(stream.fileno(), 2)

        def said() -> str:
            stream.seek(0)
            return " ".join(stream.read().decode(errors="replace").split())

        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)


async def _stop_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: unmounting", signal.Signals(number).name)
            pyfuse3.terminate()


async def _announce(connected: trio.Event, directory: Path, ready: Callable[[], None]) -> None:
    await connected.wait()
    await trio.to_thread.run_sync(_raise_read_ahead, directory)
    ready()


def _raise_read_ahead(directory: Path) -> None:
    device = _device_of(directory)
    try:
        Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(str(READ_AHEAD_KB))
    except OSError as error:
        log.info("the kernel's read-ahead stays at its default, reads are slower: %s", error)


def _device_of(directory: Path) -> str:
    """MAJOR:MINOR of what is mounted on *directory*, told by the kernel's table: to ask the mount
    itself would be to wait for ourselves."""
    spelled = "".join(_octal(character) for character in str(directory))
    device = ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == spelled:
            device = fields[2]
    return device


def _octal(character: str) -> str:
    return f"\\{ord(character):03o}" if character in " \t\n\\" else character


# -- what `natsfs status` shows ---------------------------------------------------------------


class _Status:
    """Answers the control socket."""

    def __init__(
        self, config: MountConfig, server: ServerConfig, session: Session, filesystem: Filesystem
    ) -> None:
        self._config = config
        self._server = server
        self._session = session
        self._fs = filesystem
        self._since = time.monotonic()

    async def answer(self) -> MountStatus:
        mounted = self._fs.mounted
        return MountStatus(
            source=self._config.source or self._config.bucket,
            directory=str(self._config.directory),
            bucket=self._config.bucket,
            pid=os.getpid(),
            uptime=time.monotonic() - self._since,
            connection="connected" if self._session.connected else "disconnected",
            read_only=mounted.read_only is not None,
            objects=len(mounted.namespace),
            pending=self._fs.pending_bytes(),
            server=server_status(self._server),
            malformed=[
                MalformedEntry(name=subject, reason=event.reason)
                for subject, event in mounted.malformed.items()
            ],
        )
