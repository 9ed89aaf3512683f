"""What a mount does on SIGHUP and SIGUSR1; SIGTERM and SIGINT are for `kernel`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from itertools import islice
from typing import Any

import trio

from natsfs.data.outflow import Outflow
from natsfs.filesystem import Filesystem
from natsfs.handles import OpenFile
from natsfs.mount.status import Status

log = logging.getLogger(__name__)

#: Lines that a dump has at most of each kind: it is for people to read, and the loop waits for it.
MOST = 200


class Signals:
    """Obeys signals.  *hang_up* opens the log anew; *status* is None until there is a tree."""

    def __init__(self, hang_up: Callable[[], None]) -> None:
        self._hang_up = hang_up
        self.status: Status | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Obey SIGHUP and SIGUSR1 until cancelled; started when they do no harm any more."""
        with trio.open_signal_receiver(signal.SIGHUP, signal.SIGUSR1) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._hang_up()
                else:
                    await self._dump()

    async def _dump(self) -> None:
        """Log the state, a line for each fact."""
        root = trio.lowlevel.current_root_task()
        tasks = list(_tasks(root)) if root is not None else []
        if self.status is None:
            log.info("state: filling the tree")
        else:
            await self._dump_status(self.status)
        log.info("state: %d tasks", len(tasks))
        for task in islice(tasks, MOST):
            log.info("state: task %s", _described(task))

    async def _dump_status(self, status: Status) -> None:
        known = await status.answer()
        log.info(
            "state: %s on %s, process %d, up %.0f s, %s, %d objects, %d bytes to store",
            *(known["source"], known["directory"], known["pid"], known["uptime"]),
            *(known["connection"], known["objects"], known["pending"]),
        )
        for bucket, filesystem in status.running().items():
            _dump_bucket(bucket, filesystem)


def _dump_bucket(bucket: str, filesystem: Filesystem) -> None:
    files = filesystem.handles.files()
    log.info(
        "state: bucket %s: %d open files in %d handles, %d files in the journal, %d versions to be "
        "freed",
        *(bucket, len(files), len(filesystem.handles)),
        *(len(filesystem.mounted.journal), len(filesystem.mounted.purger)),
    )
    for file in islice(files, MOST):
        name = _name(file)
        log.info("state: open file %r: %s", name, _how(file), extra={"object": name})


def _name(file: OpenFile) -> str:
    info = file.leaf.info
    return info.name if info is not None else file.leaf.name.decode(errors="replace")


def _how(file: OpenFile) -> str:
    writers = sum(handle.writable for handle in file.handles)
    content = file.content
    kind = "leaves for the server" if isinstance(content, Outflow) else "waits here"
    written = f", what was written {kind}" if content is not None else ""
    stored = "not stored" if file.dirty else "stored"
    return f"{file.size} bytes, {len(file.handles)} handles, {writers} write, {stored}{written}"


def _tasks(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    """*task* and all below it."""
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child)


def _described(task: trio.lowlevel.Task) -> str:
    """The name of *task* and where it waits."""
    coroutine: Coroutine[Any, Any, Any] | None = task.coro
    frame = None
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or frame
        coroutine = getattr(coroutine, "cr_await", None)
    if frame is None:
        return f"{task.name}, running"
    return f"{task.name} at {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
