"""The mount itself: from `pyfuse3.init` to `pyfuse3.close`.

Concurrency: `serve_kernel` is called once in a process, because pyfuse3 keeps its session in
globals.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyfuse3
import trio

from natsfs.config import MountConfig
from natsfs.errors import MountFailed
from natsfs.filesystem import Served
from natsfs.metrics import Metrics
from natsfs.mount.mountinfo import mounts_on
from natsfs.operations.device import reads_do_not_block
from natsfs.operations.handlers import Operations
from natsfs.operations.notifier import KernelNotifier
from natsfs.operations.reserve import Reserve
from natsfs.operations.unheard import releases_may_be_late
from natsfs.threads import in_thread_or_here

log = logging.getLogger(__name__)

#: KiB that the kernel reads ahead of a sequential reader: with its default of 128 a prototype read
#: 0.48 GB/s through FUSE on the machine that read 4.6 GB/s with this (design.md, rule 8).
READ_AHEAD_KB = 1024

#: Requests that are served at once.  Each that waits takes up one, so that with pyfuse3's 99 a
#: hundred programs that wait for one bucket would stop all others; a task costs some KiB.
MAX_TASKS = 1000

#: Seconds that a notification may take to end.  It is blocked by requests of programs, which take
#: milliseconds, or as long as a server that does not answer.
NOTIFICATION_GRACE = 5.0

#: Seconds between looks whether it has.
_LOOK = 0.005


async def serve_kernel(
    served: Served,
    config: MountConfig,
    metrics: Metrics,
    ready: Callable[[], Awaitable[None]],
    ending: Callable[[], None],
    relieve: Callable[[], None],
) -> None:
    """Serve until the mount ends; *ending* is called when a signal asks for that, *relieve* when
    memory is short."""
    connected = trio.Event()

    def begin() -> None:
        # Before, the kernel has nothing cached, and libfuse refuses to tell it anything (ENOSYS).
        served.tell(notifier)
        connected.set()

    reserve = Reserve(relieve)
    reserve.take()
    operations = Operations(served, metrics, reserve, on_init=begin)
    notifier = KernelNotifier()  # now, because it may fail: its threads may not be had
    with _captured_stderr() as said:
        try:
            pyfuse3.init(operations, str(config.directory), _options(served, config))
        except RuntimeError as error:
            notifier.stop()
            raise MountFailed(f"cannot mount on {config.directory}: {said() or error}") from error
    mounts = mounts_on(config.directory)
    device = mounts[-1].device if mounts else ""
    # A mount point that turns into an empty directory after a crash would invite a mirroring job to
    # delete everything; one that says ENOTCONN does not.  So only an orderly end unmounts.
    orderly = False
    try:
        with reads_do_not_block(reserve), releases_may_be_late():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_on_signal, notifier, ending)
                nursery.start_soon(_announce, connected, device, ready)
                await pyfuse3.main(max_tasks=MAX_TASKS)
                nursery.cancel_scope.cancel()
        orderly = True
    finally:
        with trio.CancelScope(shield=True):
            if not await _silenced(notifier):
                await in_thread_or_here(partial(_abort, device))
                await _silenced(notifier)
                # pyfuse3 does not unmount what was aborted.
                if orderly:
                    await in_thread_or_here(partial(_detach, config.directory))
        pyfuse3.close(unmount=orderly)


async def _silenced(notifier: KernelNotifier) -> bool:
    """Whether no notification is under way any more, nor will be.

    One that is would use the session after it is closed, and would keep /dev/fuse open: the kernel
    would take the daemon for alive, and let the request that blocks the notification wait for ever.
    """
    notifier.stop()
    with trio.move_on_after(NOTIFICATION_GRACE):
        # Not in a thread, which might not be had.
        while not notifier.join(0):  # noqa: ASYNC110  (other threads set no event of trio's)
            await trio.sleep(_LOOK)
        return True
    return False


def _abort(device: str) -> None:
    """Cut the connection to the kernel, so that all requests end with ENOTCONN."""
    minor = device.partition(":")[2]
    log.warning("a notification does not end: the connection to the kernel is cut")
    try:
        Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")
    except OSError as error:
        log.error("it cannot be cut: %s", error)


def _detach(directory: Path) -> None:
    """Free the directory of a mount whose connection was cut."""
    root = os.geteuid() == 0
    # Not by way of umount's helper, which would wait for this very process.
    internally = ["umount", "--internal-only", "--lazy", "--no-canonicalize"]
    command = internally if root else ["fusermount3", "-u", "-z"]
    try:
        subprocess.run(
            [*command, directory], check=True, stdin=subprocess.DEVNULL, timeout=NOTIFICATION_GRACE
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.error("%s stays mounted: %s", directory, error)


def _options(served: Served, config: MountConfig) -> set[str]:
    source = (config.source or config.bucket).replace("\\", "\\\\").replace(",", "\\,")
    # nodiratime is kept by `Mounted`; libfuse before 3.16 refuses the word.
    words = set(config.kernel_options) - {"nodiratime"}
    options = {"default_permissions", f"fsname={source}", "subtype=natsfs", *words}
    if config.allow_other:
        options.add("allow_other")
    if served.read_only:
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


async def _stop_on_signal(notifier: KernelNotifier, ending: Callable[[], None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: unmounting", signal.Signals(number).name)
            ending()
            # What blocks a notification is answered only while the loop goes on.
            await _silenced(notifier)
            pyfuse3.terminate()


async def _announce(
    connected: trio.Event, device: str, ready: Callable[[], Awaitable[None]]
) -> None:
    await connected.wait()
    await in_thread_or_here(partial(_raise_read_ahead, device))
    await ready()


def _raise_read_ahead(device: str) -> None:
    try:
        Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(str(READ_AHEAD_KB))
    except OSError as error:
        log.info("the kernel's read-ahead stays at its default, reads are slower: %s", error)
