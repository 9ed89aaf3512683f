"""Tells the kernel what changed behind its back, so that programs see changes in their order.

A notification blocks in the kernel until requests that hold the lock of the same directory are
answered, and only our loop can answer those.  So they are sent from threads of their own: one for
attributes, which never blocks, and several for names.

What is told can be waited for (`delivered`), and the intake of foreign changes does: as long as the
kernel believes something that an older change has made wrong, no newer change may be visible, not
even by a name that the kernel asks for.  Nothing else waits, so the loop answers whatever the
notification is blocked by.  Should that take long, as for a rename that waits for its server, the
others go on without it.

Pages need no notification.  A file that nobody has open is opened with an order to drop them, and
one that is open keeps the version it has, under its own inode (R1).

Concurrency: `changed` runs on the trio thread and returns at once.  A directory's names always go
to the same thread, so that one directory whose lock is held does not stop the others.  After `stop`
nothing is sent any more.  What waits is bounded by what the kernel knows: a job is queued once.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable

import pyfuse3
import trio
from pyfuse3 import InodeT

from natsfs.threads import start_thread
from natsfs.tree.inodes import Numbered, is_root
from natsfs.tree.nodes import Change, EntryChange

log = logging.getLogger(__name__)

#: Threads for names: enough that one stuck directory leaves others moving, few enough for a small
#: machine.
THREADS = 4

#: Seconds that later changes wait for the notification of an earlier one.  It is blocked by what
#: this host does in that directory: milliseconds, 1 s with 16 programs at it on 2 cores.  A rename
#: that waits for a slow server must not keep the mount from seeing everything else.
PATIENCE = 5.0

#: Seconds over which an inode that the kernel must know, and does not, is tried again: the answer
#: that tells it is on its way to a process that has to be scheduled first.
IN_TRANSIT = 0.2

#: Errors that mean that the kernel has nothing to forget.  ENOTEMPTY and EBUSY come from notifying
#: the removal of what is a mount point or has entries for the kernel; the entry is stale all the
#: same.  ENODEV and ENOTCONN: it is being unmounted.
_NORMAL = (
    *(errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY, errno.ENOTDIR),
    *(errno.ENODEV, errno.ENOTCONN),
)


class KernelNotifier:
    """Invalidates kernel caches of names and attributes (A1).  Made on the trio thread."""

    def __init__(self) -> None:
        token = trio.lowlevel.current_trio_token()
        self._attributes = _Lane("attributes", token)
        self._names = [_Lane(f"names-{number}", token) for number in range(THREADS)]

    def changed(self, changes: Iterable[Change]) -> None:
        """Queue what the kernel knows of *changes*."""
        for change in changes:
            if isinstance(change, EntryChange):
                self._entry_changed(change)
            elif _known(change.node):
                self._attributes_changed(change.node)

    @property
    def behind(self) -> bool:
        """Whether there is something that the kernel has not been told yet."""
        return any(lane.behind for lane in (self._attributes, *self._names))

    async def delivered(self) -> None:
        """Wait until the kernel has been told everything queued so far, `PATIENCE` at most."""
        for lane in (self._attributes, *self._names):
            await lane.delivered()

    async def told_of(self, node: Numbered) -> None:
        """Wait until the kernel has been told of the attributes of *node*, if it has to be."""
        if self._attributes.holds(("attributes", node.ino)):
            await self._attributes.delivered()

    def stop(self) -> None:
        """Send nothing more.  A notification that is under way may still be blocked."""
        for lane in (self._attributes, *self._names):
            lane.stop()

    def join(self, timeout: float) -> bool:
        """After `stop`: wait until no notification is under way.  False if one still is after
        *timeout* seconds.  Blocks, so it is not for the trio thread."""
        deadline = time.monotonic() + timeout
        lanes = (self._attributes, *self._names)
        return all(lane.join(deadline - time.monotonic()) for lane in lanes)

    def _entry_changed(self, change: EntryChange) -> None:
        parent, name = change.parent, change.name
        if not _known(parent):
            return
        gone = change.gone.ino if change.gone is not None else 0
        self._names[parent.ino % THREADS].add(
            (parent.ino, name, gone),
            lambda: pyfuse3.invalidate_entry(InodeT(parent.ino), name, InodeT(gone)),
        )
        # Of a name that the kernel never looked up it hears nothing by that, and would keep the
        # directory's old mtime and link count.
        self._attributes_changed(parent)

    def _attributes_changed(self, node: Numbered) -> None:
        self._attributes.add(("attributes", node.ino), lambda: _invalidate_attributes(node))


class _Lane:
    """One thread and what waits for it, in its order."""

    def __init__(self, name: str, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._waiting: dict[object, Callable[[], None]] = {}
        self._sending: object = None
        #: How many jobs were queued, and sent; how many each who waits wants sent.
        self._queued = self._sent = 0
        self._waiters: list[tuple[int, trio.Event]] = []
        #: Whether somebody has waited in vain and it has not caught up since.
        self._late = False
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = start_thread(self._run, f"notify-{name}")

    def add(self, key: object, job: Callable[[], None]) -> None:
        """Queue *job*, unless one with the same *key* waits: the state that the kernel will then
        ask for is in place already."""
        with self._changed:
            if not self._stopped and key not in self._waiting:
                self._waiting[key] = job
                self._queued += 1
                self._changed.notify()

    def holds(self, key: object) -> bool:
        """Whether a job with *key* is not done."""
        with self._changed:
            return key in self._waiting or key == self._sending

    @property
    def behind(self) -> bool:
        """Whether something is not sent.  Read without the lock: what this thread has queued it
        knows, and that it has just been sent may be known a moment later."""
        return self._sent != self._queued or self._late

    async def delivered(self) -> None:
        """Wait until what was queued so far is sent; return at once while it is late."""
        with self._changed:
            if self._sent == self._queued or self._stopped:
                self._late = False
                return
            if self._late:
                return
            event = trio.Event()
            self._waiters.append((self._queued, event))
        with trio.move_on_after(PATIENCE) as scope:
            await event.wait()
        if scope.cancelled_caught:
            self._late = True
            log.info("the kernel takes long to forget a name; later changes do not wait for it")

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify()

    def join(self, timeout: float) -> bool:
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    self._wake(float("inf"))
                    return
                self._sending = next(iter(self._waiting))
                job = self._waiting.pop(self._sending)
            _send(self._sending, job)
            with self._changed:
                self._sending = None
                self._sent += 1
                self._wake(self._sent)

    def _wake(self, sent: float) -> None:
        ready = [event for wanted, event in self._waiters if wanted <= sent]
        self._waiters = [waiter for waiter in self._waiters if waiter[0] > sent]
        for event in ready:
            self._token.run_sync_soon(event.set)


def _known(node: Numbered) -> bool:
    """Whether the kernel may have anything cached of *node*."""
    return node.lookups > 0 or is_root(node.ino)


def _send(what: object, job: Callable[[], None]) -> None:
    try:
        job()
    except OSError as error:
        if error.errno not in _NORMAL:
            log.warning("the kernel refused to invalidate %r: %s", what, error)


def _invalidate_attributes(node: Numbered) -> None:
    """The kernel knows *node* for as long as it counts lookups.  If it says that it does not, then
    the answer by which it learns of it is not processed yet, and would bring what is old now."""
    pause, deadline = 0.0002, time.monotonic() + IN_TRANSIT
    while True:
        try:
            pyfuse3.invalidate_inode(InodeT(node.ino), attr_only=True)
        except OSError as error:
            unknown = error.errno == errno.ENOENT and node.lookups > 0
            if not unknown or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(pause)
        pause *= 2
