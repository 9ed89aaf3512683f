"""The connection that comes back: one `Line` after the other, for ever.

Runs in the asyncio thread only.  Concurrency: `current` is replaced between awaits, so whoever
needs a line takes it from `line` and keeps using that one; requests that a breaking line had under
way are failed by it, never moved to the next.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

from natsfs.config import ServerConfig
from natsfs.errors import ConnectFailed, ConnectionLost
from natsfs.store.session.client import Address, Login, parse_url
from natsfs.store.session.denials import Denials
from natsfs.store.session.line import Line

log = logging.getLogger(__name__)

#: Seconds between attempts to reconnect: at once, then doubling.  The upper bound keeps the time to
#: notice that a server is back small against A5's 60 s; the jitter spreads the clients of a
#: restarted server (Go waits 2 s with up to 100 ms of jitter).
RECONNECT_FIRST = 0.05
RECONNECT_MOST = 2.0


class Connection:
    """Keeps a line to one of the configured servers."""

    def __init__(self, config: ServerConfig, denials: Denials, changed: Callable[[], None]) -> None:
        self.current: Line | None = None
        #: How many lines have ended.
        self.losses = 0
        self._config = config
        self._denials = denials
        self._changed = changed
        self._available = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._addresses: list[Address] = []
        self._login = Login()
        for url in config.urls:
            address, login = parse_url(url)
            self._addresses.append(address)
            self._login = login if login != Login() else self._login

    async def open(self) -> None:
        """Make the first connection.  Errors: `ConnectFailed`."""
        self._put_through(await self._dial())
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Hang up for good.  What is under way fails."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self.current is not None:
            await self._hang_up(self.current)

    async def line(self, timeout: float) -> Line:
        """The line, or the next one if it comes within *timeout* seconds.

        Errors: `ConnectionLost`.
        """
        try:
            async with asyncio.timeout(timeout):
                while self.current is None:
                    await self._available.wait()
        except TimeoutError:
            servers = ", ".join(map(str, self._addresses))
            raise ConnectionLost(f"no connection to {servers} for {timeout:.3g} s") from None
        return self.current

    async def _keep(self) -> None:
        while True:
            try:
                await self._keep_one()
            except Exception:
                # Without its keeper a session would stay without a connection for ever.
                log.exception("unforeseen error while keeping the connection")
                await asyncio.sleep(RECONNECT_MOST)

    async def _keep_one(self) -> None:
        line = self.current
        if line is None:
            line = await self._redial()
            self._put_through(line)
            log.info("connected again to %s", line.address)
        await line.ended()
        log.warning("lost the connection to %s", line.address)
        await self._hang_up(line)

    def _put_through(self, line: Line) -> None:
        self.current = line
        self._available.set()
        for url in line.client.discovered_servers:
            found = Address(line.address.scheme, str(url.hostname), url.port or line.address.port)
            if found not in self._addresses:
                self._addresses.append(found)
        self._changed()

    async def _hang_up(self, line: Line) -> None:
        self.current = None
        self.losses += 1
        self._available.clear()
        self._changed()
        await line.close()

    async def _redial(self) -> Line:
        delay, reason = RECONNECT_FIRST, ""
        while True:
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            try:
                return await self._dial()
            except ConnectFailed as error:
                if str(error) != reason:
                    reason = str(error)
                    log.info("not connected: %s", reason)
            delay = min(2 * delay, RECONNECT_MOST)

    async def _dial(self) -> Line:
        """Try the servers in turn, each with its share of the time left, beginning with the one
        after the last that was tried."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.connect_timeout
        failures: list[str] = []
        addresses = list(self._addresses)
        for left in range(len(addresses), 0, -1):
            address = self._addresses.pop(0)
            self._addresses.append(address)
            timeout = max((deadline - loop.time()) / left, 0.1)
            try:
                return await Line.open(address, self._login, self._config, self._denials, timeout)
            except ConnectFailed as error:
                failures.append(str(error))
        raise ConnectFailed("; ".join(failures))
