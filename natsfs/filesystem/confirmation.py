"""The server's time of what this mount commits (M3), which comes with the watch and not with the
acknowledgement.

Until then ctime is an estimate.  Every answer to the kernel that has it says that it must not be
kept, so a program that wants to know it makes the kernel ask; that question waits for the echo, and
no other does.  Reading each commit back instead took half of all round trips of small files.

Concurrency: after `settled` anything may have changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from natsfs.errors import NatsfsError
from natsfs.filesystem.state import Mounted
from natsfs.handles import is_dirty
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import Directory, Leaf, Node, info_of

log = logging.getLogger(__name__)

#: Seconds that a question waits for the echo, which is on its way when the acknowledgement comes:
#: longer than a foreign change before it keeps the watch as a rule, shorter than anybody notices.
ECHO = 0.2

#: Seconds that it then waits for the leader.  A server that is away must not keep the mount from
#: showing attributes (A5).
ANSWER = 1.0


class Confirmation:
    """Waits for the server's times."""

    def __init__(self, mounted: Mounted, confirm: Callable[[ObjectInfo], None]) -> None:
        self._m = mounted
        self._confirm = confirm

    async def settled(self, node: Node) -> None:
        """Wait until the ctime of *node* is the server's.  It stays an estimate while the watch is
        interrupted, and where neither the watch nor the leader tells within `ECHO` and `ANSWER`."""
        subject = self._awaited(node)
        if subject is None:
            return
        with trio.move_on_after(ECHO) as scope:
            await self._m.unconfirmed.confirmed(subject)
        if scope.cancelled_caught and subject in self._m.unconfirmed:
            await self._read(subject)

    def _awaited(self, node: Node) -> str | None:
        """The subject whose echo will change what stat(2) says of *node*."""
        info = info_of(node)
        if info is None or info.subject not in self._m.unconfirmed or not self._m.live:
            return None
        if isinstance(node, Leaf) and is_dirty(node):
            return None
        if isinstance(node, Directory) and node.changed[0] > info.revision:
            return None  # An entry came or went since, by this host's clock.
        return info.subject

    async def _read(self, subject: str) -> None:
        with trio.move_on_after(ANSWER):
            try:
                info = await self._m.store.get_info_at(subject)
            except NatsfsError as error:
                log.info("the time of a change on %s is not known: %s", subject, error)
                return
            # A newer one is another client's, and comes with the watch after all before it.
            if info.revision == self._m.namespace.last_revision(subject):
                self._confirm(info)
