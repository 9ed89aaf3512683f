"""Tells the kernel what changed behind its back.

A notification blocks in the kernel until requests that touch the same directory or page are
answered, and only our loop can answer those.  So they are sent from threads of their own, fed by
queues that coalesce: a name or an inode that waits already is not queued again, because the state
that the kernel will then ask for is in place before anything is queued.

Concurrency: `changed` runs on the trio thread and returns at once.  A directory's names always go
to the same thread, so that one directory whose lock is held does not stop the others.  After `stop`
nothing is sent any more.  What waits is bounded by what the kernel knows: a job is queued once.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterable

import pyfuse3
from pyfuse3 import InodeT

from natsfs.tree.nodes import Change, EntryChange

log = logging.getLogger(__name__)

#: Threads: enough that one stuck directory leaves others moving, few enough for a small machine.
THREADS = 4

#: Inode (with a name, the directory's), name, whether pages go too, inode of what is gone.
Job = tuple[int, bytes | None, bool, int]


class KernelNotifier:
    """Invalidates kernel caches of names, attributes and pages (A1)."""

    def __init__(self) -> None:
        self._lanes = [_Lane(number) for number in range(THREADS)]

    def changed(self, changes: Iterable[Change]) -> None:
        """Queue what the kernel knows of *changes*."""
        for change in changes:
            if isinstance(change, EntryChange):
                self._entry_changed(change)
            elif change.node.ino:
                self._add((change.node.ino, None, change.content, 0))

    def stop(self) -> None:
        """Send nothing more.  A notification that is under way may still be blocked in the kernel;
        its thread ends with the process."""
        for lane in self._lanes:
            lane.stop()

    def _entry_changed(self, change: EntryChange) -> None:
        parent = change.parent
        if not parent.ino:
            return
        gone = change.gone.ino if change.gone is not None else 0
        self._add((parent.ino, change.name, False, gone))
        # Of a name that the kernel never looked up it hears nothing by that, and would keep the
        # directory's old mtime and link count.
        self._add((parent.ino, None, False, 0))

    def _add(self, job: Job) -> None:
        self._lanes[job[0] % THREADS].add(job)


class _Lane:
    """One thread and what waits for it."""

    def __init__(self, number: int) -> None:
        self._waiting: dict[Job, None] = {}
        self._ready = threading.Condition()
        self._stopped = False
        threading.Thread(target=self._run, name=f"notify-{number}", daemon=True).start()

    def add(self, job: Job) -> None:
        with self._ready:
            self._waiting.setdefault(job)
            self._ready.notify()

    def stop(self) -> None:
        with self._ready:
            self._stopped = True
            self._waiting.clear()
            self._ready.notify()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                job = next(iter(self._waiting))
                del self._waiting[job]
            _send(job)


def _send(job: Job) -> None:
    ino, name, content, gone = job
    call: Callable[[], None]
    if name is None:
        call = lambda: pyfuse3.invalidate_inode(InodeT(ino), attr_only=not content)  # noqa: E731
    else:
        call = lambda: pyfuse3.invalidate_entry(InodeT(ino), name, InodeT(gone))  # noqa: E731
    try:
        call()
    except OSError as error:
        # ENOENT: the kernel does not have it.  ENOTEMPTY and EBUSY come from notifying the removal
        # of what is a mount point or has entries for the kernel; the entry is stale all the same.
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY, errno.ENOTDIR):
            log.warning("the kernel refused to invalidate inode %d %r: %s", ino, name, error)
