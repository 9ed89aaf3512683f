"""Which link carries a request, and when another one is opened.

The server answers the direct gets of one connection one after another (protocol.md 2.2), so bulk
requests are spread over several links, and small ones have a link that no bulk is ahead of.  Links
are opened in the background when they are missed, and nobody waits for that: until there is one,
`choose` says so, and the caller has another way.

Concurrency: `choose` is synchronous; between it and the first step of `Link.send` nothing awaits,
so the link is alive.  `follow` alone replaces `_access`.
"""

from __future__ import annotations

import logging

import trio

from natsfs.errors import ConnectFailed
from natsfs.store.buffers import Shelf
from natsfs.store.link.link import Link, open_link
from natsfs.store.session import Access, Session

log = logging.getLogger(__name__)

#: Links for bulk.  Eight readers of single random chunks, on 2 cores: 275 µs a chunk with one link,
#: 182 with two, 190 with three, 215 with four, 252 with six.  Three, since a server has more cores.
BULK_LINKS = 3

#: Seconds before a link is tried again where one could not be opened, doubling.  The upper bound is
#: for servers that do not allow so many connections.
RETRY_FIRST = 0.05
RETRY_MOST = 10.0


class Group:
    """Up to *most* links of one kind."""

    def __init__(self, most: int) -> None:
        self.links: list[Link] = []
        self.opening = 0
        self._most = most

    @property
    def alive(self) -> list[Link]:
        """The links that are not over."""
        return [link for link in self.links if not link.over]

    def idlest(self) -> Link | None:
        """The link with the least to do."""
        return min(self.alive, key=lambda link: link.load, default=None)

    @property
    def wants_more(self) -> bool:
        """Whether another link would have something to do now."""
        idlest = self.idlest()
        busy = idlest is None or idlest.load > 0
        return busy and self.opening == 0 and len(self.alive) < self._most


class Pool:
    """The links beside one session.  Their tasks run in *nursery*."""

    def __init__(self, session: Session, nursery: trio.Nursery) -> None:
        self._session = session
        self.nursery = nursery
        self._access: Access | None = None
        #: How many links have ended.
        self.losses = 0
        self._small = Group(1)
        self._bulk = Group(BULK_LINKS)
        self._shelf = Shelf()
        self._retry_at = 0.0
        self._delay = RETRY_FIRST

    def choose(self, *, bulk: bool) -> Link | None:
        """The link for a request, None when there is none for now."""
        group = self._bulk if bulk else self._small
        if group.wants_more and trio.current_time() >= self._retry_at:
            self._begin(group)
        return group.idlest() or self._small.idlest()

    @property
    def count(self) -> int:
        """How many links are open."""
        return len(self._small.alive) + len(self._bulk.alive)

    async def follow(self) -> None:
        """Keep to the server that the session is connected to, for ever.

        Links to another server take nothing new and end when they have nothing under way.  A link
        to the same server does not depend on the session's own connection.
        """
        while True:
            access = self._session.access
            if access is not None:
                if access != self._access:
                    self._retire()
                self._access = access
                self._retry_at, self._delay = 0.0, RETRY_FIRST
                self.choose(bulk=False)
            await self._session.changed()

    def _count(self) -> None:
        self.losses += 1

    def _retire(self) -> None:
        for group in (self._small, self._bulk):
            for link in group.links:
                link.retire()
            group.links = []

    def _begin(self, group: Group) -> None:
        if self._access is not None and self._session.connected:
            group.opening += 1
            self.nursery.start_soon(self._open, group, self._access)

    async def _open(self, group: Group, access: Access) -> None:
        try:
            link = await open_link(access, self._shelf, self._session.config.connect_timeout)
        except ConnectFailed as error:
            log.info("%s", error)
            self._retry_at = trio.current_time() + self._delay
            self._delay = min(2 * self._delay, RETRY_MOST)
            return
        finally:
            group.opening -= 1
        self._delay = RETRY_FIRST
        link.on_end = self._count
        if access != self._access:
            link.retire()
        else:
            group.links.append(link)
        await link.run()
        if link in group.links:
            group.links.remove(link)
